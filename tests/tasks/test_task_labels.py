"""What labels may be, kind by kind, and what is said about those that may not."""

import json
from collections.abc import Callable
from decimal import Decimal

import numpy as np
import pytest
import torch

from motet._errors import RequestError
from motet.tasks import Binary, Count, Multiclass, Multilabel, Ordinal, Quantile, Regression, Task, from_dict


def every(values: list | np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    values = np.asarray(values)
    return values, np.ones(len(values), dtype=bool)


def objects(*values: object) -> tuple[np.ndarray, np.ndarray]:
    array = np.empty(len(values), dtype=object)
    array[:] = values
    return array, np.ones(len(values), dtype=bool)


@pytest.mark.parametrize(
    ("values", "classes"),
    [
        (np.array([True, False]), (False, True)),
        (np.array([0, 1], dtype=np.int8), (0, 1)),
        (np.array([2.0, 1.0], dtype=np.float32), (1.0, 2.0)),
        (np.array(["Yes", "no"]), ("no", "Yes")),
        (np.array(["True", "abc"]), ("abc", "True")),
        (np.array(["t", "f"]), ("f", "t")),
        (np.array(["dog", "cat"]), ("cat", "dog")),
        (objects(np.int64(3), np.int64(4))[0], (3, 4)),
    ],
)
def test_binary_learns_its_classes_with_the_positive_second(values: np.ndarray, classes: tuple):
    task = Binary("y").fit(values, np.ones(2, dtype=bool))
    assert task.classes == classes
    assert [type(label) for label in task.classes] == [type(label) for label in classes]
    back = from_dict(json.loads(json.dumps(task.to_dict())))
    assert [type(label) for label in back.classes] == [type(label) for label in classes]


def test_binary_takes_the_positive_that_is_named():
    assert Binary("y", positive="cat").fit(*every(["dog", "cat"])).classes == ("dog", "cat")
    assert Binary("y", classes=["yes", "no"]).fit(*every(["yes", "no"])).classes == ("yes", "no")
    with pytest.raises(RequestError, match=r"positive='cta'; one of its labels 'cat' and 'dog'.*Did you mean 'cat'\?"):
        Binary("y", positive="cta").fit(*every(["dog", "cat"]))


def test_binary_refuses_three_labels():
    with pytest.raises(RequestError, match=r"'y' has 3 different labels \('a', 'b', 'c'\).*Declare 'y:multiclass'"):
        Binary("y").fit(*every(["a", "b", "c"]))


def test_a_class_that_training_did_not_have_is_absent():
    task = Multiclass("y").fit(*every(["a", "b"]))
    targets, known = task.encode(*objects("b", "strange", None, "a"))
    assert known.tolist() == [True, False, False, True]
    assert targets.tolist() == [1, 0, 0, 0]


def test_classes_match_across_number_types():
    task = Multiclass("y").fit(*every([1, 2, 3]))
    targets, known = task.encode(*every([3.0, np.nan, 2.5, 1.0]))
    assert known.tolist() == [True, False, False, True]
    assert targets.tolist() == [2, 0, 0, 0]


def test_declared_classes_may_be_unseen_but_not_undeclared():
    task = Multiclass("y", classes=("a", "b", "c")).fit(*every(["a", "b"]))
    assert task.classes == ("a", "b", "c")
    assert (task.baseline(np.array([0, 1])) > 0).all()
    with pytest.raises(RequestError, match=r"the label 'aple', which is not among.*Did you mean 'apple'\?.*Add it"):
        Multiclass("y", classes=("apple", "pear")).fit(*every(["aple", "pear"]))
    with pytest.raises(
        RequestError, match=r"classes=\('a', 'a'\); at least two different classes.*List each class once"
    ):
        Multiclass("y", classes=("a", "a"))


def test_ordinal_does_not_guess_the_order_of_words():
    with pytest.raises(
        RequestError, match=r"labels are words, such as 'high' and 'low'.*Declare Ordinal with classes="
    ):
        Ordinal("y").fit(*every(["low", "mid", "high"]))
    task = Ordinal("y", classes=("low", "mid", "high")).fit(*every(["low", "mid", "high"]))
    assert task.encode(*every(["high", "low"]))[0].tolist() == [2, 0]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (objects("a", 1), r"mixes text and numbers.*'a' and 1.*Convert the column to one type"),
        (objects([1], [2]), r"the label \[1\] of type list.*Convert the column, for instance to text"),
        (every(np.array(["2020-01-01", "2020-01-02"], dtype="datetime64[ns]")), r"type datetime64.*Convert the column"),
        (every([np.inf, 1.0]), r"the label inf of type float; text, booleans and finite numbers"),
        (objects(b"a", b"b"), r"the label b'.' of type bytes"),
    ],
)
@pytest.mark.parametrize("kind", [Multiclass, Binary])
def test_class_labels_of_the_wrong_type(kind: type[Task], values: tuple, message: str):
    with pytest.raises(RequestError, match=r"Task 'y' .*" + message):
        kind("y").fit(*values)


@pytest.mark.parametrize("kind", [Regression, Count, Quantile])
def test_numbers_may_come_as_any_number_type(kind: type[Task]):
    for values in (np.array([1, 3], dtype=np.uint8), objects(1, Decimal(3))[0], np.array([1, 3], dtype=np.float16)):
        task = kind("y").fit(values, np.ones(2, dtype=bool))
        assert task.encode(values, np.ones(2, dtype=bool))[0].tolist() == [1.0, 3.0]
    targets, known = task.encode(*objects(2, None, np.nan))
    assert known.tolist() == [True, False, False]
    assert targets.tolist() == [2.0, 0.0, 0.0]


