"""Features of a data folder, whether packed into shards or as .npy files.

A manifest names an array by a path such as `mel/<clip>.npy`: kind "mel", and the clip. It is read from the shards in
`features/` (see shards.py), and from the file of that name where no shard has it.

    python -m tts_kernel.data.features pack DATA [--half mel condition] [--delete-source] [--workers N]
    python -m tts_kernel.data.features check DATA
    python -m tts_kernel.data.features compact DATA
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tts_kernel.data.features.npy_files import list_npy, npy_shapes, read_npy
from tts_kernel.data.features.shard_format import FeatureError, form_of, key_bytes, name_bytes, name_offset
from tts_kernel.data.features.shard_index import Index, open_index
from tts_kernel.data.features.shard_maps import ShardMaps
from tts_kernel.data.files import inside

__all__ = ["FeatureError", "Features", "read_npy"]
FOLDER = "features"  # of the shards, in the data folder
_BEFORE = 1024  # bytes of a name and a header before an array's values
SHAPES = pa.schema(
    [("clip", pa.large_string()), ("frames", pa.int64()), ("layout", pa.dictionary(pa.int32(), pa.string()))]
)
Row = tuple[int, int, int, int, int]  # offset, shard, frames, crc, layout


class Features:
    """Reads the arrays of a data folder, in any order. Picklable, and safe in workers of any start method: shards are
    mapped when first read, and no file stays open.

    `verify` compares an array with its checksum whenever it is read, at 4 GB/s or so; names, shapes and sizes are
    compared always. `allow_outside` reads .npy files that lie outside the root, as `read_manifest` does.
    """

    def __init__(self, root: Path, verify: bool = False, allow_outside: bool = False) -> None:
        self.root, self.verify, self.allow_outside = Path(root), verify, allow_outside
        self.folder = self.root / FOLDER
        self.refresh()

    def refresh(self) -> None:
        """See the shards that were added since this was opened."""
        self._index = open_index(self.folder) if self.folder.is_dir() else Index(self.folder)
        self._maps = ShardMaps(self.folder, self._index.shards)

    def __getstate__(self) -> dict[str, Any]:
        return {"root": self.root, "verify": self.verify, "allow_outside": self.allow_outside}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)  # type: ignore[misc]

    @property
    def kinds(self) -> list[str]:
        """Kinds that are packed."""
        return sorted(self._index.kinds)

    @property
    def problems(self) -> list[str]:
        """Shards and indices that cannot be used, with the reason."""
        return self._index.problems

    def read(self, paths: Sequence[str]) -> list[np.ndarray]:
        """The arrays of manifest paths relative to the root, read-only, as they are stored. Raises FeatureError naming
        the path; UnsafePathError for one that leaves the root."""
        found = list(self._found(paths))
        layouts = self._index.layouts
        self._maps.prefetch(
            (shard, max(offset - _BEFORE, 0), offset + form_of(layouts[layout], frames).size)
            for _, _, _, (offset, shard, frames, _, layout) in found
        )
        arrays: list[np.ndarray | None] = [None] * len(paths)
        for number, kind, place, row in found:
            clip = paths[number][len(kind) + 1 : -4]
            array = self._array(kind, clip, row)
            arrays[number] = self._other(kind, clip, place) if array is None else array
        return [self._file(path) if array is None else array for path, array in zip(paths, arrays, strict=True)]

    def read_kind(self, kind: str, clips: Sequence[str]) -> list[np.ndarray]:
        """The arrays of one kind."""
        return self.read([f"{kind}/{clip}.npy" for clip in clips])

    def lengths(self, kind: str, damaged: list[str] | None = None) -> pa.Table:
        """clip (large_string) and frames (int64), the first number of the shape, of every clip that has this kind,
        in no order. No array is loaded. .npy files that cannot be read are added to `damaged` and left out; without
        that list they raise FeatureError."""
        return self.shapes(kind, damaged).select(["clip", "frames"])

    def shapes(self, kind: str, damaged: list[str] | None = None) -> pa.Table:
        """`lengths` with the column layout: dtype and shape such as `<f4 *,80`, where * stands for the frames."""
        index = self._index.kinds.get(kind)
        packed = SHAPES.empty_table()
        if index is not None:
            layout = pa.DictionaryArray.from_arrays(
                pa.array(index.rows["layout"].astype(np.int32)), self._index.layouts
            )
            packed = pa.table([index.clips, pa.array(index.rows["frames"].astype(np.int64)), layout], schema=SHAPES)
        if not (self.root / kind).is_dir():
            return packed
        files = npy_shapes(self.root / kind, damaged)
        if len(packed):
            files = files.filter(pc.invert(pc.is_in(files["clip"], packed["clip"])))
        return pa.concat_tables([packed, files]).unify_dictionaries()

    def exists(self, kind: str, clips: pa.Array | pa.ChunkedArray) -> np.ndarray:
        """(n,) whether each clip has this kind, packed or as a file; not for a null."""
        clips = clips.cast(pa.large_string())
        index = self._index.kinds.get(kind)
        names = [] if index is None else [index.clips]
        if (self.root / kind).is_dir():
            names.append(list_npy(self.root / kind).clips)
        there = np.zeros(len(clips), dtype=bool)
        for known in names:
            there |= pc.is_in(clips, known, skip_nulls=True).to_numpy(zero_copy_only=False)
        return there

    def has(self, paths: Sequence[str]) -> np.ndarray:
        """(n,) whether each manifest path is packed or a file; nothing is read. For a few thousand paths; `exists` is
        for all clips of a kind."""
        there = np.zeros(len(paths), dtype=bool)
        for number, kind, place, _ in self._found(paths):
            there[number] = self._place(kind, paths[number][len(kind) + 1 : -4], place) is not None
        for row in np.flatnonzero(~there).tolist():
            there[row] = self._path(paths[row]).is_file()
        return there

    def made(self, kind: str, clips: pa.Array | pa.ChunkedArray) -> np.ndarray:
        """(n,) when the shard that has each clip's array was finished, in nanoseconds since 1970; -1 if not packed."""
        index = self._index.kinds.get(kind)
        if index is None:
            return np.full(len(clips), -1, dtype=np.int64)
        places = pc.index_in(clips.cast(pa.large_string()), index.clips).fill_null(-1).to_numpy()
        times = np.array([shard.made_ns for shard in self._index.shards], dtype=np.int64)
        return np.where(places < 0, -1, times[index.rows["shard"][places]])

    def _found(self, paths: Sequence[str]) -> Iterator[tuple[int, str, int, Row]]:
        """(number, kind, place in its index, row there) of the paths whose key the index has. As a clip's name may have
        slashes, too, the kind is the longest that has the clip."""
        waiting = [(number, path.rpartition("/")[0]) for number, path in enumerate(paths) if path.endswith(".npy")]
        while waiting:
            wanted: dict[str, list[int]] = {}  # kind -> numbers of its paths
            for number, kind in waiting:
                while kind and kind not in self._index.kinds:
                    kind = kind.rpartition("/")[0]
                if kind:
                    wanted.setdefault(kind, []).append(number)
            waiting = []
            for kind, numbers in wanted.items():
                found = list(self._find(kind, numbers, paths))
                yield from found
                if "/" in kind and len(found) < len(numbers):
                    had = {item[0] for item in found}
                    waiting += [(number, kind.rpartition("/")[0]) for number in numbers if number not in had]

    def _find(self, kind: str, numbers: list[int], paths: Sequence[str]) -> Iterator[tuple[int, str, int, Row]]:
        """(number of the path, kind, place in its index, row there) of the paths that the index has."""
        index, start = self._index.kinds[kind], len(kind) + 1
        keys = np.frombuffer(b"".join([key_bytes(paths[number][start:-4]) for number in numbers]), "<u8")
        places = index.keys.searchsorted(keys)
        places[places == len(index)] = 0
        hits = (index.keys[places] == keys).tolist()
        rows = index.rows[places].tolist()
        for number, place, row, hit in zip(numbers, places.tolist(), rows, hits, strict=True):
            if hit:
                yield number, kind, place, row

    def _array(self, kind: str, clip: str, row: Row) -> np.ndarray | None:
        """What a row of the index points to; None if the shard has another name or shape there."""
        offset, shard, frames, crc, layout = row
        data = self._maps.bytes_of(shard)
        form = form_of(self._index.layouts[layout], frames)
        name = name_bytes(clip, kind)
        start, end = offset - len(form.head), offset + form.size
        at = start - name_offset(name)
        if bytes(data[at : at + len(name)]) != name or bytes(data[start:offset]) != form.head or end > len(data):
            return None
        if self.verify and zlib.crc32(data[offset:end]) != crc:
            raise self._damaged(kind, clip, shard, "its checksum differs")
        return np.ndarray(form.shape, form.dtype, data, offset)

    def _other(self, kind: str, clip: str, place: int) -> np.ndarray | None:
        """The same where a name or shape was not as expected: another clip has the same key, or there is damage."""
        own = self._place(kind, clip, place)
        if own is None:
            return None
        row = self._index.kinds[kind].rows[own].item()
        array = self._array(kind, clip, row)
        if array is None:
            raise self._damaged(kind, clip, row[1], "its index does not match it")
        return array

    def _place(self, kind: str, clip: str, place: int) -> int | None:
        """Which of the rows with the key of the one at `place` is the clip's."""
        index = self._index.kinds[kind]
        last = int(index.keys.searchsorted(index.keys[place], side="right"))
        return next((own for own in range(place, last) if index.clips[own].as_py() == clip), None)

    def _damaged(self, kind: str, clip: str, shard: int, reason: str) -> FeatureError:
        path = self.folder / f"{self._index.shards[shard].name}.tar"
        return FeatureError(f"{self.root / kind / clip}.npy in {path.name}: {reason}; see `check`")

    def _path(self, path: str) -> Path:
        return self.root / path if self.allow_outside else inside(self.root, path)

    def _file(self, path: str) -> np.ndarray:
        try:
            return read_npy(self._path(path))
        except FeatureError as error:
            if self.problems and not (self.root / path).exists():
                raise FeatureError(f"{error}. Or repair the shards: {'; '.join(self.problems[:3])}") from error
            raise
