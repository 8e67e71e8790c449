"""How one array lies in a shard: its name in the tar, its header, its shape in a few letters, its key in an index.

A member is called `<clip>.<kind>.npy`, as WebDataset has it. As that convention splits a name at its first dot, the
clip's own dots are written `%2E` (and `%` as `%25`); a kind that is a nested folder has `%2F` for its slashes.
"""

from __future__ import annotations

import math
import tarfile
from dataclasses import dataclass
from functools import lru_cache
from hashlib import blake2b
from pathlib import Path

import numpy as np

from tts_kernel.data.files import inside

BLOCK = tarfile.BLOCKSIZE


class FeatureError(ValueError):
    """A feature that is missing, damaged or not what the manifest and the model expect."""


def key_of(clip: str) -> int:
    """64 bits that stand for a clip's name in a sorted index."""
    return int.from_bytes(key_bytes(clip), "little")


def key_bytes(clip: str) -> bytes:
    return blake2b(clip.encode(), digest_size=8).digest()


def member_name(clip: str, kind: str) -> str:
    """Name of an array in the tar. Raises UnsafePathError for a clip or kind that is no plain path below its folder,
    FeatureError for one that is not written the shortest way or is not valid Unicode."""
    for what, name in (("clip", clip), ("kind", kind)):
        if str(inside(Path(), name)) != name:
            raise FeatureError(f"{what} {name!r}: expected {str(inside(Path(), name))!r}")
        try:
            name.encode()
        except UnicodeEncodeError:
            raise FeatureError(f"{what} {name!r}: not valid Unicode; rename its files") from None
    return name_bytes(clip, kind).decode()


def name_bytes(clip: str, kind: str) -> bytes:
    """The same, unchecked."""
    return _escaped(clip).encode() + _ending(kind)


@lru_cache(maxsize=1 << 10)
def _ending(kind: str) -> bytes:
    return f".{_escaped(kind).replace('/', '%2F')}.npy".encode()


def _escaped(name: str) -> str:
    return name.replace("%", "%25").replace(".", "%2E") if "." in name or "%" in name else name


def name_offset(member: str | bytes) -> int:
    """Bytes from a member's name to its first byte: a long name lies in blocks of its own before the header."""
    length = len(member)
    if length <= tarfile.LENGTH_NAME:
        return BLOCK
    return BLOCK + -(-(length + 1) // BLOCK) * BLOCK


def layout_of(array: np.ndarray) -> tuple[str, int]:
    """Dtype and shape without its first number, such as `<f4 *,80`; and that first number."""
    if array.ndim == 0:
        return array.dtype.str, 1
    return f"{array.dtype.str} {','.join(['*', *map(str, array.shape[1:])])}", array.shape[0]


@dataclass(frozen=True)
class Form:
    """How an array lies in a .npy file."""

    dtype: np.dtype
    shape: tuple[int, ...]
    size: int  # bytes of the values
    head: bytes  # what comes before them: format 1.0, padded to 64 bytes


@lru_cache(maxsize=1 << 16)
def form_of(layout: str, frames: int) -> Form:
    """From what `layout_of` gave, perhaps read from a file. Raises ValueError or TypeError for anything else."""
    name, _, dimensions = layout.partition(" ")
    shape = (frames, *map(int, dimensions.split(",")[1:])) if dimensions else ()
    dtype = np.dtype(name)
    if dtype.kind not in "fiub" or min(shape, default=0) < 0:
        raise ValueError(f"{layout!r} is no layout of numbers")
    text = f"{{'descr': {dtype.str!r}, 'fortran_order': False, 'shape': {shape}, }}"
    padding = -(10 + len(text) + 1) % 64
    length = (len(text) + padding + 1).to_bytes(2, "little")
    head = b"\x93NUMPY\x01\x00" + length + f"{text}{' ' * padding}\n".encode()
    return Form(dtype, shape, math.prod(shape) * dtype.itemsize, head)
