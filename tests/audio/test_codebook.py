from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tts_kernel.audio.codebook import CodebookError, fit_centres, load_arrays, nearest_centres, save_arrays

POINTS = np.random.default_rng(0).normal(0, 1, (200, 3)).astype(np.float32)


def test_a_centre_is_nearest_to_itself_and_a_point_to_the_one_that_it_is() -> None:
    centres = fit_centres(POINTS, 8, iterations=20, seed=1)
    assert (centres.shape, centres.dtype) == ((8, 3), np.float32)
    assert nearest_centres(centres, centres).tolist() == list(range(8))
    distances = np.linalg.norm(POINTS[:, None] - centres[None], axis=2)
    assert np.array_equal(nearest_centres(POINTS, centres), distances.argmin(axis=1))


def test_the_same_points_and_seed_give_the_same_centres() -> None:
    first, again, other = (fit_centres(POINTS, 8, iterations=20, seed=seed) for seed in (1, 1, 2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_a_file_holds_what_was_saved_and_nothing_is_left_of_a_failed_one(tmp_path: Path) -> None:
    save_arrays(tmp_path / "a.npz", centres=POINTS, mean=POINTS[0])
    mean, centres = load_arrays(tmp_path / "a.npz", "mean", "centres")
    assert np.array_equal(centres, POINTS)
    assert np.array_equal(mean, POINTS[0])
    with pytest.raises(TypeError):
        save_arrays(tmp_path / "a.npz", centres=Unsavable())  # type: ignore[arg-type]
    assert [path.name for path in tmp_path.iterdir()] == ["a.npz"]
    (again,) = load_arrays(tmp_path / "a.npz", "centres")
    assert np.array_equal(again, POINTS)


class Unsavable:
    def __array__(self, *options: object) -> np.ndarray:
        raise TypeError("no array")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "no such file"),
        (b"text", "pickle|magic|allow"),
        (b"PK\x03\x04 torn", "zip"),
        (b"", "No data left"),
    ],
)
def test_what_is_no_such_file_is_refused(tmp_path: Path, content: bytes | None, reason: str) -> None:
    path = tmp_path / "a.npz"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(CodebookError, match=reason):
        load_arrays(path, "centres")


def test_a_missing_array_is_named(tmp_path: Path) -> None:
    save_arrays(tmp_path / "a.npz", centres=POINTS)
    with pytest.raises(CodebookError, match="mean"):
        load_arrays(tmp_path / "a.npz", "centres", "mean")
