"""A second stage: other adapters where trained ones were."""

from collections.abc import Sequence

from motet._errors import RequestError
from motet.models.adapters._adapter import Adapter
from motet.models.adapters._attach import Adapters, attach


def follow(trained: Adapters, adapter: Adapter, *, tasks: Sequence[str], seed: int) -> Adapters:
    """Takes trained adapters off and attaches others to the same layers; filling them is the caller's.

    Raises:
        RequestError: as `attach`; the trained ones are on the module again then.
    """
    where = set(trained.parts)
    module = trained.detach()
    try:
        return attach(module, adapter, layers=lambda name, _: name in where, tasks=tasks, seed=seed)
    except RequestError:
        trained.reattach()
        raise
