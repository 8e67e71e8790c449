from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.models.cosyvoice2.tiny_models import flow, llm, vocoder
from tests.synthesis.tiny_folder import SIZES, ending_llm, lora_voice, make_folder, save, seeded, trained_on
from tts_kernel.synthesis.cosyvoice2 import Synthesizer
from tts_kernel.synthesis.export import export_voice
from tts_kernel.synthesis.model_folder import write_sizes
from tts_kernel.synthesis.speaker_config import SpeakerError
from tts_kernel.synthesis.speakers import Speakers
from tts_kernel.text.tokenizer import train_tokenizer


class Trained:
    """A base folder and a voice trained on it."""

    def __init__(self, folder: Path) -> None:
        self.base = make_folder(folder / "base")
        self.llm = save(trained_on(ending_llm()), folder / "epoch_29_whole.pt", epoch=29, step=900)
        self.flow = save(trained_on(flow()), folder / "epoch_83_whole.pt", epoch=83, step=900)
        self.embedding = lora_voice().embedding

    def export(self, folder: Path, name: str = "kim", **changes: Any) -> Path:
        given = {"llm": self.llm, "flow": self.flow, "embedding": self.embedding, "base": self.base}
        return export_voice(folder, name, **{**given, **changes})


@pytest.fixture
def trained(tmp_path: Path) -> Trained:
    return Trained(tmp_path)


def test_an_exported_folder_speaks_alone_wherever_it_is_moved(trained: Trained, tmp_path: Path) -> None:
    expected = Synthesizer.open(trained.base, llm=trained.llm, flow=trained.flow)
    wav = expected.speak("a dog.", lora_voice(), seeded()).wav
    path = trained.export(tmp_path / "export", description="calm")
    for file in (trained.llm, trained.flow):
        file.unlink()
    shutil.rmtree(trained.base)
    (tmp_path / "moved").mkdir()
    moved = shutil.move(path.parent, tmp_path / "moved" / "here")
    made = Speakers.from_config(Path(moved) / path.name).synthesize("a dog.", generator=seeded())
    np.testing.assert_allclose(made, wav, atol=1e-6)


def test_paths_are_relative_and_checkpoints_are_copied_whole(trained: Trained, tmp_path: Path) -> None:
    path = trained.export(tmp_path / "export", description="calm")
    entry = json.loads(path.read_text(encoding="utf-8"))["speakers"]["kim"]
    assert entry == {
        "type": "lora",
        "llm_lora_model_path": "voices/kim/llm.pt",
        "flow_lora_model_path": "voices/kim/flow.pt",
        "spk_embedding_path": "spk2embedding.pt",
        "description": "calm",
        "active": True,
    }
    assert (path.parent / "voices/kim/llm.pt").read_bytes() == trained.llm.read_bytes()


def test_a_second_voice_joins_the_first(trained: Trained, tmp_path: Path) -> None:
    trained.export(tmp_path / "export")
    path = trained.export(tmp_path / "export", "윤아", embedding=lora_voice(4).embedding)
    speakers = Speakers.from_config(path)
    assert speakers.names == ["kim", "윤아"]
    assert speakers.config.default_speaker == "kim"
    first, second = (speakers.synthesize("a dog.", name, seeded()) for name in speakers.names)
    assert np.abs(first - second).max() > 1e-4


def test_a_voice_exported_again_replaces_itself_alone(trained: Trained, tmp_path: Path) -> None:
    trained.export(tmp_path / "export")
    trained.export(tmp_path / "export", "lee")
    later = save(trained_on(ending_llm(), seed=5), tmp_path / "epoch_30_whole.pt")
    path = trained.export(tmp_path / "export", llm=later, default=True)
    assert Speakers.from_config(path).names == ["kim", "lee"]
    assert (path.parent / "voices/kim/llm.pt").read_bytes() == later.read_bytes()
    assert (path.parent / "voices/lee/llm.pt").read_bytes() == trained.llm.read_bytes()


@pytest.mark.parametrize("name", ["", "..", "../kim", "a/b", "a\\b", ".kim", "kim\n", "a:b"])
def test_a_name_never_leaves_the_folder(trained: Trained, tmp_path: Path, name: str) -> None:
    with pytest.raises(SpeakerError, match="expected letters, digits"):
        trained.export(tmp_path / "export", name)
    assert not (tmp_path / "export").exists()


