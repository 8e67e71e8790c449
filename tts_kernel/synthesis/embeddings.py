"""spk2embedding.pt: speaker embeddings by name, of several speakers in one file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tts_kernel.models.weights import read_checkpoint
from tts_kernel.synthesis.speaker_config import SpeakerError
from tts_kernel.training.checkpoints import save as save_checkpoint

NAME = "spk2embedding.pt"


def read_embeddings(path: Path) -> dict[str, Tensor]:
    """{name: (dim,)}; the file may hold tensors (1, dim) or (dim,), or lists as upstream's tools write them.
    Raises CheckpointError for a file that cannot be read, SpeakerError listing every entry that is no embedding."""
    found, problems = {}, []
    for name, value in read_checkpoint(path).items():
        try:
            embedding = torch.as_tensor(value, dtype=torch.float32)
        except (TypeError, ValueError, RuntimeError):
            problems.append(f"{name}: holds a {type(value).__name__}, expected a tensor (1, dim) or (dim,)")
            continue
        if embedding.numel() == 0 or embedding.shape not in ((embedding.numel(),), (1, embedding.numel())):
            problems.append(f"{name}: has shape {list(embedding.shape)}, expected (1, dim) or (dim,)")
        elif not embedding.isfinite().all() or not embedding.any():
            problems.append(f"{name}: holds NaN or infinite values, or zeros alone; extract it again")
        found[str(name)] = embedding.reshape(-1).clone()
    if problems:
        raise SpeakerError("\n  ".join([f"{path}: {len(problems)} entries are no embeddings:", *problems]))
    return found


def add_embedding(path: Path, name: str, embedding: Tensor) -> None:
    """Write (dim,) as (1, dim) into the file, new or there already, whole or not at all; the other entries stay."""
    entries: dict[str, Any] = read_checkpoint(path, mmap=False) if path.exists() else {}
    save_checkpoint(path, {**entries, name: embedding.detach().cpu().float().reshape(1, -1).clone()})
