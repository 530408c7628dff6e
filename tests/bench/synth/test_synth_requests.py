"""Tables that cannot be, and what is said of them."""

import pytest

from motet import RequestError
from motet.bench import SynthSettings, synthesise

WRONG = [
    ({"rows": 3}, r"rows is 3; a whole number of at least 10 was expected"),
    ({"tasks": 0}, r"tasks is 0; a whole number of at least 1 was expected"),
    ({"tasks": 2.5}, r"tasks is 2\.5; a whole number"),
    ({"degree": (9,)}, r"degree is 9; 1 to 6 was expected\. Choose"),
    ({"degree": 2}, r"degree is 2; a tuple of values was expected\. Write \(2,\)\."),
    ({"degree": (1, 2, 3, 1, 2)}, r"degree has 5 values for 4 tasks.*Shorten the list"),
    ({"kinds": "binary"}, r"kinds is 'binary'; a tuple"),
    ({"kinds": ("binari",)}, r"'binari' was asked for\. Did you mean 'binary'\?"),
    ({"mechanism": "mna"}, r"mechanism 'mna' was asked for\. Did you mean"),
    ({"form": "tall"}, r"form 'tall' was asked for\. There are: wide, long\. Choose"),
    ({"missing": (1.0,)}, r"missing is 1\.0; a share from 0 to below 1 was expected"),
    ({"noise": float("nan")}, r"noise is nan; 0 to 1e\+06 was expected"),
    ({"positive_share": 1.0}, r"positive_share is 1\.0; above 0 and below 1"),
    ({"correlation": 1.2}, r"A correlation of 1\.2.*among 4 tasks.*between -0\.3333 and 1"),
    ({"correlation": -0.5}, r"between -0\.3333 and 1\. Choose one in between, or fewer tasks"),
    ({"outliers": 3, "adversarial": 1}, r"3 outliers and 1 adversarial tasks.*among 4.*Ask for more tasks"),
    ({"adversarial": 1, "correlation": 0.0}, r"1 adversarial tasks.*Ask for a correlation above 0"),
    ({"match": "labels", "correlation": -0.1}, r"-0\.1 of the labels.*Ask for one from 0 up, or match directions"),
    ({"match": "label"}, r"match 'label' was asked for\. Did you mean 'labels'\?"),
    ({"drift": 0.5, "features": 1}, r"Drift was asked for with 1 feature.*Ask for more features"),
    ({"form": "long", "kinds": ("binary", "count")}, r"kinds binary, count.*Choose one kind, or the wide form"),
    ({"rows_per_task": (5000,)}, r"5000 labelled rows was asked for in a table of 2000 rows.*more rows"),
    ({"rows_per_task": (0,)}, r"rows_per_task has 0; whole numbers from 1 up"),
    ({"form": "long", "rows": 10, "tasks": 11}, r"10 rows were asked for 11 tasks.*Ask for more rows"),
]


@pytest.mark.parametrize(("settings", "words"), WRONG, ids=[str(case[0]) for case in WRONG])
def test_an_impossible_table_is_refused_with_advice(settings: dict, words: str) -> None:
    with pytest.raises(RequestError, match=words):
        SynthSettings(**settings)


def test_labels_that_cannot_be_so_alike_are_refused_with_what_they_reach() -> None:
    """Degrees 1 and 2: z and (z + z² − 1)/√3 of one direction correlate by 1/√3 = 0.577."""
    settings = SynthSettings(tasks=2, degree=(1, 2), noise=0.0, correlation=0.6, match="labels")
    with pytest.raises(RequestError, match=r"0\.6 of the labels was asked for; .* they reach 0\.577\. Ask for less"):
        synthesise(settings)
