from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.tiny import read_rows, write_rows
from tts_kernel.data.features import ShardWriter
from tts_kernel.data.manifest import ManifestError, read_manifest
from tts_kernel.data.ordering import MEL_MANIFEST, available_prefix, mel_first, order_mel_first

SOURCE = "gpt_pairs_train.jsonl"


class Mels:
    """A data folder whose source manifest has no mel fields and whose mels come one by one."""

    def __init__(self, data: Path) -> None:
        self.data = data
        self.hidden = data / "hidden"
        (data / "mel").rename(self.hidden)
        (data / "mel").mkdir()
        (data / MEL_MANIFEST).unlink()
        rows = read_rows(data / SOURCE)
        self.lengths = {row["target_id"]: row["target_mel_len"] for row in rows}
        for row in rows:
            del row["target_mel_path"], row["target_mel_len"]
        write_rows(data / SOURCE, rows)
        self.clips = sorted(self.lengths)

    def come(self, *clips: str) -> None:
        for clip in clips:
            (self.hidden / f"{clip}.npy").rename(self.data / "mel" / f"{clip}.npy")

    def ordered(self) -> list[str]:
        return [row["id"] for row in read_rows(self.data / MEL_MANIFEST)]


@pytest.fixture
def mels(tiny_corpus: Path) -> Mels:
    return Mels(tiny_corpus)


@pytest.mark.parametrize("seed", range(5))
def test_rows_once_available_never_move_whatever_comes_when(mels: Mels, seed: int) -> None:
    random = np.random.default_rng(seed)
    source = [row["id"] for row in read_rows(mels.data / SOURCE)]
    rounds = np.array_split(random.permutation(mels.clips), np.sort(random.integers(0, len(mels.clips) + 1, 4)))
    head: list[str] = []
    for new in rounds:
        mels.come(*new)
        report = order_mel_first(mels.data)
        ids = mels.ordered()
        available = available_prefix(read_manifest(mels.data / MEL_MANIFEST))
        assert sorted(ids) == sorted(source), "a row was lost, doubled or made up"
        assert ids[: len(head)] == head, "a row that was available has moved"
        assert (report.rows, report.stayed, report.added) == (len(source), len(head), available - len(head))
        assert report.waiting == len(source) - available
        assert {id_.split("__")[0] for id_ in ids[:available]} == {p.stem for p in (mels.data / "mel").glob("*.npy")}
        head = ids[:available]
    assert sorted(head) == sorted(source)


@pytest.mark.parametrize("seed", range(20))
def test_an_order_is_a_permutation_with_the_old_head_and_the_available_first(seed: int) -> None:
    random = np.random.default_rng(seed)
    rows = int(random.integers(1, 40))
    filled, prefix = random.random(rows) < random.random(), int(random.integers(0, rows + 1))
    filled[:prefix] = True
    order = mel_first(filled, prefix)
    assert sorted(order) == list(range(rows))
    assert order[:prefix].tolist() == list(range(prefix))
    available, waiting = order[: filled.sum()], order[filled.sum() :]
    assert filled[available].all()
    assert (np.diff(available) > 0).all(), "those that came have changed their order"
    assert (np.diff(waiting) > 0).all(), "those that wait have changed their order"


def test_new_rows_go_behind_the_old_ones_even_if_the_source_has_them_first(mels: Mels) -> None:
    rows = read_rows(mels.data / SOURCE)
    first, last = rows[0]["target_id"], rows[-1]["target_id"]
    assert first != last
    mels.come(last)
    order_mel_first(mels.data)
    old = mels.ordered()[:2]
    mels.come(first)
    order_mel_first(mels.data)
    assert mels.ordered()[:2] == old
    assert {id_.split("__")[0] for id_ in mels.ordered()[2:4]} == {first}


def test_ordering_again_without_new_mels_changes_nothing(mels: Mels) -> None:
    mels.come(*mels.clips[:5])
    order_mel_first(mels.data)
    before = (mels.data / MEL_MANIFEST).read_bytes()
    report = order_mel_first(mels.data)
    assert (report.stayed, report.added) == (10, 0)
    assert (mels.data / MEL_MANIFEST).read_bytes() == before


