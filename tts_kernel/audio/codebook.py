"""Codebooks: centres found by k-means, the nearest of them, and the files that they are kept in."""

from __future__ import annotations

import os
from pathlib import Path
from zipfile import BadZipFile

import numpy as np


class CodebookError(ValueError):
    """A codebook's file that is missing or holds something else."""


def fit_centres(points: np.ndarray, codes: int, iterations: int, seed: int) -> np.ndarray:
    """(points, dim) -> (codes, dim) float32. Same points and seed, same centres."""
    from sklearn.cluster import KMeans
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1):  # the order of a sum, and with it the result, would follow the number of threads
        model = KMeans(codes, init="k-means++", n_init=1, max_iter=iterations, random_state=seed).fit(points)
    centres: np.ndarray = model.cluster_centers_.astype(np.float32)
    return centres


def nearest_centres(points: np.ndarray, centres: np.ndarray) -> np.ndarray:
    """(points, dim), (codes, dim) -> (points,) int64."""
    centres = centres.astype(np.float64)
    distance = (centres**2).sum(axis=1) - 2.0 * points.astype(np.float64) @ centres.T  # |point|^2 is the same for all
    return distance.argmin(axis=1).astype(np.int64)


def save_arrays(path: Path, **arrays: np.ndarray) -> None:
    """Write them as .npz, whole or not at all."""
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as out:
            np.savez(out, **arrays)  # type: ignore[arg-type]  # numpy names its own options there
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def load_arrays(path: Path, *names: str) -> list[np.ndarray]:
    """Arrays of these names from what `save_arrays` wrote. Raises CodebookError saying what is wrong with the file."""
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return [arrays[name] for name in names]
    except FileNotFoundError as error:
        raise CodebookError("no such file") from error
    except (KeyError, ValueError, OSError, EOFError, BadZipFile) as error:
        raise CodebookError(str(error)) from error
