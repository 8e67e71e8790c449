"""The records of a TFRecord file, whole ones only.

Source of the framing: tensorflow/core/lib/io/record_writer.h: length (uint64), its masked CRC-32C (uint32), the data,
their masked CRC-32C. The checksum: RFC 3720, appendix B.4, with Castagnoli's polynomial. It is computed for all records
of one length at once, since half a million events a byte at a time would take longer than anything else here.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

_LENGTH = struct.Struct("<Q")
_HEAD, _TAIL = 12, 4  # bytes before and after the data
_LONGEST = 2048  # bytes of data that are checked together; pictures and sounds are longer, and few


@dataclass(frozen=True)
class Records:
    """In the order of the file. `starts` and `lengths` of their data are (records,), in bytes."""

    content: np.ndarray  # uint8, the whole file
    starts: np.ndarray
    lengths: np.ndarray

    def data(self, number: int) -> bytes:
        return self.content[self.starts[number] : self.starts[number] + self.lengths[number]].tobytes()

    def alike(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """(records,) numbers and (records, bytes) data of those that have one length, for each that occurs."""
        for length in np.unique(self.lengths):
            numbers = np.flatnonzero(self.lengths == length)
            yield numbers, _windows(self.content, self.starts[numbers], int(length))


def read_records(path: Path, problems: list[str]) -> Records:
    """To the end, or to the first place where a length is damaged or the file is cut. A record with damaged data is
    passed over. Each loss is one line of `problems`."""
    content = np.frombuffer(path.read_bytes(), np.uint8)
    heads, lengths, rest = _walk(content)
    sums = _windows(content, heads, 8)
    sound = masked_crc32c(sums) == _windows(content, heads + 8, 4).view("<u4")[:, 0]
    if not sound.all():
        first = int(np.argmin(sound))
        lost = len(content) - int(heads[first])
        problems.append(f"{path}: damaged at byte {int(heads[first]):,}; the {lost:,} bytes from there are lost")
        heads, lengths = heads[:first], lengths[:first]
    elif rest is not None:
        problems.append(f"{path}: ends in the middle of an event, at byte {rest:,}")
    records = Records(content, heads + _HEAD, lengths)
    whole = _whole(records)
    for place in heads[~whole]:
        problems.append(f"{path}: the event at byte {int(place):,} is damaged and passed over")
    return Records(content, records.starts[whole], records.lengths[whole])


def masked_crc32c(data: np.ndarray) -> np.ndarray:
    """(records, bytes) uint8 -> (records,) uint32: the CRC-32C of each row, rotated and moved as the format wants."""
    table, columns = _table(), np.ascontiguousarray(data.T)
    crc = np.full(len(data), 0xFFFFFFFF, np.uint32)
    for column in columns:
        crc = table[(crc ^ column) & 0xFF] ^ (crc >> np.uint32(8))
    crc = ~crc
    return ((crc >> np.uint32(15)) | (crc << np.uint32(17))) + np.uint32(0xA282EAD8)


def _walk(content: np.ndarray) -> tuple[np.ndarray, np.ndarray, int | None]:
    """Where records begin and how long their data are, believing the lengths; and where one begins that is cut."""
    view, places, lengths, place = content.data, list[int](), list[int](), 0
    while place + _HEAD <= len(content):
        (length,) = _LENGTH.unpack_from(view, place)
        end = place + _HEAD + length + _TAIL
        if end > len(content) and masked_crc32c(content[None, place : place + 8])[0] == _stored(content, place + 8):
            return np.array(places, np.int64), np.array(lengths, np.int64), place
        places.append(place)
        if end > len(content):  # a damaged length; its checksum will say so
            lengths.append(0)
            return np.array(places, np.int64), np.array(lengths, np.int64), None
        lengths.append(length)
        place = end
    return np.array(places, np.int64), np.array(lengths, np.int64), place if place < len(content) else None


def _whole(records: Records) -> np.ndarray:
    """(records,): whether the data are what was written."""
    whole = np.ones(len(records.starts), bool)
    for numbers, data in records.alike():
        stored = _windows(records.content, records.starts[numbers] + data.shape[1], _TAIL).view("<u4")[:, 0]
        if data.shape[1] <= _LONGEST:
            whole[numbers] = masked_crc32c(data) == stored
        else:
            from tensorboard.compat.tensorflow_stub.pywrap_tensorflow import masked_crc32c as of_one

            whole[numbers] = [of_one(row.tobytes()) == one for row, one in zip(data, stored, strict=True)]
    return whole


def _windows(content: np.ndarray, starts: np.ndarray, length: int) -> np.ndarray:
    """(records, length): a copy of so many bytes from each start."""
    if not len(starts) or not length:
        return np.zeros((len(starts), length), np.uint8)
    return np.lib.stride_tricks.sliding_window_view(content, length)[starts]


def _stored(content: np.ndarray, place: int) -> int:
    return int(content[place : place + 4].view("<u4")[0])


@cache
def _table() -> np.ndarray:
    """(256,) uint32: the checksum's change for each byte."""
    table = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        table = np.where(table & 1, (table >> np.uint32(1)) ^ np.uint32(0x82F63B78), table >> np.uint32(1))
    return table.astype(np.uint32)