def test_lengths_come_from_the_files_and_other_fields_stay(mels: Mels) -> None:
    mels.come(*mels.clips[:5])
    order_mel_first(mels.data)
    source = {row["id"]: row for row in read_rows(mels.data / SOURCE)}
    for number, row in enumerate(read_rows(mels.data / MEL_MANIFEST)):
        path, length = row.pop("target_mel_path", None), row.pop("target_mel_len", None)
        there = number < 10
        assert path == (f"mel/{row['target_id']}.npy" if there else None)
        assert length == (mels.lengths[row["target_id"]] if there else None)
        assert row == source[row["id"]]


def test_without_any_mel_everything_waits(mels: Mels) -> None:
    report = order_mel_first(mels.data)
    assert (report.added, report.waiting) == (0, 24)
    assert available_prefix(read_manifest(mels.data / MEL_MANIFEST)) == 0


def test_a_mel_that_has_vanished_is_refused_and_named(mels: Mels) -> None:
    mels.come(*mels.clips[:5])
    order_mel_first(mels.data)
    before = (mels.data / MEL_MANIFEST).read_bytes()
    (mels.data / "mel" / f"{mels.clips[2]}.npy").unlink()
    with pytest.raises(ManifestError) as caught:
        order_mel_first(mels.data)
    lines = [n for n, row in enumerate(mels.ordered(), start=1) if row.startswith(f"{mels.clips[2]}__")]
    assert caught.value.problems == [
        f"{mels.data / MEL_MANIFEST}:{line}: mel of {mels.clips[2]} has vanished; extract it" for line in lines
    ]
    assert (mels.data / MEL_MANIFEST).read_bytes() == before


@pytest.mark.parametrize("change", ["removed", "added", "renamed"])
def test_a_source_with_other_rows_is_refused(mels: Mels, change: str) -> None:
    mels.come(*mels.clips[:5])
    order_mel_first(mels.data)
    before = (mels.data / MEL_MANIFEST).read_bytes()
    rows = read_rows(mels.data / SOURCE)
    changed = {
        "removed": rows[1:],
        "added": [*rows, rows[0] | {"id": "new"}],
        "renamed": [rows[0] | {"id": "new"}, *rows[1:]],
    }[change]
    write_rows(mels.data / SOURCE, changed)
    with pytest.raises(ManifestError, match=f"{MEL_MANIFEST}: 24 rows that are not the {len(changed)} of {SOURCE}"):
        order_mel_first(mels.data)
    assert (mels.data / MEL_MANIFEST).read_bytes() == before


def test_a_source_in_another_order_is_the_same_source(mels: Mels) -> None:
    mels.come(*mels.clips[:5])
    order_mel_first(mels.data)
    before = mels.ordered()
    write_rows(mels.data / SOURCE, read_rows(mels.data / SOURCE)[::-1])
    order_mel_first(mels.data)
    assert mels.ordered() == before


def test_a_mel_behind_a_row_without_one_is_refused_and_named(mels: Mels) -> None:
    mels.come(*mels.clips[:5])
    order_mel_first(mels.data)
    rows = read_rows(mels.data / MEL_MANIFEST)
    write_rows(mels.data / MEL_MANIFEST, [*rows[:8], *rows[12:15], rows[8], *rows[9:12], *rows[15:]])
    for check in (
        lambda: available_prefix(read_manifest(mels.data / MEL_MANIFEST)),
        lambda: order_mel_first(mels.data),
    ):
        with pytest.raises(
            ManifestError, match=f"{MEL_MANIFEST}:12: has a mel although row 9 has none; order it first"
        ):
            check()


@pytest.mark.parametrize(
    "content", [b"", b"not an array", b"\x93NUMPY\x01\x00v\x00{'descr'"], ids=["empty", "text", "cut in its header"]
)
def test_a_mel_that_cannot_be_read_is_refused_and_named(mels: Mels, content: bytes) -> None:
    (mels.data / "mel" / f"{mels.clips[0]}.npy").write_bytes(content)
    with pytest.raises(ManifestError, match=rf"{mels.clips[0]}\.npy: not a readable .npy .* extract it again"):
        order_mel_first(mels.data)


