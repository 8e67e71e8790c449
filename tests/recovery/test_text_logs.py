from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest

from tts_kernel.recovery.history import read_history
from tts_kernel.recovery.text_logs import find_text_logs, line_times, words

GUIDE = [f"[Train] epoch=1 step={step} text_loss={5 - step / 1000:.4f} mel_loss=6.0" for step in range(100, 1100, 100)]


def write(path: Path, lines: list[str], end: str = "\n") -> Path:
    path.write_text("\n".join(lines) + end, encoding="utf-8")
    return path


def test_logs_are_told_by_what_is_in_them(tmp_path: Path) -> None:
    (tmp_path / "logs").mkdir()
    write(tmp_path / "pip.log", ["Collecting torch"])
    inside = write(tmp_path / "logs" / "out.txt", GUIDE)
    assert find_text_logs(tmp_path) == [inside]
    own = write(tmp_path / "console", ["loading", *GUIDE])
    assert find_text_logs(tmp_path) == [own]
    assert find_text_logs(tmp_path / "pip.log") == []


def test_a_compressed_log_is_the_same_log(tmp_path: Path) -> None:
    plain = write(tmp_path / "train.log", GUIDE)
    packed = tmp_path / "train.log.gz"
    packed.write_bytes(gzip.compress(plain.read_bytes()))
    for metric, series in read_history(plain).metrics.items():
        np.testing.assert_array_equal(read_history(packed)[metric].values, series.values)
    assert len(read_history(packed)["train/text_loss"]) == 10


def test_a_cut_compressed_log_is_read_as_far_as_it_goes(tmp_path: Path) -> None:
    lines = [f"[Train] epoch=1 step={step} text_loss={np.sin(step):.9f}" for step in range(2000)]
    packed = gzip.compress(("\n".join(lines) + "\n").encode())
    (tmp_path / "train.log.gz").write_bytes(packed[: len(packed) // 2])
    history = read_history(tmp_path)
    assert 100 < len(history["train/text_loss"]) < 2000
    np.testing.assert_allclose(history["train/text_loss"].values[:5], np.sin(range(5)), atol=1e-8)


def test_a_torn_last_line_is_a_problem_and_no_point(tmp_path: Path) -> None:
    history = read_history(write(tmp_path / "train.log", [*GUIDE, "[Train] epoch=1 step=1100 text_loss=3.9"], end=""))
    assert history.step == 1000
    assert "11: torn line" in history.problems[0]


def test_several_logs_are_sessions_of_one_run(tmp_path: Path) -> None:
    write(tmp_path / "train-1.log", GUIDE)
    write(tmp_path / "train-2.log", [line.replace("mel_loss=6.0", "mel_loss=4.0") for line in GUIDE[5:8]])
    history = read_history(tmp_path)
    assert history["train/mel_loss"].steps.tolist() == list(range(100, 900, 100))
    assert history["train/mel_loss"].values.tolist() == [6.0] * 5 + [4.0] * 3
    assert history.resumes == (599,)


def test_words_are_columns_only_where_all_lines_have_as_many(tmp_path: Path) -> None:
    columns = words([b'a "b 1', b"c d' 2"])
    assert columns is not None
    assert [column.to_pylist() for column in columns] == [["a", "c"], ['"b', "d'"], ["1", "2"]]
    assert words([b"a b", b"a b c"]) is None


@pytest.mark.parametrize(
    ("line", "seconds"),
    [
        (b"2025-01-31 09:26:53,589 DEBUG x", 1738315613.589),
        (b"2024-02-29T00:00:01 x", 1709164801.0),
        (b"[Train] epoch=1", np.nan),
        (b"", np.nan),
    ],
)
def test_times_of_lines_are_seconds(line: bytes, seconds: float) -> None:
    np.testing.assert_allclose(line_times([b"1970-01-02 00:00:00,000", line]), [86400, seconds])
