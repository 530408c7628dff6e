"""Kinds by name, as files and the command line give them."""

import pytest

from motet import tasks
from motet._errors import RequestError
from motet.tasks import KINDS, Binary, from_dict, parse_target


def test_every_kind_is_listed_under_its_name():
    names = ["regression", "binary", "multiclass", "multilabel", "ordinal", "count", "quantile"]
    assert list(KINDS) == names
    assert all(kind.kind == name and kind.metric for name, kind in KINDS.items())
    assert {kind.__name__ for kind in KINDS.values()} <= set(tasks.__all__)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("price", ("price", None)),
        ("price:regression", ("price", "regression")),
        ("a:b:count", ("a:b", "count")),
        ("dep delay:quantile", ("dep delay", "quantile")),
    ],
)
def test_targets(text: str, expected: tuple[str, str | None]):
    assert parse_target(text) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("price:regresion", r"Task 'price' has the kind 'regresion'.*Did you mean 'regression'\?"),
        ("price:class", r"the kind 'class'; one of regression, binary, .*Did you mean 'multiclass'\?"),
        ("price:zzz", r"the kind 'zzz'; one of regression.*is written with its kind, as in 'a:b:binary'"),
        ("", r"The target '' was given; NAME or NAME:KIND was expected, such as 'price:regression'"),
        (":binary", r"The target ':binary' was given"),
        ("price:", r"The target 'price:' was given"),
    ],
)
def test_targets_that_cannot_be_read(text: str, message: str):
    with pytest.raises(RequestError, match=message):
        parse_target(text)


def test_data_that_describe_no_task():
    with pytest.raises(RequestError, match=r"'kind' and 'name' were expected"):
        from_dict({"kind": "binary"})
    with pytest.raises(RequestError, match=r"Task 'y' has the kind 'binry'.*Did you mean 'binary'"):
        from_dict({"kind": "binry", "name": "y"})
    assert from_dict({"kind": "binary", "name": "y", "from_a_later_version": 1}) == Binary("y")
