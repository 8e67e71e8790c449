"""Files of a data folder: names from data stay inside it, arrays appear whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path, PurePosixPath, PureWindowsPath

import numpy as np


class UnsafePathError(ValueError):
    """An id or path from a data file that would leave its folder."""


def inside(folder: Path, relative: str) -> Path:
    """`folder / relative` for a path that comes from a data file.

    Raises UnsafePathError if it is empty, absolute (on any system), has a `..` part or a control character."""
    pure = PurePosixPath(relative)
    bad = (
        not relative.strip()
        or any(ord(character) < 32 for character in relative)
        or "\\" in relative
        or pure.is_absolute()
        or PureWindowsPath(relative).drive
        or ".." in pure.parts
        or pure == PurePosixPath(".")
    )
    if bad:
        raise UnsafePathError(
            f"{relative!r} would leave its data folder; expected a relative path without '..' or '\\'"
        )
    return folder.joinpath(*pure.parts)


def save_array(path: Path, array: np.ndarray) -> None:
    """Write one .npy, whole or not at all."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as out:
            np.save(out, array, allow_pickle=False)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
