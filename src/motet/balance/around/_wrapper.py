"""Methods around a method."""

from abc import abstractmethod
from collections.abc import Sequence

from motet._errors import RequestError
from motet.balance._balancer import Balancer
from motet.balance.engine._batch import Batch
from motet.balance.engine._update import Step, Update
from motet.balance.engine._view import View


class Wrapper(Balancer):
    """A method around another: it changes what the one inside looks at, or what comes of its answer.

    Tasks, state, and where gradients are compared are those of the method inside, unless the wrapper says otherwise.

    Args:
        inner: the method, or wrapper, inside.
    """

    def __init__(self, inner: Balancer) -> None:
        super().__init__(skip_bad=inner.skip_bad)
        self.inner = inner
        self.place = inner.place
        self.needs_closure = self.needs_closure or inner.needs_closure
        self.needs_features = self.needs_features or inner.needs_features
        self.needs_network = self.needs_network or inner.needs_network

    def add_tasks(self, tasks: Sequence[str]) -> None:
        """Tells the method inside which tasks will come."""
        self.inner.add_tasks(tasks)

    def reset(self) -> None:
        """Forgets what the method inside has learned."""
        self.inner.reset()

    @abstractmethod
    def take(self, batch: Batch) -> Step:
        """One step: the method inside, and what is done around it."""

    def update(self, view: View) -> Update:
        """Refuses: most wrappers need more than a view, and take whole batches."""
        message = (
            f"{type(self).__name__} needs the network and was given gradients alone. Put it outside of {view.method}, "
            "or leave one of the two out."
        )
        raise RequestError(message)


def check_takes_gradients(outer: str, inner: Balancer) -> None:
    """Refuses a method that cannot decide from gradients at the parameters alone.

    Raises:
        RequestError: `inner` needs the network or features.
    """
    if inner.needs_network or inner.needs_features:
        need = "the network itself" if inner.needs_network else "gradients at features"
        message = (
            f"{outer} hands the tasks' gradients at the parameters to the method inside it, and {inner!r} needs {need}."
            f" Put {outer} inside, or leave one of the two out."
        )
        raise RequestError(message)


def check_ready(outer: str, step: Step) -> None:
    """Refuses a step that held its gradient back.

    Raises:
        RequestError: gradients are being accumulated inside.
    """
    if not step.ready:
        message = (
            f"{outer} needs each batch's gradient, and an Accumulation inside holds it back. Leave one of them out."
        )
        raise RequestError(message)
