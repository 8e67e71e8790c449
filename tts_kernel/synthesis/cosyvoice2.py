"""CosyVoice2 speaks: text -> speech tokens -> mel -> waveform, whole or while the tokens come."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from tts_kernel.audio.wav import Hz, Seconds
from tts_kernel.models.cosyvoice2.flow import MAX_FRAMES, TokenToMel
from tts_kernel.models.cosyvoice2.generation import Sampling, speech_tokens
from tts_kernel.models.cosyvoice2.hift import HiftGenerator
from tts_kernel.models.cosyvoice2.llm import SpeechLanguageModel
from tts_kernel.synthesis.griffin_lim import GriffinLim
from tts_kernel.synthesis.model_folder import attempt, open_model, open_tokenizer, open_vocoder, read_sizes
from tts_kernel.synthesis.parts import spoken_parts
from tts_kernel.synthesis.speech import PAUSE, Speech, SynthesisError, fade, open_device
from tts_kernel.synthesis.streaming import StreamingVocoder, VoiceFlow
from tts_kernel.synthesis.voice import Voice, check_voice

log = logging.getLogger(__name__)

LONGEST = 80  # text tokens that are spoken in one go, as in the reference
FEWEST = 10  # for which there must be room beside a prompt


@dataclass(frozen=True)
class Synthesizer:
    """The three models, of any size and on one device, and the tokenizer they were trained with."""

    llm: SpeechLanguageModel
    flow: TokenToMel
    vocoder: HiftGenerator | GriffinLim
    encode: Callable[[str], list[int]]  # text -> token ids
    sampling: Sampling = field(default_factory=Sampling)
    steps: int = 10  # of the flow's solver
    pause: Seconds = PAUSE

    def __post_init__(self) -> None:
        llm, flow, problems = self.llm.config, self.flow.config, []
        if flow.vocab_size < llm.speech_token_size:
            problems.append(f"llm says {llm.speech_token_size} speech tokens, flow knows {flow.vocab_size}")
        reads = self.vocoder.config.in_channels if isinstance(self.vocoder, HiftGenerator) else self.vocoder.n_mels
        if flow.output_size != reads:
            problems.append(f"flow makes {flow.output_size} mel bands, the vocoder reads {reads}")
        if self.steps < 1:
            problems.append(f"steps is {self.steps}, expected at least 1")
        if not 0 <= self.pause < math.inf:
            problems.append(f"pause is {self.pause} s, expected at least 0")
        if problems:
            raise SynthesisError(f"models do not fit together: {'; '.join(problems)}")

    @classmethod
    def open(
        cls,
        folder: Path,
        *,
        llm: Path | None = None,
        flow: Path | None = None,
        device: torch.device | str = "cpu",
        sampling: Sampling | None = None,
    ) -> Synthesizer:
        """The models of a folder (synthesis/model_folder.py); `llm` and `flow` are merged checkpoints to take instead
        of the folder's; device "auto" is the GPU where there is one. Raises SynthesisError listing every file that is
        missing or does not fit, or for a device that is not there, ConfigError for sizes that cannot be read."""
        folder, device = Path(folder), open_device(device)
        sizes = read_sizes(folder)
        llm, flow = llm or folder / "llm.pt", flow or folder / "flow.pt"
        problems: list[str] = []
        encode = attempt(problems, lambda: open_tokenizer(folder))
        model = attempt(problems, lambda: open_model(SpeechLanguageModel(sizes.llm), llm, device))
        mel = attempt(problems, lambda: open_model(TokenToMel(sizes.flow), flow, device))
        vocoder = attempt(problems, lambda: open_vocoder(sizes.hift, folder / "hift.pt", device))
        if encode is None or model is None or mel is None or vocoder is None:
            raise SynthesisError("\n  ".join([f"{folder}: {len(problems)} problems:", *problems]))
        return cls(model, mel, vocoder, encode, sampling or Sampling())

    @property
    def sample_rate(self) -> Hz:
        vocoder = self.vocoder
        return vocoder.config.sampling_rate if isinstance(vocoder, HiftGenerator) else vocoder.sample_rate

    def speak(self, text: str, voice: Voice, generator: torch.Generator | None = None) -> Speech:
        """All of `text` in one waveform. The same state of the generator, the CPU's, gives the same waveform.
        Raises SynthesisError for text that cannot be spoken and for sound that is not finite, VoiceError for a voice
        that does not fit."""
        clock = _Clock(self.sample_rate)
        cut: list[str] = []
        pieces = list(clock.timed(self._pieces(text, voice, generator, cut, streaming=False)))
        return Speech(np.concatenate(pieces), self.sample_rate, clock.took, tuple(cut))

    def stream(self, text: str, voice: Voice, generator: torch.Generator | None = None) -> Iterator[np.ndarray]:
        """The same in pieces (samples,), the first after about a second's worth of speech tokens. Joined they are as
        long as what `speak` makes of the same generator and sound alike: but for the chunks in which the flow sees its
        tokens, they are the same samples. Griffin-Lim needs all of a part: its pieces are the parts, the same samples
        as `speak` makes."""
        yield from _Clock(self.sample_rate).timed(self._pieces(text, voice, generator, [], streaming=True))

    def _pieces(
        self, text: str, voice: Voice, generator: torch.Generator | None, cut: list[str], streaming: bool
    ) -> Iterator[np.ndarray]:
        check_voice(voice, self.flow.config)
        spoken = VoiceFlow(self.flow, voice, self.steps)
        for_tokens, for_noise = self._generators(generator)
        streaming = streaming and isinstance(self.vocoder, HiftGenerator)
        silence = np.zeros(round(self.pause * self.sample_rate), dtype=np.float32)
        with _evaluating(self.llm, self.flow, self.vocoder):
            for number, (part, ids, prompt) in enumerate(self._parts(text, voice)):
                if number and len(silence):
                    yield silence
                tokens = self._tokens(part, ids, prompt, spoken.prompt_tokens[0], for_tokens, cut)
                mels = spoken.pieces(tokens) if streaming else iter([(spoken.mel(list(tokens)), True)])
                for piece in self._sound(mels, for_noise):
                    if not np.isfinite(piece).all():
                        raise SynthesisError(
                            f"{part!r:.60}: the models made NaN or infinite sound; were their weights damaged, or was "
                            "LoRA merged twice?"
                        )
                    yield piece

    def _sound(self, mels: Iterator[tuple[Tensor, bool]], generator: torch.Generator) -> Iterator[np.ndarray]:
        """Mels of one part, and whether each is its last -> waveform (samples,), its two ends faded."""
        vocoder = self.vocoder
        in_pieces = StreamingVocoder(vocoder, generator) if isinstance(vocoder, HiftGenerator) else None
        first = True
        for mel, last in mels:
            piece = (in_pieces.push(mel, last) if in_pieces else vocoder(mel, generator)).cpu().numpy()
            if len(piece):
                yield fade(piece, self.sample_rate, begins=first, ends=last)
                first = False

    def _parts(self, text: str, voice: Voice) -> list[tuple[str, Tensor, Tensor]]:
        """Parts of the text with their tokens and those of the prompt's text, (n,) and (m,) each."""
        said = voice.prompt.text if voice.prompt else ""
        prompt, count = self.encode(said) if said else [], len(voice.prompt.tokens) if voice.prompt else 0
        ratio = self.sampling.max_token_text_ratio
        positions = self.llm.config.qwen2.max_position_embeddings - len(prompt) - count - 2
        frames = MAX_FRAMES // self.flow.config.token_mel_ratio - count
        longest = min(LONGEST, int(positions / (1 + ratio)), int(frames / ratio))
        if longest < FEWEST:
            raise SynthesisError(
                f"a prompt of {len(prompt)} text and {count} speech tokens leaves room for {longest} more "
                f"text tokens, expected {FEWEST} at least; take a shorter clip"
            )
        try:
            parts = spoken_parts(text, longest, lambda part: len(self.encode(part)))
        except ValueError as error:
            raise SynthesisError(str(error)) from None
        tokenized = [(part, self.encode(part)) for part in parts]
        size = self.llm.config.qwen2.vocab_size
        outside = sorted({token for ids in [prompt, *(ids for _, ids in tokenized)] for token in ids if token >= size})
        if outside:
            raise SynthesisError(
                f"the tokenizer makes ids up to {outside[-1]}, the llm knows {size}; open the llm's own tokenizer"
            )
        device = self.llm.llm_decoder.weight.device
        return [(part, _ids(ids, device), _ids(prompt, device)) for part, ids in tokenized]

    def _tokens(
        self, part: str, ids: Tensor, prompt: Tensor, prompt_speech: Tensor, generator: torch.Generator, cut: list[str]
    ) -> Iterator[int]:
        """Speech tokens of one part, without the one that ends it; without one, the part goes into `cut`.
        Raises SynthesisError if there are no tokens, or if they cannot be drawn."""
        count = 0
        steps = speech_tokens(self.llm, ids, prompt, prompt_speech, self.sampling, generator)
        try:
            for token, _ in steps:
                if token in self.llm.stop_tokens:
                    break
                count += 1
                yield token
            else:
                log.warning("%r was cut after %d speech tokens: the llm did not end it by itself", part, count)
                cut.append(part)
        except ValueError as error:
            raise SynthesisError(f"{part!r:.60}: {error}") from error
        if not count:
            raise SynthesisError(f"{part!r:.60}: the llm ended before its first speech token; try another seed")

    def _generators(self, generator: torch.Generator | None) -> tuple[torch.Generator, torch.Generator]:
        """For tokens, on the llm's device, and for noise, the CPU's: in streaming they take turns in another order."""
        first, second = torch.randint(2**62, (2,), generator=generator).tolist()
        device = self.llm.llm_decoder.weight.device
        return torch.Generator(device).manual_seed(first), torch.Generator().manual_seed(second)


@dataclass
class _Clock:
    """What a speech took and lasts; not the time that its listener took."""

    sample_rate: Hz
    samples: int = 0
    took: Seconds = 0.0

    def timed(self, pieces: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
        """The pieces, and a line in the log behind the last."""
        while True:
            started = time.perf_counter()
            piece = next(pieces, None)
            self.took += time.perf_counter() - started
            if piece is None:
                break
            self.samples += len(piece)
            yield piece
        seconds = self.samples / self.sample_rate
        log.info("%.1f s of speech in %.1f s (real-time factor %.2f)", seconds, self.took, self.took / seconds)


@contextmanager
def _evaluating(*models: nn.Module) -> Iterator[None]:
    """In eval mode, for a model that is being trained, too; then as before."""
    before = [model.training for model in models]
    try:
        for model in models:
            model.eval()
        yield
    finally:
        for model, training in zip(models, before, strict=True):
            model.train(training)


def _ids(tokens: list[int], device: torch.device) -> Tensor:
    return torch.tensor(tokens, dtype=torch.long, device=device)
