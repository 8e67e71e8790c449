"""The vocoder: a mel and its harmonic source -> waveform, by way of a short spectrum that is turned back into a wave.

Sources: HiFTNet (arXiv 2309.09493) for source filter and inverse STFT, HiFi-GAN (arXiv 2010.05646) for the stack of
upsamplings and residual blocks, BigVGAN (arXiv 2206.04658) for the snake activation. Settled by parity case hift_small.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import leaky_relu, pad
from torch.nn.utils.parametrizations import weight_norm

from tts_kernel.models.cosyvoice2.config import HiftConfig
from tts_kernel.models.cosyvoice2.source import F0Predictor, HarmonicSource

LOUDEST = 100.0  # magnitudes are clipped here before the inverse STFT


def normed(conv: nn.Conv1d | nn.ConvTranspose1d) -> nn.Module:
    """Small random weights, as HiFi-GAN starts, under weight norm."""
    nn.init.normal_(conv.weight, std=0.01)
    return weight_norm(conv)


class Snake(nn.Module):
    """x + sin(alpha x)^2 / alpha, one alpha per channel."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.alpha = nn.Parameter(torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        alpha = self.alpha[:, None]
        return x + (alpha * x).sin().square() / (alpha + 1e-9)  # alpha may have been learned down to 0


class SnakeBlock(nn.Module):
    """Pairs of convolutions, the first dilated, each behind its snake; every pair is added to its input."""

    def __init__(self, channels: int, kernel_size: int, dilations: tuple[int, ...]) -> None:
        super().__init__()

        def conv(dilation: int) -> nn.Module:
            return normed(
                nn.Conv1d(channels, channels, kernel_size, dilation=dilation, padding=dilation * (kernel_size - 1) // 2)
            )

        self.convs1 = nn.ModuleList(conv(dilation) for dilation in dilations)
        self.convs2 = nn.ModuleList(conv(1) for _ in dilations)
        self.activations1 = nn.ModuleList(Snake(channels) for _ in dilations)
        self.activations2 = nn.ModuleList(Snake(channels) for _ in dilations)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, channels, n) -> the same shape."""
        for snake1, conv1, snake2, conv2 in zip(
            self.activations1, self.convs1, self.activations2, self.convs2, strict=True
        ):
            x = x + conv2(snake2(conv1(snake1(x))))
        return x


class HiftGenerator(nn.Module):
    """(batch, n_mels, frames) -> (batch, samples)."""

    window: Tensor  # (n_fft,)

    def __init__(self, config: HiftConfig) -> None:
        super().__init__()
        self.config = config
        self.m_source = HarmonicSource(config)
        self.conv_pre = normed(nn.Conv1d(config.in_channels, config.base_channels, 7, padding=3))
        self.ups, self.source_downs = nn.ModuleList(), nn.ModuleList()
        self.source_resblocks, self.resblocks = nn.ModuleList(), nn.ModuleList()
        bins = config.n_fft + 2  # real and imaginary parts, or magnitudes and phases
        for stage, (rate, kernel_size) in enumerate(
            zip(config.upsample_rates, config.upsample_kernel_sizes, strict=True)
        ):
            channels = config.base_channels // 2 ** (stage + 1)
            up = nn.ConvTranspose1d(2 * channels, channels, kernel_size, rate, padding=(kernel_size - rate) // 2)
            self.ups.append(normed(up))
            left = math.prod(config.upsample_rates[stage + 1 :])  # from this stage's rate to the spectrum's
            down = (
                nn.Conv1d(bins, channels, 1)
                if left == 1
                else nn.Conv1d(bins, channels, 2 * left, left, padding=left // 2)
            )
            self.source_downs.append(down)
            self.source_resblocks.append(
                SnakeBlock(
                    channels,
                    config.source_resblock_kernel_sizes[stage],
                    config.source_resblock_dilation_sizes[stage],
                )
            )
            for size, dilations in zip(config.resblock_kernel_sizes, config.resblock_dilation_sizes, strict=True):
                self.resblocks.append(SnakeBlock(channels, size, dilations))
        self.conv_post = normed(nn.Conv1d(channels, bins, 7, padding=3))
        self.f0_predictor = F0Predictor(config.in_channels, config.f0_predictor.cond_channels)
        self.register_buffer("window", torch.hann_window(config.n_fft), persistent=False)

    def forward(self, mel: Tensor, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        """mel (batch, n_mels, frames) -> waveform (batch, samples) and the pitch it was given (batch, frames) in Hz,
        which training compares with the measured one. The generator draws the source's noise."""
        f0 = self.f0_predictor(mel)
        source, _ = self.m_source(f0, self.m_source.noise_like(f0, generator))
        return self.decode(mel, source), f0

    def decode(self, mel: Tensor, source: Tensor) -> Tensor:
        """mel (batch, n_mels, frames), source (batch, 1, samples) -> waveform (batch, samples) within `audio_limit`."""
        magnitude, phase = self.spectrum(mel, source)
        return self.inverse_stft(magnitude, phase).clamp(-self.config.audio_limit, self.config.audio_limit)

    def spectrum(self, mel: Tensor, source: Tensor) -> tuple[Tensor, Tensor]:
        """-> magnitude and phase (batch, n_fft // 2 + 1, samples // hop_len + 1)."""
        said = self.conv_post(self.filter(mel, source))
        half = self.config.n_fft // 2 + 1
        return said[:, :half].exp(), said[:, half:].sin()

    def filter(self, mel: Tensor, source: Tensor) -> Tensor:
        """-> hidden frames at the spectrum's rate (batch, channels, samples // hop_len + 1)."""
        excitation = self._stft(source[:, 0])
        hidden, per_stage = self.conv_pre(mel), len(self.config.resblock_kernel_sizes)
        stages = zip(self.ups, self.source_downs, self.source_resblocks, strict=True)
        for stage, (up, down, shape_source) in enumerate(stages):
            hidden = up(leaky_relu(hidden, self.config.lrelu_slope))
            if stage == len(self.ups) - 1:
                hidden = pad(hidden, (1, 0), mode="reflect")  # a centred spectrum has one frame more
            hidden = hidden + shape_source(down(excitation))
            blocks = self.resblocks[stage * per_stage : (stage + 1) * per_stage]
            hidden = torch.stack([block(hidden) for block in blocks]).mean(dim=0)
        return leaky_relu(hidden)

    def _stft(self, wave: Tensor) -> Tensor:
        """(batch, samples) -> real parts, then imaginary ones (batch, n_fft + 2, samples // hop_len + 1)."""
        config = self.config
        spectrum = torch.stft(wave, config.n_fft, config.hop_len, window=self.window, return_complex=True)
        return torch.cat([spectrum.real, spectrum.imag], dim=1)

    def inverse_stft(self, magnitude: Tensor, phase: Tensor) -> Tensor:
        """(batch, n_fft // 2 + 1, n) each -> (batch, (n - 1) * hop_len); magnitudes are clipped."""
        spectrum = torch.polar(magnitude.float().clamp(max=LOUDEST), phase.float())
        return torch.istft(spectrum, self.config.n_fft, self.config.hop_len, window=self.window)
