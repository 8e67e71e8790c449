"""Conditional flow matching: a velocity field that carries noise to a mel along straight lines.

Sources: Lipman et al. 2022 (arXiv 2210.02747) for the loss; Matcha-TTS (arXiv 2309.03199), section 2.1; CosyVoice
(arXiv 2407.05407), section 2.3, for guidance without a classifier and the cosine times. Settled by parity case
flow_small.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Draws:
    """The random numbers of one training step, one row per utterance."""

    time: Tensor  # (batch,) in [0, 1): uniform in training, other than at inference
    noise: Tensor  # (batch, n_mels, frames), normal
    chance: Tensor  # (batch,) in [0, 1); at or below the dropping rate, the utterance's conditions are dropped


@dataclass(frozen=True)
class Conditions:
    """What the velocity depends on beside mel and time."""

    mu: Tensor  # (batch, n_mels, frames) from the encoder
    speaker: Tensor  # (batch, n_mels)
    prompt: Tensor  # (batch, n_mels, frames) mel of the prompt, 0 elsewhere

    def times(self, kept: Tensor) -> Conditions:
        """kept (batch,): 1 keeps an utterance's conditions, 0 drops them."""
        return Conditions(
            self.mu * kept[:, None, None], self.speaker * kept[:, None], self.prompt * kept[:, None, None]
        )

    def with_none(self) -> Conditions:
        """A batch of twice the size: these conditions, then none."""
        double = (torch.cat([part, torch.zeros_like(part)]) for part in (self.mu, self.speaker, self.prompt))
        return Conditions(*double)


@dataclass(frozen=True)
class Estimate:
    """A velocity beside the one that would have been right."""

    velocity: Tensor  # (batch, n_mels, frames)
    target: Tensor
    real: Tensor  # (batch, 1, frames), 1 on real frames

    @property
    def squared_error(self) -> Tensor:
        """Sum over all bands of all real frames."""
        return ((self.velocity - self.target) * self.real).float().square().sum()

    @property
    def values(self) -> Tensor:
        """How many values that sum counts."""
        return self.real.sum() * self.velocity.shape[1]

    @property
    def loss(self) -> Tensor:
        return self.squared_error / self.values


def cosine_times(linear: Tensor) -> Tensor:
    """[0, 1] -> [0, 1]: small steps at first, where the mel is still noise."""
    return 1.0 - torch.cos(0.5 * math.pi * linear)


class ConditionalFlowMatching(nn.Module):
    """`estimator(x, real, mu, time, speaker, prompt, streaming)` is the velocity."""

    def __init__(
        self, estimator: nn.Module, *, sigma_min: float, training_cfg_rate: float, inference_cfg_rate: float
    ) -> None:
        super().__init__()
        self.estimator = estimator
        self.sigma_min = sigma_min  # deviation that is left at time 1
        self.training_cfg_rate, self.inference_cfg_rate = training_cfg_rate, inference_cfg_rate

    def forward(
        self, mel: Tensor, real: Tensor, conditions: Conditions, draws: Draws, streaming: bool = False
    ) -> Estimate:
        """mel (batch, n_mels, frames), real (batch, 1, frames) 1 on real frames -> the velocity at a random time."""
        time = draws.time
        left = (1.0 - (1.0 - self.sigma_min) * time)[:, None, None]  # of the noise
        noisy = left * draws.noise + time[:, None, None] * mel
        target = mel - (1.0 - self.sigma_min) * draws.noise
        given = conditions.times((draws.chance > self.training_cfg_rate).to(mel.dtype))
        velocity = self.estimator(noisy, real, given.mu, time, given.speaker, given.prompt, streaming)
        return Estimate(velocity, target, real)

    @torch.inference_mode()
    def solve(
        self, noise: Tensor, real: Tensor, conditions: Conditions, steps: int = 10, streaming: bool = False
    ) -> Tensor:
        """noise (batch, n_mels, frames) -> mel of the same shape, by Euler steps at cosine times. Each follows the
        conditional velocity and goes `inference_cfg_rate` beyond it, away from the unconditional one."""
        x, rate = noise, self.inference_cfg_rate
        times = cosine_times(torch.linspace(0.0, 1.0, steps + 1, device=noise.device)).tolist()
        given, both = conditions.with_none(), torch.cat([real, real])
        time = 0.0
        for following in times[1:]:
            step = following - time
            at = noise.new_full((len(both),), time)
            velocity = self.estimator(torch.cat([x, x]), both, given.mu, at, given.speaker, given.prompt, streaming)
            conditional, unconditional = velocity.chunk(2)
            x = x + step * ((1.0 + rate) * conditional - rate * unconditional)
            time += step
        return x
