"""The families' log-mel spectrograms. They sit on different filter banks: never mix their frames.

`PowerLogMel` is what IndexTTS-2's stage 2 trains on (the emotion conformer reads it); `LogMel` is what its official
vocoder path and CosyVoice2 use; `WhisperLogMel` is what CosyVoice2's speech tokenizer reads, `speaker_fbank` what its
speaker encoder reads. The modules return (batch, n_mels, frames); stored arrays are (frames, n_mels), see `of_clip`.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from tts_kernel.audio.clip_mel import FLOOR, ClipMel
from tts_kernel.audio.wav import Hz

COSYVOICE2_TOKEN = 960  # samples at 24 kHz: one speech token, two mel frames
WINDOW_16K = 400  # samples at 16 kHz: 25 ms
MELOTTS_GUARD = 1e-6  # of MeloTTS's magnitudes: silence is 1e-3 in each of them


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
    Source: HiFi-GAN, meldataset.py, as in index-tts/index-tts (parity case mel_22k, official_mel) and in MeloTTS
    (parity case spectrograms), which guards the root otherwise and keeps the magnitudes too."""

    filters: Tensor  # (n_mels, n_fft // 2 + 1)
    window: Tensor  # (n_fft,)

    def __init__(
        self,
        sample_rate: Hz,
        n_fft: int,
        hop_length: int,
        n_mels: int,
        f_min: float = 0.0,
        f_max: float | None = None,
        guard: float = 1e-9,
    ) -> None:
        super().__init__()
        self.sample_rate, self.n_fft, self.hop_length, self.n_mels = sample_rate, n_fft, hop_length, n_mels
        self.guard = guard  # added to a square before its root, whose slope at zero is infinite
        filters = mel_filters(sample_rate, n_fft, n_mels, f_min, f_max, scale="slaney")
        self.register_buffer("filters", filters, persistent=False)
        self.register_buffer("window", torch.hann_window(n_fft), persistent=False)

    def forward(self, wav: Tensor) -> Tensor:
        """(batch, samples) in [-1, 1] -> (batch, n_mels, samples // hop_length).
        Raises ValueError if a clip is too short to be padded by reflection."""
        return self.of_magnitudes(self.magnitudes(wav))

    def of_magnitudes(self, magnitudes: Tensor) -> Tensor:
        """(batch, n_fft // 2 + 1, frames) -> (batch, n_mels, frames)."""
        return (self.filters @ magnitudes).clamp(min=FLOOR).log()

    def magnitudes(self, wav: Tensor) -> Tensor:
        """The linear spectrogram: (batch, samples) in [-1, 1] -> (batch, n_fft // 2 + 1, samples // hop_length)."""
        edge = (self.n_fft - self.hop_length) // 2
        if wav.shape[-1] <= edge:
            raise ValueError(f"{wav.shape[-1]} samples are too few for a mel; expected more than {edge}, drop the clip")
        wav = nn.functional.pad(wav, (edge, edge), mode="reflect")
        spectrum = torch.stft(wav, self.n_fft, self.hop_length, window=self.window, center=False, return_complex=True)
        return (spectrum.real.square() + spectrum.imag.square() + self.guard).sqrt()

    def of_clip(self, wav: np.ndarray) -> np.ndarray:
        """(samples,) in [-1, 1] -> (frames, n_mels) float32: one clip in the layout of the stored arrays."""
        return np.ascontiguousarray(self(torch.from_numpy(wav)[None])[0].T.numpy())