@pytest.mark.parametrize("kind", [Regression, Count, Quantile])
@pytest.mark.parametrize(
    ("values", "message"),
    [
        (every(["1", "2"]), r"not numbers, such as '1'.*Convert the column to numbers"),
        (objects(1, "two"), r"not numbers, such as 'two'"),
        (every(np.array(["2020-01-01", "2020-01-02"], dtype="datetime64[D]")), r"not numbers, such as .*2020"),
        (every([1.0, 2.0, np.inf, -np.inf]), r"the label inf \(2 such rows\); finite numbers.*Make these labels null"),
        (every([1.0, 1e39]), r"the label 1e\+39 \(1 such rows\).*rescale the column"),
        ((np.zeros((2, 1)), np.ones(2)), r"labels of shape \(2, 1\) and present of shape \(2,\).*Pass one column"),
    ],
)
def test_labels_that_are_not_usable_numbers(kind: type[Task], values: tuple, message: str):
    with pytest.raises(RequestError, match=r"Task 'y' has .*" + message):
        kind("y").fit(*values)


def test_junk_where_absent_is_never_looked_at():
    values = np.array([1.0, np.inf, 3.0, -5.5])
    present = np.array([True, False, True, False])
    assert Count("y").fit(values, present).scale == 2.0
    assert Regression("y").fit(values, present).center == 2.0
    assert Multiclass("y").fit(objects("a", [], "b", 3)[0], present).classes == ("a", "b")


@pytest.mark.parametrize("label", [-1.0, 0.5])
def test_counts_are_whole_numbers_from_zero(label: float):
    message = rf"Task 'y' has the label {label} \(1 such rows\); a count task.*declare 'y:regression'"
    with pytest.raises(RequestError, match=message):
        Count("y").fit(*every([0.0, 1.0, label]))
    with pytest.raises(RequestError, match=message):
        Count("y").fit(*every([0, 1])).encode(*every([label]))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Count("y", family="poison"), r"family='poison'.*Did you mean 'poisson'\?"),
        (lambda: Quantile("y", levels=(0.9, 0.1)), r"levels=\(0.9, 0.1\); rising numbers between 0 and 1.*Sort them"),
        (lambda: Quantile("y", levels=()), r"levels=\(\)"),
        (lambda: Quantile("y", levels=(0.0, 0.5)), r"levels=\(0.0, 0.5\)"),
        (lambda: Regression("y", scale=0.0), r"scale=0.0; a positive number was expected"),
        (lambda: Regression(""), r"the name ''; a name is text that is not empty"),
        (lambda: Regression("y", columns="price"), r"columns='price'; a tuple.*Write columns=\('price',\)"),
        (lambda: Multilabel("y", columns=("a", "b"), labels=("x",)), r"1 labels for 2 columns.*Leave labels out"),
    ],
)
def test_what_a_task_cannot_be(make: Callable[[], Task], message: str):
    with pytest.raises(RequestError, match=message):
        make()


def test_multilabel_cells():
    task = Multilabel("y", columns=("a", "b")).fit(*every([[0, 1], [1, 1]]))
    assert task.labels == ("a", "b")
    targets, known = task.encode(
        np.array([[1, None], [None, None], [True, False]], dtype=object), np.ones(3, dtype=bool)
    )
    np.testing.assert_array_equal(targets, [[1, np.nan], [0, 0], [1, 0]])
    assert known.tolist() == [True, False, True]
    targets, known = task.encode(np.array([[1, 1], [1, 0]]), np.array([[True, False], [False, False]]))
    np.testing.assert_array_equal(targets, [[1, np.nan], [0, 0]])
    assert known.tolist() == [True, False]
    with pytest.raises(RequestError, match=r"the value 2.0 in column 'b'; 0 or 1 was expected"):
        task.encode(*every([[0, 2]]))
    with pytest.raises(RequestError, match=r"labels of shape \(1, 3\).*Pass a column for each label"):
        task.encode(*every([[0, 1, 1]]))


def test_multilabel_lists():
    values, present = objects(["b", "a"], [], np.array(["a"]), None)
    task = Multilabel("y").fit(values, present)
    assert task.labels == ("a", "b")
    targets, known = task.encode(*objects(["a", "new"], [], None))
    np.testing.assert_array_equal(targets, [[1, 0], [0, 0], [0, 0]])
    assert known.tolist() == [True, True, False]
    assert task.read(np.array([[0.9, 0.8], [0.1, 0.2]])).tolist() == [("a", "b"), ()]
    with pytest.raises(
        RequestError, match=r"the label 'a b'; a list of labels was expected.*Split the text into lists"
    ):
        Multilabel("y").fit(*objects("a b", "b"))


def test_multilabel_loss_averages_what_is_known():
    task = Multilabel("y", columns=("a", "b")).fit(*every([[0, 1], [1, 0]]))
    outputs = torch.tensor([[0.0, 5.0], [0.0, 0.0]], requires_grad=True)
    losses = task.loss(outputs, torch.tensor([[1.0, torch.nan], [1.0, 0.0]]))
    torch.testing.assert_close(losses, torch.full((2,), float(np.log(2))))
    losses.sum().backward()
    torch.testing.assert_close(outputs.grad, torch.tensor([[-0.5, 0.0], [-0.25, 0.25]]))
