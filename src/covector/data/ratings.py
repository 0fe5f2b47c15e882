"""Movie ratings by user (MovieLens, latest-small): the user is the natural client.

Harper and Konstan, "The MovieLens datasets: history and context", ACM TiiS 5(4), 2015.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from covector.data.arrays import Arrays, read_arrays, write_arrays
from covector.data.rfiles import read_lazy
from covector.data.splits import stratified

__all__ = ["convert", "load"]


def convert(raw: Path, out: Path, name: str) -> None:
    """Number users and movies from 0 without gaps. Splits are 80/10/10 of each user's ratings."""
    (index,) = raw.rglob("dslabs/data/Rdata.rdx")
    frame = read_lazy(index, "movielens")
    users, user = np.unique(frame["userId"].to_numpy(dtype=np.int64), return_inverse=True)
    movies, first, movie = np.unique(frame["movieId"].to_numpy(dtype=np.int64), return_index=True, return_inverse=True)
    titles = frame["title"].iloc[first]
    write_arrays(
        out,
        torch.from_numpy(np.stack([user, movie], axis=1)),
        torch.from_numpy(frame["rating"].to_numpy(dtype=np.float32)),
        stratified([f"{users[u]}/{movies[m]}" for u, m in zip(user, movie, strict=True)], user.tolist()),
        torch.from_numpy(user),
        users=[str(number) for number in users],
        movies=[title if isinstance(title, str) else "" for title in titles],
    )


def load(folder: Path, name: str) -> Arrays:
    """Ratings: ``x`` int64 ``[n, 2]`` (user, movie), ``y`` float32 stars in [0.5, 5]; client = user.

    ``classes`` holds the movies' titles, in the order of their numbers (empty where the package has none).
    """
    tensors, splits, names = read_arrays(folder)
    return Arrays(
        name,
        tensors["x"],
        tensors["y"],
        splits,
        features=("user", "movie"),
        classes=tuple(names["movies"]),
        client_ids=tensors["client"],
        client_names=tuple(names["users"]),
    )
