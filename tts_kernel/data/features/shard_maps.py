"""The bytes of many shards, memory-mapped."""

from __future__ import annotations

import ctypes
import mmap
from collections.abc import Iterable
from pathlib import Path

import pyarrow as pa

from tts_kernel.data.features.shard_format import FeatureError
from tts_kernel.data.features.shards import Shard

_GAP = 1 << 16  # bytes between two arrays that are cheaper to read than to skip
_PAGE = mmap.PAGESIZE
# Every 2 MiB that were read from cost a worker 4 KiB of page tables, and only unmapping gives these back: on 700 GB of
# shards more than a gigabyte. So where much is mapped, all is mapped anew after so many reads, 0.2 s in all.
_MUCH = 64 << 30  # bytes
_READS = 1 << 15


class ShardMaps:
    """Maps each shard when it is first wanted. No file stays open, so no number of shards uses up the open files."""

    def __init__(self, folder: Path, shards: list[Shard]) -> None:
        self.folder, self.shards = folder, shards
        self._maps: dict[int, tuple[memoryview, int]] = {}  # its bytes and their address
        self._size = self._reads = 0  # bytes mapped, arrays asked for since all was mapped anew
        self._madvise = _madvise()

    def bytes_of(self, shard: int) -> memoryview:
        """Raises FeatureError if it is not there, or not as long as its index says."""
        return (self._maps.get(shard) or self._map(shard))[0]

    def prefetch(self, spans: Iterable[tuple[int, int, int]]) -> None:
        """Ask the disk for all of these (shard, first byte, end) at once. Without, each page would be waited for."""
        wanted = sorted(spans)
        self._reads += len(wanted)
        if self._size > _MUCH and self._reads > _READS:
            self._maps, self._size, self._reads = {}, 0, 0  # arrays in use keep their shard
        if self._madvise is None:
            return
        for shard, first, end in _joined(wanted):
            data, address = self._maps.get(shard) or self._map(shard)
            first, end = first // _PAGE * _PAGE, min(end, len(data))
            if first < end:
                self._madvise(address + first, end - first, mmap.MADV_WILLNEED)

    def _map(self, shard: int) -> tuple[memoryview, int]:
        known = self.shards[shard]
        path = self.folder / f"{known.name}.tar"
        try:
            with pa.memory_map(str(path)) as file:  # closing it leaves the pages
                buffer = file.read_buffer()
        except OSError as error:
            raise FeatureError(f"{path}: cannot be read ({error}); put it back, or delete its index") from error
        if buffer.size != known.size:
            raise FeatureError(f"{path}: {buffer.size} bytes, its index says {known.size}; see `check`")
        if self._madvise is not None:
            self._madvise(buffer.address, buffer.size, mmap.MADV_RANDOM)  # the neighbours are not wanted
        self._size += buffer.size
        self._maps[shard] = memoryview(buffer), buffer.address
        return self._maps[shard]


def _joined(spans: list[tuple[int, int, int]]) -> Iterable[tuple[int, int, int]]:
    at, first, end = -1, 0, 0
    for shard, start, stop in spans:
        if shard == at and start <= end + _GAP:
            end = max(end, stop)
            continue
        if at >= 0:
            yield at, first, end
        at, first, end = shard, start, stop
    if at >= 0:
        yield at, first, end


def _madvise() -> ctypes._NamedFuncPointer | None:
    """The system's, where there is one: Python's own wants the file to stay open."""
    try:
        function = ctypes.CDLL(None).madvise
    except (AttributeError, OSError, TypeError):
        return None
    function.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    return function
