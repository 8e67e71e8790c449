from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tts_kernel.models.weights import CheckpointError
from tts_kernel.synthesis.embeddings import add_embedding, read_embeddings
from tts_kernel.synthesis.speaker_config import SpeakerError

KIM = torch.linspace(-1, 1, 192)


def test_tensors_of_both_shapes_and_lists_are_read(tmp_path: Path) -> None:
    path = tmp_path / "spk2embedding.pt"
    torch.save({"flat": KIM, "row": KIM[None], "upstream": KIM.tolist()}, path)
    for embedding in read_embeddings(path).values():
        torch.testing.assert_close(embedding, KIM)


def test_adding_one_keeps_the_others(tmp_path: Path) -> None:
    path = tmp_path / "spk2embedding.pt"
    torch.save({"lee": [0.5] * 192}, path)
    add_embedding(path, "kim", KIM.requires_grad_())
    add_embedding(path, "kim", 2 * KIM)
    stored = torch.load(path, weights_only=True)
    assert stored["lee"] == [0.5] * 192
    assert stored["kim"].shape == (1, 192)
    assert not stored["kim"].requires_grad
    torch.testing.assert_close(read_embeddings(path)["kim"], 2 * KIM.detach())
    assert list(tmp_path.iterdir()) == [path]


def test_all_entries_that_are_no_embeddings_are_named(tmp_path: Path) -> None:
    path = tmp_path / "spk2embedding.pt"
    torch.save({"word": "x", "matrix": torch.ones(2, 192), "nan": KIM * torch.nan, "zero": KIM * 0, "ok": KIM}, path)
    with pytest.raises(SpeakerError) as raised:
        read_embeddings(path)
    message = str(raised.value)
    assert "4 entries" in message
    for part in ("word: holds a str", "matrix: has shape [2, 192]", "nan: holds NaN", "zero: holds NaN"):
        assert part in message


def test_a_file_with_code_is_not_loaded(tmp_path: Path) -> None:
    path = tmp_path / "spk2embedding.pt"
    torch.save({"kim": Path("x")}, path)
    with pytest.raises(CheckpointError, match="could run code"):
        read_embeddings(path)
