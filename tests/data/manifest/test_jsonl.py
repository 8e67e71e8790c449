from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pytest

from tts_kernel.data.manifest import jsonl
from tts_kernel.data.manifest.jsonl import encode, parse, read_chunks

AWKWARD = ['"', "\\", 'a\\"b', "\n\t\r", "\x00\x1f", "\x7f", "한국어 😀", "", "</script>", "\\n", "\u2028"]


def lines(table: pa.Table) -> list[dict]:
    return [json.loads(line) for line in bytes(encode(table)).decode().split("\n")[:-1]]


def test_every_kind_of_value_survives_encoding() -> None:
    columns = {
        "text": AWKWARD,
        "number": list(range(len(AWKWARD))),
        "share": [0.1 * n for n in range(len(AWKWARD))],
        "flag": [n % 2 == 0 for n in range(len(AWKWARD))],
        "list": [[n, n + 1] for n in range(len(AWKWARD))],
        'a "name"': AWKWARD[::-1],
    }
    table = pa.table(columns)
    table = table.append_column("few", table.column("text").dictionary_encode())
    assert lines(table) == table.to_pylist()


@pytest.mark.parametrize("first", [True, False])
def test_a_row_has_the_fields_it_fills_and_no_others(first: bool) -> None:
    rows = [{"a": None, "b": "x", "c": None}, {"a": 1, "b": None, "c": 2}, {"a": 3, "b": "y", "c": None}]
    table = pa.Table.from_pylist(rows if first else rows[::-1])
    assert lines(table) == [{k: v for k, v in row.items() if v is not None} for row in table.to_pylist()]


def test_a_slice_encodes_its_own_rows() -> None:
    table = pa.table({"text": AWKWARD, "n": range(len(AWKWARD))})
    assert lines(table.slice(3, 4)) == table.slice(3, 4).to_pylist()
    assert bytes(encode(table.slice(0, 0))) == b""


@pytest.mark.parametrize("size", [1, 2, 3, 7, 64])
@pytest.mark.parametrize(
    "content", [b"one\ntwo\nthree\n", b"one\ntwo\nthree", b"\n\none\n\n", b"", b"\xef\xbb\xbfone\ntwo\n"]
)
def test_chunks_are_the_files_lines_whatever_the_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes, size: int
) -> None:
    monkeypatch.setattr(jsonl, "CHUNK", size + 5)
    path, seen = tmp_path / "file", bytearray()
    path.write_bytes(content)
    chunks = list(read_chunks(path, seen.extend))
    assert bytes(seen) == content
    assert b"".join(chunk.data for chunk in chunks) == content.removeprefix(b"\xef\xbb\xbf")
    line = 1
    for chunk in chunks:
        assert chunk.line == line
        assert chunk is chunks[-1] or chunk.data.endswith(b"\n")
        line += chunk.data.count(b"\n")


@pytest.mark.parametrize("where", ["first", "middle", "last", "last without newline"])
def test_a_line_longer_than_a_chunk_is_passed_over_and_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    monkeypatch.setattr(jsonl, "CHUNK", 100)
    long = b"x" * 1000
    parts = {"first": [long, b"a", b"b"], "middle": [b"a", long, b"b"]}.get(where, [b"a", b"b", long])
    (tmp_path / "file").write_bytes(b"\n".join(parts) + (b"" if where.endswith("newline") else b"\n"))
    chunks = list(read_chunks(tmp_path / "file", lambda data: None))
    (found,) = [chunk for chunk in chunks if chunk.too_long]
    assert found.line == parts.index(long) + 1
    assert found.too_long in (1000, 1001)
    kept = b"".join(chunk.data for chunk in chunks)
    assert kept.split() == [b"a", b"b"]
    assert all(len(chunk.data) <= 200 for chunk in chunks)


def test_text_that_looks_like_a_date_stays_text() -> None:
    table = parse(b'{"when": "2024-03-01", "id": "2024-03-01"}\n{"when": null}\n', {"id": pa.string(), "n": pa.int64()})
    assert table.to_pylist() == [
        {"when": "2024-03-01", "id": "2024-03-01", "n": None},
        {"when": None, "id": None, "n": None},
    ]


def test_parsing_refuses_what_is_not_in_the_expected_type() -> None:
    with pytest.raises(pa.ArrowInvalid):
        parse(b'{"n": "3"}\n', {"n": pa.int64()})
    with pytest.raises(pa.ArrowInvalid):
        parse(b'{"s": "\xff"}\n', {})