def test_all_problems_are_said_before_anything_is_written(trained: Trained, tmp_path: Path) -> None:
    (trained.base / "bpe.model").unlink()
    (trained.base / "hift.pt").unlink()
    other = save(llm(speech_token_size=20), tmp_path / "other.pt")
    with pytest.raises(SpeakerError) as raised:
        trained.export(tmp_path / "export", "a/b", llm=other, flow=tmp_path / "none.pt", embedding=torch.ones(5))
    message = str(raised.value)
    for part in ("name 'a/b'", "other.pt: does not fit", "none.pt: does not exist", "embedding has shape [5]"):
        assert part in message
    assert "no tokenizer" in message
    assert "hift.pt: does not exist" in message
    assert not (tmp_path / "export").exists()


def test_voices_of_other_sizes_go_elsewhere(trained: Trained, tmp_path: Path) -> None:
    trained.export(tmp_path / "export")
    write_sizes(trained.base, replace(SIZES, hift=None))
    with pytest.raises(SpeakerError, match="models with other sizes"):
        trained.export(tmp_path / "export", "lee")
    path = trained.export(tmp_path / "elsewhere", "lee")
    assert not (path.parent / "hift.pt").exists()


def test_voices_of_another_base_are_not_mixed(trained: Trained, tmp_path: Path) -> None:
    export = trained.export(tmp_path / "export").parent
    train_tokenizer(["another text of another tokenizer"], trained.base / "bpe.model", vocab_size=30)
    save(trained_on(vocoder()), trained.base / "hift.pt")
    before = {file: file.read_bytes() for file in export.rglob("*") if file.is_file()}
    with pytest.raises(SpeakerError, match=r"bpe.model belongs to .* another base.*\n.*hift.pt belongs to"):
        trained.export(export, "lee")
    assert {file: file.read_bytes() for file in export.rglob("*") if file.is_file()} == before
    (trained.base / "bpe.model").rename(trained.base / "tokenizer.json")
    with pytest.raises(SpeakerError, match=r"bpe.model belongs to voices of another base"):
        trained.export(export, "lee")
    assert trained.export(tmp_path / "elsewhere", "lee").is_file()


def test_a_folder_whose_files_cannot_be_read_is_left_as_it_is(trained: Trained, tmp_path: Path) -> None:
    path = trained.export(tmp_path / "export")
    path.write_text("{} // empty", encoding="utf-8")
    torch.save({"kim": "x"}, path.parent / "spk2embedding.pt")
    before = {file: file.read_bytes() for file in path.parent.rglob("*") if file.is_file()}
    with pytest.raises(SpeakerError, match=r"a comment .*(\n.*)*kim: holds a str"):
        trained.export(tmp_path / "export", "lee")
    assert {file: file.read_bytes() for file in path.parent.rglob("*") if file.is_file()} == before


def test_an_interrupted_export_names_nothing_that_is_not_there(
    trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = trained.export(tmp_path / "export")

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("tts_kernel.synthesis.embeddings.save_checkpoint", full)
    with pytest.raises(OSError, match="No space"):
        trained.export(tmp_path / "export", "lee")
    assert Speakers.from_config(path).names == ["kim"]


@pytest.mark.parametrize("place", ["CosyVoice-BlankEN", "."])
def test_the_tokenizer_of_a_download_comes_without_what_lies_beside_it(
    trained: Trained, tmp_path: Path, place: str
) -> None:
    folder = trained.base / place
    folder.mkdir(exist_ok=True)
    (trained.base / "bpe.model").unlink()
    (trained.base / "speaker_config.json").touch()
    tokenizer = {"tokenizer.json", "vocab.json", "merges.txt", "config.json"}
    for name in (*tokenizer, "model.safetensors", "campplus.onnx"):
        (folder / name).touch()
    path = trained.export(tmp_path / "export")
    assert json.loads(path.read_text(encoding="utf-8"))["default_speaker"] == "kim"
    copied = {file.name for file in (path.parent / place).iterdir() if file.is_file()}
    assert copied - {".export", "config.yaml", "hift.pt", "spk2embedding.pt", "speaker_config.json"} == tokenizer
