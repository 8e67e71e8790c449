"""The whole generator: a training step's forward pass, and speech from text.

Sources: VITS (arXiv 2106.06103), VITS2 (arXiv 2307.16430). Settled by parity case synthesizer_small.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from tts_kernel.models.melotts.alignment import alignment_scores, monotonic_durations, noisy_scores, stretch
from tts_kernel.models.melotts.config import SynthesizerConfig
from tts_kernel.models.melotts.decoder import Decoder
from tts_kernel.models.melotts.durations import DurationPredictor, StochasticDurationPredictor
from tts_kernel.models.melotts.flow import TransformerFlow
from tts_kernel.models.melotts.layers import real_positions
from tts_kernel.models.melotts.posterior import Posterior, PosteriorEncoder
from tts_kernel.models.melotts.text_encoder import Prior, Text, TextEncoder

MOST_FRAMES = 20_000  # of one sentence: four minutes at the public sizes, far beyond any sense


@dataclass(frozen=True)
class TrainingDraws:
    """What a training step draws at random, in this order."""

    posterior: Tensor  # (batch, inter_channels, frames), normal
    alignment: Tensor  # (batch, frames, tokens), normal
    durations: Tensor  # (batch, 2, tokens), normal
    segments: Tensor  # (batch,), uniform in [0, 1)


@dataclass(frozen=True)
class SpeechDraws:
    """What speaking draws at random, in this order; normal, before their noise scales."""

    durations: Tensor  # (batch, 2, tokens)
    prior: Tensor  # (batch, inter_channels, frames); how many frames is known once the durations are


@dataclass(frozen=True)
class Training:
    """One training step's forward pass."""

    audio: Tensor  # (batch, 1, segment_size * samples_per_frame)
    starts: Tensor  # (batch,), first frame of each row's segment
    duration_loss: Tensor  # (batch,); their sum is the step's
    durations: Tensor  # (batch, tokens), frames per token as aligned
    prior: Prior
    posterior: Posterior
    frame_mask: Tensor  # (batch, 1, frames)
    z_p: Tensor  # (batch, inter_channels, frames), the posterior's sample in the prior's space
    m_p: Tensor  # (batch, inter_channels, frames), the prior's mean of each frame's token
    logs_p: Tensor  # (batch, inter_channels, frames)
    predicted_log_durations: Tensor  # (batch, 1, tokens)
    log_durations: Tensor  # (batch, 1, tokens)
    speaker: Tensor  # (batch, gin_channels, 1)


@dataclass(frozen=True)
class Speech:
    """Sentences as sound; rows are padded with zeros."""

    audio: Tensor  # (batch, samples)
    lengths: Tensor  # (batch,), samples
    durations: Tensor  # (batch, tokens), frames
    z: Tensor  # (batch, inter_channels, frames), what was decoded
    z_p: Tensor  # (batch, inter_channels, frames)


