"""State by task: any name, made on demand, and by loading."""

import copy

import pytest
import torch
from torch import nn

from motet import RequestError
from motet.balance.parts._per_task import PerTask, key_of, task_of

NAMES = ["a", "b.c", "keys", "", "50%", "%2E", "task:a", "training", "ü x", "_buffers"]


class Owner(nn.Module):
    """A module that keeps state by task, as a method does."""

    def __init__(self) -> None:
        super().__init__()
        self.state = PerTask()


@pytest.mark.parametrize("name", NAMES)
def test_any_name_is_legal_and_comes_back(name: str) -> None:
    assert task_of(key_of(name)) == name
    assert "." not in key_of(name)
    state = PerTask()
    state.set([name], torch.tensor([3.0]))
    assert state.tasks == (name,)
    assert name in state
    assert state.rows([name], torch.tensor(0.0)).tolist() == [3.0]


def test_names_do_not_collide() -> None:
    assert len({key_of(name) for name in NAMES}) == len(NAMES)


def test_rows_come_in_the_order_asked_with_a_default_for_the_unknown() -> None:
    state = PerTask()
    state.set(["a", "b"], torch.tensor([[1.0, 2.0], [3.0, 4.0]]))
    found = state.rows(["b", "new", "a"], torch.tensor([-1.0, -1.0], dtype=torch.float64))
    assert found.tolist() == [[3, 4], [-1, -1], [1, 2]]
    assert found.dtype == torch.float64
    assert "new" not in state


def test_what_is_kept_is_a_copy_with_storage_of_its_own() -> None:
    state = PerTask()
    rows = torch.ones(2, 3, requires_grad=True)
    state.set(["a", "b"], rows)
    rows.data.zero_()
    assert state.rows(["a"], torch.zeros(3)).sum() == 3
    kept = list(state.state_dict().values())
    assert all(value.untyped_storage().nbytes() == 12 and not value.requires_grad for value in kept)


def test_a_fresh_instance_takes_any_state() -> None:
    first, second = Owner(), Owner()
    first.state.set(NAMES, torch.arange(float(len(NAMES))))
    second.state.set(["gone"], torch.tensor([[1.0, 2.0]]))
    second.state.set(["a"], torch.tensor([[1.0, 2.0]]))  # of another shape
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    assert set(second.state.tasks) == set(NAMES)
    assert torch.equal(second.state.rows(NAMES, torch.tensor(0.0)), torch.arange(float(len(NAMES))))


def test_loading_copies() -> None:
    first, second = Owner(), Owner()
    first.state.set(["a"], torch.tensor([[1.0]]))
    saved = first.state_dict()
    second.load_state_dict(saved)
    saved["state.task:a"].zero_()
    assert second.state.rows(["a"], torch.zeros(1)).item() == 1.0


def test_forgetting_one_and_all() -> None:
    state = PerTask()
    state.set(["a", "b"], torch.tensor([1.0, 2.0]))
    state.drop(["a", "unknown"])
    assert state.tasks == ("b",)
    state.reset()
    assert state.tasks == ()
    assert state.state_dict() == {}


def test_another_shape_is_refused_with_the_task_named() -> None:
    state = PerTask()
    state.set(["a"], torch.zeros(1, 3))
    with pytest.raises(RequestError, match=r"'a' has a state of shape \(3,\).* \(4,\).*reset\(\)"):
        state.rows(["a"], torch.zeros(4))
