from __future__ import annotations

from pathlib import Path

import pytest

from tests.data.pipeline.written import WORDS
from tests.data.voices import fake_onnx
from tests.data.voices.clips import make_clips
from tests.data.voices.test_stand_ins import FITTED
from tts_kernel.data.pipeline import read_lengths
from tts_kernel.data.voices.__main__ import main


def test_a_folder_becomes_shards_by_the_users_onnx_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    models = {"speech_tokenizer_v2.onnx": fake_onnx.tokenizer(), "campplus.onnx": fake_onnx.encoder()}
    fake_onnx.install(monkeypatch, models)
    tokenizer, campplus = fake_onnx.files(tmp_path)
    words = ["folder", str(make_clips(tmp_path / "clips")), str(tmp_path / "data")]
    assert main([*words, "--speech-tokenizer", str(tokenizer), "--campplus", str(campplus)]) == 0
    assert "6" in capsys.readouterr().out
    assert len(read_lengths(tmp_path / "data", WORDS)) == 6
    assert main([*words, "--speech-tokenizer", str(tokenizer), "--campplus", str(campplus)]) == 1
    assert "exists and is not an empty folder" in capsys.readouterr().err


def test_stand_ins_take_the_place_of_the_two(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    FITTED.save(tmp_path / "stand_ins.npz")
    words = ["folder", str(make_clips(tmp_path / "clips")), str(tmp_path / "data")]
    assert main([*words, "--stand-ins", str(tmp_path / "stand_ins.npz")]) == 0
    assert not read_lengths(tmp_path / "data", WORDS).trimmed.any()
    assert main(["folder", "clips", str(tmp_path / "other"), "--stand-ins", str(tmp_path / "gone.npz")]) == 1
    assert "gone.npz: not a file of stand-ins (no such file)" in capsys.readouterr().err


@pytest.mark.parametrize("given", ["", "--campplus c.onnx", "--campplus c --speech-tokenizer s --stand-ins n"])
def test_the_extractors_must_be_named(tmp_path: Path, given: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["folder", "clips", str(tmp_path / "data"), *given.split()])
    assert "name --speech-tokenizer and --campplus, or --stand-ins" in capsys.readouterr().err