class Synthesizer(nn.Module):
    """With `reference_padding` the noise of the alignment is scaled by the deviation of all scores, those of padding
    among them, and a batch is decoded with its padding, which the last frames of its shorter rows then hear. Else a row
    is the same in every batch."""

    def __init__(self, config: SynthesizerConfig, *, reference_padding: bool = False) -> None:
        super().__init__()
        self.config, self.reference_padding = config, reference_padding
        self.enc_p = TextEncoder(config)
        self.dec = Decoder(config)
        self.enc_q = PosteriorEncoder(config)
        self.flow = TransformerFlow(config)
        self.sdp = StochasticDurationPredictor(config)
        self.dp = DurationPredictor(config)
        self.emb_g = nn.Embedding(config.n_speakers, config.gin_channels)

    def forward(
        self,
        text: Text,
        spectrogram: Tensor,
        frame_lengths: Tensor,
        speakers: Tensor,
        *,
        alignment_noise: float,
        draws: TrainingDraws | None = None,
    ) -> Training:
        """Linear spectrograms (batch, spec_channels, frames), their lengths and speaker numbers (batch,).
        `alignment_noise` is `alignment.noise_scale` of the step. Raises ValueError naming the rows that are shorter
        than a segment or than their text."""
        draws = draws or self.draw(text, spectrogram)
        speaker = self.emb_g(speakers)[..., None]
        prior = self.enc_p(text, speaker)
        frame_mask = real_positions(frame_lengths, spectrogram.shape[2])
        posterior = self.enc_q(spectrogram, frame_mask, speaker, draws.posterior)
        z_p = self.flow(posterior.sample, frame_mask, speaker)
        durations = self.align(z_p, prior, frame_mask, alignment_noise, draws.alignment)
        frames = durations.float()[:, None]  # half precision does not know every whole number
        stochastic = self.sdp(prior.hidden, prior.mask, frames, speaker, draws.durations)
        predicted = self.dp(prior.hidden, prior.mask, speaker)
        log_durations = (frames + 1e-6).log() * prior.mask
        errors = (predicted.float() - log_durations.float()).square().sum(dim=(1, 2))
        starts = self.segment_starts(frame_lengths, draws.segments)
        return Training(
            audio=self.dec(segments(posterior.sample, starts, self.config.segment_size), speaker),
            starts=starts,
            duration_loss=(stochastic + errors) / prior.mask.sum(),
            durations=durations,
            prior=prior,
            posterior=posterior,
            frame_mask=frame_mask,
            z_p=z_p,
            m_p=stretch(prior.mean, durations, z_p.shape[2]),
            logs_p=stretch(prior.log_deviation, durations, z_p.shape[2]),
            predicted_log_durations=predicted,
            log_durations=log_durations,
            speaker=speaker,
        )

    def draw(self, text: Text, spectrogram: Tensor, generator: torch.Generator | None = None) -> TrainingDraws:
        (batch, tokens), frames = text.phones.shape, spectrogram.shape[2]
        device = spectrogram.device
        return TrainingDraws(
            posterior=drawn((batch, self.config.inter_channels, frames), device, generator),
            alignment=drawn((batch, frames, tokens), device, generator),
            durations=drawn((batch, 2, tokens), device, generator),
            segments=drawn((batch,), device, generator, torch.rand),
        )

    @torch.no_grad()
    def align(self, z_p: Tensor, prior: Prior, frame_mask: Tensor, noise_scale: float, noise: Tensor) -> Tensor:
        """Frames per token (batch, tokens) on the likeliest path, after noise."""
        scores = alignment_scores(z_p, prior.mean, prior.log_deviation)
        if noise_scale:
            real = None if self.reference_padding else frame_mask.transpose(1, 2) & prior.mask
            scores = noisy_scores(scores, noise, noise_scale, real)
        return monotonic_durations(scores, prior.mask.sum(dim=(1, 2)), frame_mask.sum(dim=(1, 2)))

    def segment_starts(self, frame_lengths: Tensor, uniform: Tensor) -> Tensor:
        """First frames (batch,) such that every segment lies within its recording."""
        room = frame_lengths - self.config.segment_size
        if (room < 0).any():
            short = [f"row {row} has {int(frame_lengths[row])}" for row in (room < 0).nonzero()[:, 0].tolist()]
            raise ValueError(
                f"{', '.join(short)} frames, expected at least segment_size {self.config.segment_size}; drop such clips"
            )
        return (uniform * (room + 1)).long()

    @torch.inference_mode()
    def infer(
        self,
        text: Text,
        speakers: Tensor,
        *,
        noise_scale: float = 0.6,
        noise_scale_w: float = 0.8,
        sdp_ratio: float = 0.2,
        length_scale: float = 1.0,
        generator: torch.Generator | None = None,
        draws: SpeechDraws | None = None,
    ) -> Speech:
        """Text and speaker numbers (batch,) -> sound. `noise_scale` varies the voice, `noise_scale_w` the sampled
        durations, of which log durations have a share of `sdp_ratio`, the plain prediction the rest; `length_scale`
        above 1 speaks slower. In eval mode the same seed of `generator` gives the same sound. Raises ValueError naming
        sentences that would last more than `MOST_FRAMES` frames."""
        speaker = self.emb_g(speakers)[..., None]
        prior = self.enc_p(text, speaker)
        (batch, tokens), device = text.phones.shape, speaker.device
        noise = drawn((batch, 2, tokens), device, generator) if draws is None else draws.durations
        sampled = self.sdp.sample(prior.hidden, prior.mask, speaker, noise * noise_scale_w)
        plain = self.dp(prior.hidden, prior.mask, speaker)
        log_durations = sdp_ratio * sampled + (1.0 - sdp_ratio) * plain
        durations = whole_frames(log_durations.float().exp() * prior.mask * length_scale)
        frame_lengths = durations.sum(dim=1)
        size = int(frame_lengths.max())
        m_p, logs_p = (stretch(value, durations, size) for value in (prior.mean, prior.log_deviation))
        noise = drawn(tuple(m_p.shape), device, generator) if draws is None else draws.prior
        z_p = m_p + noise * logs_p.exp() * noise_scale
        mask = real_positions(frame_lengths, size)
        z = self.flow.inverse(z_p, mask, speaker)
        audio = self.decode(z, frame_lengths, speaker)
        return Speech(audio, frame_lengths * self.config.samples_per_frame, durations, z, z_p)

    def decode(self, z: Tensor, frame_lengths: Tensor, speaker: Tensor) -> Tensor:
        """(batch, inter_channels, frames), (batch,), (batch, gin_channels, 1) -> (batch, samples)."""
        if self.reference_padding:
            return self.dec(z * real_positions(frame_lengths, z.shape[2]), speaker)[:, 0]
        audio = z.new_zeros(len(z), z.shape[2] * self.config.samples_per_frame)
        for row, frames in enumerate(frame_lengths.tolist()):
            spoken = self.dec(z[row : row + 1, :, :frames], speaker[row : row + 1])[0, 0]
            audio[row, : len(spoken)] = spoken
        return audio


def drawn(
    shape: tuple[int, ...],
    device: torch.device,
    generator: torch.Generator | None,
    distribution: Callable[..., Tensor] = torch.randn,
) -> Tensor:
    """Random numbers on `device`, drawn where the generator is: the same from one seed on every device."""
    where = device if generator is None else generator.device
    return distribution(shape, generator=generator, device=where).to(device)


def whole_frames(durations: Tensor) -> Tensor:
    """Durations (batch, 1, tokens) rounded up to whole frames (batch, tokens) int64, at least one in each row.
    Raises ValueError naming rows without end."""
    frames = durations[:, 0].ceil()
    total = frames.sum(dim=1)
    endless = (~(total <= MOST_FRAMES)).nonzero()[:, 0].tolist()
    if endless:
        named = ", ".join(f"row {row} would last {total[row]:.0f} frames" for row in endless)
        raise ValueError(
            f"{named}, expected at most {MOST_FRAMES}; an untrained duration predictor, or a text to be cut into "
            "sentences"
        )
    frames = frames.long()
    frames[:, 0] += frames.sum(dim=1) == 0
    return frames


def segments(x: Tensor, starts: Tensor, size: int) -> Tensor:
    """(batch, channels, n) -> (batch, channels, size), each row from its start: latent frames for the decoder, mel
    frames or samples to compare with what it made."""
    places = starts[:, None] + torch.arange(size, device=x.device)
    return x.gather(2, places[:, None].expand(-1, x.shape[1], -1))
