"""The two log-mel spectrograms of IndexTTS-2. They sit on different filter banks: never mix their frames.

`PowerLogMel` is what stage 2 trains on (the emotion conformer reads it); `LogMel` is what the official vocoder path
uses. Both return (batch, n_mels, frames); stored arrays are (frames, n_mels), see `PowerLogMel.of_clip`.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from tts_kernel.audio.clip_mel import FLOOR, ClipMel
from tts_kernel.audio.wav import Hz


class PowerLogMel(nn.Module):
    """Natural log of a power mel spectrogram: HTK filters without area normalisation, centred frames, window = n_fft.
    Source: edu-ide/index-tts, branch training_v3, MelComputer (parity case mel_22k, fork_logmel)."""

    filters: Tensor  # (n_mels, n_fft // 2 + 1)
    window: Tensor  # (n_fft,)

    def __init__(
        self, sample_rate: Hz, n_fft: int, hop_length: int, n_mels: int, f_min: float = 0.0, f_max: float | None = None
    ) -> None:
        super().__init__()
        self.sample_rate, self.n_fft, self.hop_length, self.n_mels = sample_rate, n_fft, hop_length, n_mels
        filters = mel_filters(sample_rate, n_fft, n_mels, f_min, f_max, scale="htk")
        self.register_buffer("filters", filters, persistent=False)
        self.register_buffer("window", torch.hann_window(n_fft), persistent=False)

    def forward(self, wav: Tensor) -> Tensor:
        """(batch, samples) in [-1, 1] -> (batch, n_mels, samples // hop_length + 1).
        Raises ValueError if a clip is too short to be padded by reflection."""
        if wav.shape[-1] <= self.n_fft // 2:
            raise ValueError(
                f"{wav.shape[-1]} samples are too few for a mel; expected more than {self.n_fft // 2}, drop the clip"
            )
        spectrum = torch.stft(wav, self.n_fft, self.hop_length, window=self.window, center=True, return_complex=True)
        return (self.filters @ spectrum.abs().square()).clamp(min=FLOOR).log()

    def clip_mel(self) -> ClipMel:
        """The same mel for one clip at a time and quicker: what an extraction job hands to its workers."""
        return ClipMel(self.filters.cpu().numpy(), self.sample_rate, self.hop_length)

    def of_clip(self, wav: np.ndarray) -> np.ndarray:
        """(samples,) in [-1, 1] -> (frames, n_mels) float32: one clip in the layout of the stored arrays."""
        return self.clip_mel()(wav)


class LogMel(nn.Module):
    """Natural log of a magnitude mel spectrogram: Slaney filters, HiFi-GAN padding, window = n_fft.
    Source: HiFi-GAN, meldataset.py, as in index-tts/index-tts (parity case mel_22k, official_mel)."""

    filters: Tensor  # (n_mels, n_fft // 2 + 1)
    window: Tensor  # (n_fft,)

    def __init__(
        self, sample_rate: Hz, n_fft: int, hop_length: int, n_mels: int, f_min: float = 0.0, f_max: float | None = None
    ) -> None:
        super().__init__()
        self.sample_rate, self.n_fft, self.hop_length, self.n_mels = sample_rate, n_fft, hop_length, n_mels
        filters = mel_filters(sample_rate, n_fft, n_mels, f_min, f_max, scale="slaney")
        self.register_buffer("filters", filters, persistent=False)
        self.register_buffer("window", torch.hann_window(n_fft), persistent=False)

    def forward(self, wav: Tensor) -> Tensor:
        """(batch, samples) in [-1, 1] -> (batch, n_mels, samples // hop_length).
        Raises ValueError if a clip is too short to be padded by reflection."""
        edge = (self.n_fft - self.hop_length) // 2
        if wav.shape[-1] <= edge:
            raise ValueError(f"{wav.shape[-1]} samples are too few for a mel; expected more than {edge}, drop the clip")
        wav = nn.functional.pad(wav, (edge, edge), mode="reflect")
        spectrum = torch.stft(wav, self.n_fft, self.hop_length, window=self.window, center=False, return_complex=True)
        magnitude = (spectrum.real.square() + spectrum.imag.square() + 1e-9).sqrt()  # the reference's guard for sqrt'
        return (self.filters @ magnitude).clamp(min=FLOOR).log()


def indextts2_mel() -> PowerLogMel:
    """The mel of stage 2: 22,050 Hz, window 1024, hop 256 (86 frames a second), 80 bands from 0 Hz to 11,025 Hz."""
    return PowerLogMel(sample_rate=22_050, n_fft=1024, hop_length=256, n_mels=80)


def mel_filters(
    sample_rate: Hz, n_fft: int, n_mels: int, f_min: float = 0.0, f_max: float | None = None, *, scale: str
) -> Tensor:
    """Triangular filters (n_mels, n_fft // 2 + 1). "slaney" also normalises their area (librosa's default), "htk"
    leaves their peaks at 1 (torchaudio's default). `f_max` None is half the sample rate."""
    if scale not in ("htk", "slaney"):
        raise ValueError(f"mel scale {scale!r} is unknown; expected 'htk' or 'slaney'")
    from torchaudio.functional import melscale_fbanks  # heavy import, needed only when a mel is built

    norm = "slaney" if scale == "slaney" else None
    top = sample_rate / 2.0 if f_max is None else f_max
    return melscale_fbanks(n_fft // 2 + 1, f_min, top, n_mels, sample_rate, norm=norm, mel_scale=scale).T.contiguous()
