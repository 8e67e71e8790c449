from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tts_kernel.data.demo.sentences import SENTENCES
from tts_kernel.text.bge_m3 import BGEM3, EncoderError
from tts_kernel.text.bge_m3_demo import make_demo_encoder

TEXTS = [text for texts in SENTENCES.values() for text in texts]


def made(folder: Path, seed: int = 1) -> Path:
    return make_demo_encoder(folder, TEXTS, seed=seed, width=16, heads=2)


def test_the_same_seed_gives_the_same_files_and_leaves_torch_s_own_alone(tmp_path: Path) -> None:
    torch.manual_seed(7)
    drawn = torch.rand(1)
    torch.manual_seed(7)
    first, second, other = made(tmp_path / "a"), made(tmp_path / "b"), made(tmp_path / "c", seed=2)
    assert torch.equal(torch.rand(1), drawn)
    assert sorted(path.name for path in first.iterdir()) == ["config.json", "model.safetensors", "tokenizer.json"]
    for path in first.iterdir():
        assert path.read_bytes() == (second / path.name).read_bytes()
    assert (first / "model.safetensors").read_bytes() != (other / "model.safetensors").read_bytes()


def test_an_encoder_that_is_there_is_kept_and_another_folder_is_not_touched(tmp_path: Path) -> None:
    folder = made(tmp_path / "a")
    before = (folder / "model.safetensors").stat().st_mtime_ns
    assert made(folder, seed=3) == folder
    assert (folder / "model.safetensors").stat().st_mtime_ns == before
    with pytest.raises(EncoderError, match="is no encoder"):
        made(tmp_path)
    with pytest.raises(EncoderError, match="no text to train"):
        make_demo_encoder(tmp_path / "b", [" "], width=16, heads=2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a"]


def test_it_has_the_width_of_the_public_model_and_knows_its_sentences(tmp_path: Path) -> None:
    folder = make_demo_encoder(tmp_path / "a", TEXTS, layers=2)
    encoder = BGEM3(folder)
    assert encoder.width == 1024
    unknown = sum(3 in encoder.tokens(text).ids for text in TEXTS)
    assert unknown == 0
    assert encoder.tokens("").ids == (0, 2)
