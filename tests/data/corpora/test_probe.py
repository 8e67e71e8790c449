from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

from tests.data.corpora.clips import read, reasons, write_wav
from tts_kernel.data.corpora import probe as module
from tts_kernel.data.corpora.probe import probe


def bad_files(folder: Path) -> dict[str, Path]:
    """Files that are no audio, by what is wrong with them."""
    good = write_wav(folder / "good.wav").read_bytes()
    contents = {
        "zero bytes": b"",
        "text.wav": b"this is no audio\n" * 20,
        "page.mp3": b"<!DOCTYPE html><html><body>404</body></html>" * 5,
        "header.wav": good[:20],
        "raw.raw": good,
    }
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    write_wav(folder / "silent.wav", 0)
    return {name: folder / name for name in [*contents, "silent.wav", "gone.wav"]}


def test_what_is_no_audio_is_named_with_its_reason(tmp_path: Path) -> None:
    files = bad_files(tmp_path)
    heads = probe([tmp_path / "good.wav", *files.values()], workers=2)
    assert list(heads.problems) == list(range(1, len(files) + 1))
    assert heads.seconds[0] == 0.1
    assert np.isnan(heads.seconds[1:]).all()
    assert heads.rates.tolist() == [16000] + [0] * len(files)
    assert heads.problems[1] == "zero bytes"
    assert heads.problems[len(files) - 1] == "no samples"
    assert all(str(tmp_path) not in why for why in heads.problems.values())


def test_content_counts_not_the_suffix(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.mp3", np.zeros(24000), 24000, format="MP3")
    (tmp_path / "a.wav").write_bytes((tmp_path / "a.mp3").read_bytes())
    heads = probe([tmp_path / "a.wav"])
    assert heads.problems == {}
    assert heads.rates.tolist() == [24000]
    assert heads.seconds[0] == pytest.approx(1.0, abs=0.1)


@pytest.mark.parametrize("subtype", ["PCM_16", "PCM_24", "FLOAT", "PCM_U8"])
def test_every_kind_of_wav_has_its_length(tmp_path: Path, subtype: str) -> None:
    assert probe([write_wav(tmp_path / "a.wav", 4410, 44100, subtype)]).seconds.tolist() == [0.1]


def test_stereo_counts_time_not_samples(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.flac", np.zeros((8000, 2)), 8000)
    assert probe([tmp_path / "a.flac"]).seconds.tolist() == [1.0]


def test_order_holds_over_many_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_PART", 3)
    files = [write_wav(tmp_path / f"{number}.wav", 100 + number, 1000) for number in range(20)]
    assert probe(files, workers=4).seconds.tolist() == [(100 + number) / 1000 for number in range(20)]


def test_an_import_that_probes_drops_what_is_unreadable(tmp_path: Path) -> None:
    files = bad_files(tmp_path)
    names = ["good.wav", *(path.name for path in files.values() if path.is_file())]
    lines = "".join(f"{name}|text|s|KR\n" for name in names)
    (tmp_path / "metadata.list").write_text(lines, encoding="utf-8")
    imported = read("melotts", tmp_path, probe=True)
    assert imported.utterances.strings("id").to_pylist() == ["good"]
    assert imported.utterances.strings("duration").to_pylist() == [0.1]
    assert reasons(imported) == {"unreadable audio": len(names) - 1}
    first = imported.account.drops["unreadable audio"].examples[0]
    assert first == f"{tmp_path / 'metadata.list'}:2: zero bytes: zero bytes"
    assert reasons(read("melotts", tmp_path)) == {}, "files are not opened unless asked for"