class WhisperLogMel(nn.Module):
    """Log mel of Whisper, within 8 decades of the loudest frame and scaled to about [-1, 1]: 16 kHz, 100 frames a
    second, 128 bands. The loudest frame is sought in each row by itself, its padding included.
    Source: Radford et al. 2022 (arXiv 2212.04356); parity case features."""

    filters: Tensor  # (n_mels, N_FFT // 2 + 1)
    window: Tensor  # (N_FFT,)
    SAMPLE_RATE: Hz = 16_000
    N_FFT, HOP_LENGTH = WINDOW_16K, 160  # samples

    def __init__(self, n_mels: int = 128) -> None:
        super().__init__()
        filters = mel_filters(self.SAMPLE_RATE, self.N_FFT, n_mels, scale="slaney")
        self.register_buffer("filters", filters, persistent=False)
        self.register_buffer("window", torch.hann_window(self.N_FFT), persistent=False)

    def forward(self, wav: Tensor) -> Tensor:
        """(batch, samples) in [-1, 1] at 16 kHz -> (batch, n_mels, samples // 160).
        Raises ValueError if a clip is too short to be padded by reflection."""
        if wav.shape[-1] <= self.N_FFT // 2:
            raise ValueError(
                f"{wav.shape[-1]} samples are too few for a mel; expected more than {self.N_FFT // 2}, drop the clip"
            )
        spectrum = torch.stft(wav, self.N_FFT, self.HOP_LENGTH, window=self.window, center=True, return_complex=True)
        mel = (self.filters @ spectrum[..., :-1].abs().square()).clamp(min=1e-10).log10()
        loudest = mel.amax(dim=(-2, -1), keepdim=True)
        return (torch.maximum(mel, loudest - 8.0) + 4.0) / 4.0

    def of_clip(self, wav: np.ndarray) -> np.ndarray:
        """(samples,) in [-1, 1] at 16 kHz -> (frames, n_mels) float32."""
        return np.ascontiguousarray(self(torch.from_numpy(wav)[None])[0].T.numpy())


def speaker_fbank(wav: np.ndarray, n_mels: int = 80) -> np.ndarray:
    """(samples,) in [-1, 1] at 16 kHz -> (frames, n_mels) float32: Kaldi's filter bank at 100 frames a second without
    dither, its mean over time taken away. Raises ValueError for a clip shorter than one window of 25 ms.
    Source: what CosyVoice2 feeds to CAM++ (parity case features)."""
    from torchaudio.compliance.kaldi import fbank

    if wav.shape[-1] < WINDOW_16K:
        raise ValueError(
            f"{wav.shape[-1]} samples are too few for a filter bank; expected at least {WINDOW_16K}, drop the clip"
        )
    features = fbank(torch.from_numpy(wav)[None], num_mel_bins=n_mels, dither=0.0, sample_frequency=16_000.0)
    return (features - features.mean(dim=0, keepdim=True)).numpy()


def indextts2_mel() -> PowerLogMel:
    """The mel of stage 2: 22,050 Hz, window 1024, hop 256 (86 frames a second), 80 bands from 0 Hz to 11,025 Hz."""
    return PowerLogMel(sample_rate=22_050, n_fft=1024, hop_length=256, n_mels=80)


def melotts_mel() -> LogMel:
    """The spectrograms of MeloTTS: 44.1 kHz, window 2048, hop 512 (86 frames a second). Its `magnitudes` (1025 bins)
    are what the posterior encoder reads, its 128 bands from 0 Hz to 22,050 Hz what the mel loss compares."""
    return LogMel(sample_rate=44_100, n_fft=2048, hop_length=512, n_mels=128, guard=MELOTTS_GUARD)


def cosyvoice2_mel() -> LogMel:
    """The mel of CosyVoice2: 24 kHz, window 1920, hop 480 (50 frames a second), 80 bands from 0 Hz
    to 8 kHz. Inference takes a prompt as it is; training pads it first, see `cosyvoice2_training_mel`."""
    return LogMel(sample_rate=24_000, n_fft=1920, hop_length=480, n_mels=80, f_max=8_000.0)


def whole_tokens(wav: np.ndarray, multiple: int = COSYVOICE2_TOKEN) -> np.ndarray:
    """(samples,) -> the same with zeros at its end up to a multiple, so that mel frames are twice the speech tokens."""
    return np.pad(wav, (0, -len(wav) % multiple))


def cosyvoice2_training_mel(wav: np.ndarray, mel: LogMel | None = None) -> np.ndarray:
    """(samples,) in [-1, 1] at 24 kHz -> (2 * ceil(samples / 960), 80) float32. For many clips make the `mel` once, by
    `cosyvoice2_mel`."""
    return (mel or cosyvoice2_mel()).of_clip(whole_tokens(wav))


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
