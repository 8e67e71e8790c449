"""A model of the published architecture small enough to train in a test, and whole runs of it on the tiny corpus."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tests.parity import fill
from tts_kernel.models.indextts2.config import ConditionerConfig, GPTConfig
from tts_kernel.models.indextts2.gpt import UnifiedVoice
from tts_kernel.recipes.indextts2 import Prepared, Settings, prepare, train
from tts_kernel.runs import Run, write_yaml
from tts_kernel.training.outcome import Outcome

_CONDITIONER = ConditionerConfig(output_size=16, linear_units=32, attention_heads=2, num_blocks=1, perceiver_mult=1)
CONFIG = GPTConfig(
    layers=1,
    model_dim=32,
    heads=2,
    max_text_tokens=20,
    max_mel_tokens=30,
    number_text_tokens=50,
    number_mel_codes=32,
    start_mel_token=30,
    stop_mel_token=31,
    condition_num_latent=4,
    condition_module=_CONDITIONER,
    emo_condition_module=_CONDITIONER,
    emotion_width=32,
    semantic_input_size=20,
)
LATENTS = (CONFIG.condition_num_latent, CONFIG.model_dim)  # for `make_tiny_corpus(latents=...)`


def voice(reference_padding: bool = False, **changes: Any) -> UnifiedVoice:
    """In eval mode, its weights by the rule of the parity cases: far from symmetric, so that every input matters."""
    model = UnifiedVoice(replace(CONFIG, **changes), reference_padding).eval()
    fill.fill(model)
    return model


@dataclass(frozen=True)
class Clips:
    """What `UnifiedVoice` reads, padded with zeros."""

    features: Tensor  # (batch, frames, bins)
    feature_lengths: Tensor
    text: Tensor
    text_lengths: Tensor
    codes: Tensor
    code_lengths: Tensor

    def alone(self, row: int) -> Clips:
        """One clip without the padding that its neighbours need."""
        pick = slice(row, row + 1)
        frames, tokens, codes = (
            int(lengths[row]) for lengths in (self.feature_lengths, self.text_lengths, self.code_lengths)
        )
        return Clips(
            self.features[pick, :frames],
            self.feature_lengths[pick],
            self.text[pick, :tokens],
            self.text_lengths[pick],
            self.codes[pick, :codes],
            self.code_lengths[pick],
        )


def random_clips(bins: int = 20) -> Clips:
    """Three clips; the longest text and the longest sound are different clips'."""
    random = torch.Generator().manual_seed(3)
    frames, tokens, codes = torch.tensor([11, 24, 16]), torch.tensor([9, 4, 6]), torch.tensor([5, 12, 8])

    def padded(values: Tensor, lengths: Tensor) -> Tensor:
        real = torch.arange(values.shape[1]) < lengths[:, None]
        return values.masked_fill(~real.reshape(*real.shape, *[1] * (values.ndim - 2)), 0)

    return Clips(
        padded(torch.randn(3, 24, bins, generator=random), frames),
        frames,
        padded(torch.randint(2, 50, (3, 9), generator=random), tokens),
        tokens,
        padded(torch.randint(0, 30, (3, 12), generator=random), codes),
        codes,
    )


def make_base(folder: Path, config: GPTConfig | None = None) -> Path:
    """A checkpoint with fresh weights and its config.yaml, as a public download would lie there."""
    config = config or CONFIG.reading("mel")
    folder.mkdir(parents=True)
    torch.manual_seed(11)
    torch.save({"model": UnifiedVoice(config).state_dict()}, folder / "gpt.pth")
    write_yaml(folder / "config.yaml", {"gpt": config.to_mapping()})
    return folder / "gpt.pth"


class Bench:
    """A tiny corpus with a base checkpoint beside it; `train` makes or resumes runs in the same folder."""

    def __init__(self, folder: Path, data: Path) -> None:
        self.folder, self.data = folder, data
        self.base = make_base(folder / "base")

    def settings(self, **changes: Any) -> Settings:
        """Stage 2, 24 pairs in micro-batches of 5: three updates an epoch, the last of one micro-batch."""
        small: dict[str, Any] = {
            "data": str(self.data),
            "base_checkpoint": str(self.base),
            "speaker_min_clips": 1,
            "batch_size": 5,
            "grad_accumulation": 2,
            "learning_rate": 1e-3,
            "warmup_steps": 0,
            "log_every": 1,
            "validate_every": 100,
            "save_every": 100,
            "keep_checkpoints": 0,
            "num_workers": 0,
            "aim": False,
            "device": "cpu",
        }
        return Settings(**{**small, **changes})

    def run(self, name: str = "run") -> Run:
        run = Run(self.folder / "runs" / name)
        run.checkpoints.mkdir(parents=True, exist_ok=True)
        return run

    def prepare(self, name: str = "run", **changes: Any) -> Prepared:
        return prepare(self.settings(**changes), self.run(name))

    def train(self, name: str = "run", **changes: Any) -> Outcome:
        return train(self.prepare(name, **changes), self.run(name))

    def saved(self, name: str = "run", file: str = "latest_full.pth") -> dict[str, Any]:
        return torch.load(self.run(name).checkpoints / file, weights_only=True)


BenchMaker = Callable[..., Bench]


def differing(before: dict[str, Tensor], after: dict[str, Tensor]) -> set[str]:
    """Names whose tensors are not bit-equal."""
    assert before.keys() == after.keys()
    return {name for name, value in before.items() if not torch.equal(value, after[name])}