def test_a_truncated_mel_is_refused_and_named(mels: Mels) -> None:
    mels.come(mels.clips[0])
    path = mels.data / "mel" / f"{mels.clips[0]}.npy"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(ManifestError, match=rf"{mels.clips[0]}\.npy: not a readable .npy .* extract it again"):
        order_mel_first(mels.data)


def test_a_clip_name_that_leaves_the_mel_folder_finds_no_mel(mels: Mels) -> None:
    rows = read_rows(mels.data / SOURCE)
    write_rows(mels.data / SOURCE, [rows[0] | {"target_id": "../codes/sp0_0"}, *rows[1:]])
    assert order_mel_first(mels.data).waiting == 24
    assert "target_mel_path" not in read_rows(mels.data / MEL_MANIFEST)[0]


def test_a_field_edited_in_the_source_is_taken_over_in_the_order_that_was_given(mels: Mels) -> None:
    mels.come(*mels.clips[:5])
    order_mel_first(mels.data)
    before = mels.ordered()
    rows = read_rows(mels.data / SOURCE)
    write_rows(mels.data / SOURCE, [row | {"language": "en"} for row in rows[::-1]])
    order_mel_first(mels.data)
    assert mels.ordered() == before
    assert {row["language"] for row in read_rows(mels.data / MEL_MANIFEST)} == {"en"}


def test_a_mel_that_was_made_longer_gets_its_new_length(mels: Mels) -> None:
    mels.come(*mels.clips[:5])
    order_mel_first(mels.data)
    np.save(mels.data / "mel" / f"{mels.clips[1]}.npy", np.zeros((77, 80), np.float32))
    order_mel_first(mels.data)
    found = {row["target_id"]: row.get("target_mel_len") for row in read_rows(mels.data / MEL_MANIFEST)}
    assert found[mels.clips[1]] == 77


def test_mels_of_another_length_than_was_written_are_counted(mels: Mels) -> None:
    mels.come(*mels.clips[:5])
    assert order_mel_first(mels.data).changed == 0
    assert order_mel_first(mels.data).changed == 0
    for clip in mels.clips[1:3]:  # two pairs each
        np.save(mels.data / "mel" / f"{clip}.npy", np.zeros((77, 80), np.float32))
    report = order_mel_first(mels.data)
    assert report.changed == 4
    assert "4 mels have another length than was written" in str(report)
    assert order_mel_first(mels.data).changed == 0


def test_a_length_that_the_source_gives_wrong_is_counted_and_put_right(mels: Mels) -> None:
    mels.come(*mels.clips[:5])
    rows = read_rows(mels.data / SOURCE)
    wrong = {mels.clips[0]: {"target_mel_len": 5}, mels.clips[9]: {"target_mel_len": 5}}  # the other has no mel yet
    write_rows(mels.data / SOURCE, [row | wrong.get(row["target_id"], {}) for row in rows])
    assert order_mel_first(mels.data).changed == 2
    found = {row["target_id"]: row.get("target_mel_len") for row in read_rows(mels.data / MEL_MANIFEST)}
    assert (found[mels.clips[0]], found[mels.clips[9]]) == (mels.lengths[mels.clips[0]], None)


def test_packed_mels_count_as_mels_in_files_do(mels: Mels) -> None:
    for number, clip in enumerate(mels.clips[:5]):
        with ShardWriter(mels.data / "features", f"mel-{number:06d}") as shard:
            shard.add(clip, "mel", np.load(mels.hidden / f"{clip}.npy"))
    mels.come(*mels.clips[5:8])
    assert order_mel_first(mels.data).added == 16
    found = {row["target_id"]: row.get("target_mel_len") for row in read_rows(mels.data / MEL_MANIFEST)}
    assert {clip: length for clip, length in found.items() if length} == {c: mels.lengths[c] for c in mels.clips[:8]}


def test_ordering_again_reads_no_manifest_text(mels: Mels, monkeypatch: pytest.MonkeyPatch) -> None:
    mels.come(*mels.clips[:5])
    order_mel_first(mels.data)
    monkeypatch.setattr(
        "tts_kernel.data.manifest.manifest.import_lines", lambda *a: pytest.fail("a manifest was parsed")
    )
    monkeypatch.setattr("tts_kernel.data.ordering.write_manifest", lambda *a: pytest.fail("a manifest was written"))
    assert order_mel_first(mels.data).stayed == 10
