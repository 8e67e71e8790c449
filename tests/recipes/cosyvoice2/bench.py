"""Whole runs of tiny models on shards of sines."""

from __future__ import annotations

from dataclasses import replace
from itertools import chain, repeat
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.data.pipeline.written import row, write_shards
from tests.models.cosyvoice2.tiny_models import FLOW, LLM
from tts_kernel.models.cosyvoice2.weights import load_weights
from tts_kernel.recipes.cosyvoice2 import Prepared, Settings, prepare, train
from tts_kernel.recipes.cosyvoice2.model import Sizes, fresh, write_sizes
from tts_kernel.recipes.cosyvoice2.objective import TokenObjective
from tts_kernel.runs import Run
from tts_kernel.text.tokenizer import train_tokenizer
from tts_kernel.training.outcome import Outcome

BOTH = ("llm", "flow")
_CLOCK = ("steps_per_second", "tokens_per_second", "memory_gb", "eta_seconds")
CODES = 200  # of written.row
SIZES = Sizes(
    replace(LLM, speech_token_size=CODES),
    replace(FLOW, vocab_size=CODES, output_size=80, spk_embed_dim=192),
)


class Bench:
    """Nine utterances to train on and three held out, a base folder; `train` makes or resumes runs."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        lengths = [0.5 + 0.1 * (number * 7 % 9) for number in range(9)]
        write_shards(folder / "train", [row(f"u{number}", length) for number, length in enumerate(lengths)])
        write_shards(folder / "cv", [row(f"v{number}", 0.6 + 0.2 * number) for number in range(3)])
        self.base = make_base(folder / "base")
        train_tokenizer(["x xx xxx xxxx xxxxx", "xx xxxx x"], self.base / "bpe.model", 12)

    def settings(self, **changes: Any) -> Settings:
        """Batches of 100 frames, two to a step."""
        small: dict[str, Any] = {
            "data": str(self.folder / "train"),
            "cv_data": str(self.folder / "cv"),
            "tokenizer": str(self.base / "bpe.model"),
            "base_model": str(self.base),
            "rank": 2,
            "alpha": 4,
            "max_frames_in_batch": 100,
            "grad_accumulation": 2,
            "llm_epochs": 2,
            "flow_epochs": 2,
            "learning_rate": 1e-2,
            "warmup_steps": 3,
            "validate_every": 4,
            "save_every": 100,
            "keep_checkpoints": 0,
            "aim": False,
            "device": "cpu",
        }
        return Settings(**{**small, **changes})

    def run(self, name: str = "run") -> Run:
        run = Run(self.folder / "runs" / name)
        run.folder.mkdir(parents=True, exist_ok=True)
        return run

    def prepare(self, name: str = "run", **changes: Any) -> Prepared:
        return prepare(self.settings(**changes), self.run(name))

    def train(self, name: str = "run", **changes: Any) -> Outcome:
        return train(self.prepare(name, **changes), self.run(name))

    def saved(self, model: str, name: str = "run", file: str = "latest_full.pth") -> dict[str, Any]:
        return torch.load(self.run(name).part(model).checkpoints / file, weights_only=True)


def make_base(folder: Path, seed: int = 11) -> Path:
    """llm.pt and flow.pt with fresh weights, and their config.yaml."""
    folder.mkdir(parents=True)
    write_sizes(SIZES, folder)
    torch.manual_seed(seed)
    torch.save(fresh("llm", SIZES).state_dict(), folder / "llm.pt")
    torch.save(fresh("flow", SIZES).state_dict(), folder / "flow.pt")
    return folder


def load(bench: Bench, model: Any) -> Any:
    """The base's."""
    net = fresh(model, SIZES)
    load_weights(net, bench.base / f"{model}.pt")
    return net


def logged(bench: Bench, model: str, name: str = "run") -> dict[str, dict[int, float]]:
    """metric -> step -> value, of what another run of the same settings would log too."""
    part = bench.run(name).part(model)
    metrics = {key for record in part.records() for key in record} - {"step", "time"}
    return {key: dict(zip(*part.series(key), strict=True)) for key in metrics if not key.endswith(_CLOCK)}


def judge(monkeypatch: pytest.MonkeyPatch, losses: list[float]) -> None:
    """Let the CV losses of the LLM be these, and the last one from then on."""
    left = chain(losses, repeat(losses[-1]))
    own = TokenObjective.summary

    def summary(self: TokenObjective, split: Any, means: Any) -> dict[str, float]:
        return own(self, split, means if split == "train" else {**means, "loss": next(left)})

    monkeypatch.setattr(TokenObjective, "summary", summary)
