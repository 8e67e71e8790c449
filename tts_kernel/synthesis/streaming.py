"""Speech tokens to sound while they come: what was sent out is final, and together it is what one pass would have made.

The flow sees whole chunks of tokens, which later ones do not change. The vocoder holds back the frames that what comes
can still change, and starts each window so early that its edge is not heard; so there is nothing to cross-fade.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator

import torch
from torch import Tensor

from tts_kernel.models.cosyvoice2.config import FlowConfig, HiftConfig
from tts_kernel.models.cosyvoice2.flow import TokenToMel
from tts_kernel.models.cosyvoice2.hift import HiftGenerator
from tts_kernel.synthesis.voice import Voice

PITCH_REACH = 5  # frames on either side that a pitch depends on: five convolutions over three
PHASE_REACH = 1  # frames behind it that a phase does: it is interpolated


def chunk_tokens(config: FlowConfig) -> int:
    """After how many tokens, those of the prompt among them, all of the flow's streaming chunks are full."""
    ratio = config.token_mel_ratio
    return math.lcm(config.encoder.static_chunk_size * ratio, config.estimator.static_chunk_size) // ratio


class VoiceFlow:
    """The flow model with one voice: speech tokens -> mel."""

    def __init__(self, flow: TokenToMel, voice: Voice, steps: int) -> None:
        """`steps` of the solver."""
        self.flow, self.steps = flow, steps
        self.device = flow.start_noise.device
        self.embedding = voice.embedding[None].to(self.device)
        tokens, mel = torch.zeros(0, dtype=torch.long), torch.zeros(0, flow.config.output_size)
        if voice.prompt is not None:
            tokens, mel = voice.prompt.tokens, voice.prompt.mel
        self.prompt_tokens, self.prompt_mel = tokens[None].to(self.device), mel[None].to(self.device)

    def mel(self, tokens: list[int], *, streaming: bool = False, more_to_come: bool = False) -> Tensor:
        """-> (1, n_mels, frames). Raises ValueError for no tokens and for more than five minutes."""
        said = torch.tensor([tokens], dtype=torch.long, device=self.device)
        return self.flow.infer(
            said,
            self.prompt_tokens,
            self.prompt_mel,
            self.embedding,
            streaming=streaming,
            more_to_come=more_to_come,
            steps=self.steps,
        )

    def pieces(self, tokens: Iterable[int]) -> Iterator[tuple[Tensor, bool]]:
        """Mels (1, n_mels, frames) as tokens come, and whether each is the last. Joined they are
        `mel(tokens, streaming=True)`."""
        chunk, ahead = chunk_tokens(self.flow.config), self.flow.config.pre_lookahead_len
        ready = chunk - self.prompt_tokens.shape[1] % chunk  # tokens that fill the chunk which the prompt began
        said: list[int] = []
        done = 0  # frames
        for token in tokens:
            said.append(token)
            if len(said) == ready + ahead:
                mel = self.mel(said, streaming=True, more_to_come=True)
                yield mel[:, :, done:], False
                done, ready = mel.shape[2], ready + chunk
        yield self.mel(said, streaming=True)[:, :, done:], True


def filter_reach(config: HiftConfig) -> int:
    """Frames on either side of a sample that the vocoder's filter hears: its kernels, one stage after the other."""

    def block(kernels: tuple[int, ...], dilations: tuple[tuple[int, ...], ...]) -> int:
        return max(
            sum((size // 2) * (dilation + 1) for dilation in of_block)
            for size, of_block in zip(kernels, dilations, strict=True)
        )

    reach, rate = 3.0, 1  # of the first convolution; positions per frame
    for stage, (up, kernel) in enumerate(zip(config.upsample_rates, config.upsample_kernel_sizes, strict=True)):
        reach += kernel / up / rate
        rate *= up
        shaped = block(
            config.source_resblock_kernel_sizes[stage : stage + 1],
            config.source_resblock_dilation_sizes[stage : stage + 1],
        )
        source = (shaped + 1) / rate + config.n_fft / config.samples_per_frame
        reach = max(reach, source) + block(config.resblock_kernel_sizes, config.resblock_dilation_sizes) / rate
    return math.ceil(reach + 4 / rate + config.n_fft / config.samples_per_frame)


class StreamingVocoder:
    """One utterance's mel in pieces -> its waveform in pieces."""

    def __init__(self, model: HiftGenerator, generator: torch.Generator | None = None) -> None:
        """`generator`, the CPU's, draws the source's noise, frame by frame: so it does not matter how a mel is cut."""
        self.model, self.generator = model, generator
        self.context = filter_reach(model.config)
        device = model.window.device
        self.mel = torch.zeros(1, model.config.in_channels, 0, device=device)
        self.f0 = torch.zeros(1, 0, device=device)  # of the frames whose pitch nothing can change any more
        self.noise = torch.zeros(1, 0, model.config.nb_harmonics + 1, device=device)
        self.done = 0  # frames that were sent out

    @torch.inference_mode()
    def push(self, mel: Tensor, last: bool) -> Tensor:
        """mel (1, n_mels, frames), what follows the frames before -> (samples,) that are final: none for the first
        frames, all that is left for the last."""
        self.mel = torch.cat([self.mel, mel], dim=2)
        self._extend_pitch(last)
        known = self.f0.shape[1] - (0 if last else PHASE_REACH)
        upto = known if last else known - self.context
        if upto <= self.done:
            return self.mel.new_zeros(0)
        start, samples = max(0, self.done - self.context), self.model.config.samples_per_frame
        source, _ = self.model.m_source(self.f0, self.noise)
        wave = self.model.decode(self.mel[:, :, start:known], source[:, :, start * samples : known * samples])
        made = wave[0, (self.done - start) * samples : (upto - start) * samples]
        self.done = upto
        return made

    def _extend_pitch(self, last: bool) -> None:
        known = self.f0.shape[1]
        start, end = max(0, known - PITCH_REACH), self.mel.shape[2] - (0 if last else PITCH_REACH)
        if end <= known:
            return
        f0 = self.model.f0_predictor(self.mel[:, :, start:])[:, known - start : end - start]
        self.f0 = torch.cat([self.f0, f0], dim=1)
        noise = [
            self.model.m_source.noise_like(f0[:, frame : frame + 1], self.generator) for frame in range(end - known)
        ]
        self.noise = torch.cat([self.noise, *noise], dim=1)
