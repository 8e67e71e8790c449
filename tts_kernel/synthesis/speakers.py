"""What a server calls: the speakers of a speaker_config.json, each with its own models, opened when first heard."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from tts_kernel.audio.wav import Hz
from tts_kernel.models.config_types import ConfigError
from tts_kernel.models.cosyvoice2.flow import TokenToMel
from tts_kernel.models.cosyvoice2.generation import Sampling
from tts_kernel.models.cosyvoice2.hift import HiftGenerator
from tts_kernel.models.cosyvoice2.llm import SpeechLanguageModel
from tts_kernel.synthesis.cosyvoice2 import Synthesizer
from tts_kernel.synthesis.embeddings import read_embeddings
from tts_kernel.synthesis.model_folder import Sizes, attempt, check_weights, read_sizes, tokenizer_path
from tts_kernel.synthesis.speaker_config import PATHS, SpeakerConfig, SpeakerError, read_speaker_config
from tts_kernel.synthesis.speech import open_device
from tts_kernel.synthesis.voice import Voice

KEPT = 2  # speakers whose models stay in memory: some 2.5 GB each at the published size


class Speakers:
    """Made by `from_config`, which checks every file; may be called by several threads."""

    def __init__(
        self,
        config: SpeakerConfig,
        base: Path,
        sample_rate: Hz,
        voices: dict[str, Voice],
        device: torch.device,
        kept: int,
        sampling: Sampling | None,
    ) -> None:
        """`voices` has the active speakers; the models are opened from the folder `base`, `kept` of them at a time."""
        self.config, self.base, self.sample_rate, self.voices = config, base, sample_rate, voices
        self.device, self.kept, self.sampling = device, kept, sampling
        self._opened: OrderedDict[str, Synthesizer] = OrderedDict()  # the one heard last comes last
        self._opening = threading.Lock()

    @classmethod
    def from_config(
        cls,
        path: Path | str,
        base: Path | str | None = None,
        device: torch.device | str = "cpu",
        kept: int = KEPT,
        sampling: Sampling | None = None,
    ) -> Speakers:
        """The active speakers of a speaker_config.json. Tokenizer, sizes and vocoder are those of the folder `base`, or
        of the file's own (synthesis/model_folder.py). Inactive speakers' files are not looked at. Device "auto" is the
        GPU where there is one.
        Raises SpeakerError listing all that is wrong: entries, missing files, weights' names and shapes, embeddings;
        SynthesisError for a device that is not there."""
        path, chosen = Path(path), open_device(device)
        config, problems = read_speaker_config(path)
        if kept < 1:
            problems.append(f"kept is {kept} speakers in memory, expected at least 1")
        folder = path.parent if base is None else Path(base)
        voices: dict[str, Voice] = {}
        try:
            sizes = read_sizes(folder)
        except ConfigError as error:
            problems.append(str(error))
        else:
            problems += _base_problems(folder, sizes)
            for name in config.active:
                if all(config.file(name, field).is_file() for field in PATHS):
                    problems += _weight_problems(config, name, sizes)
                    _add_voice(config, name, sizes, voices, problems)
        if problems:
            problems = list(dict.fromkeys(problems))  # two speakers may share a file
            raise SpeakerError("\n  ".join([f"{path}: {len(problems)} problem{'s' * (len(problems) > 1)}:", *problems]))
        return cls(config, folder, sizes.sample_rate, voices, chosen, kept, sampling)

    @property
    def names(self) -> list[str]:
        """Those that are offered."""
        return self.config.active

    def synthesize(self, text: str, speaker: str | None = None, generator: torch.Generator | None = None) -> np.ndarray:
        """`text` by a speaker, or by the default one -> waveform (samples,) float32 in [-1, 1] at `sample_rate`. The
        same state of the generator, the CPU's, gives the same waveform. Raises SpeakerError for a speaker that is not
        known or not active, SynthesisError for text that cannot be spoken."""
        name = self._name(speaker)
        return self._synthesizer(name).speak(text, self.voices[name], generator).wav

    def stream(
        self, text: str, speaker: str | None = None, generator: torch.Generator | None = None
    ) -> Iterator[np.ndarray]:
        """The same in pieces, while they are made."""
        name = self._name(speaker)
        return self._synthesizer(name).stream(text, self.voices[name], generator)

    def _name(self, speaker: str | None) -> str:
        name = self.config.default_speaker if speaker is None else speaker
        offered = ", ".join(self.names)
        if name not in self.config.speakers:
            raise SpeakerError(f"speaker {name!r} is not in {self.config.path}; it has {offered}")
        if name not in self.voices:
            raise SpeakerError(
                f"speaker {name!r} is not active in {self.config.path}; set active to true there, or take one "
                f"of {offered}"
            )
        return name

    def _synthesizer(self, name: str) -> Synthesizer:
        with self._opening:
            if name not in self._opened:
                while len(self._opened) >= self.kept:
                    self._opened.popitem(last=False)
                llm, flow, _ = (self.config.file(name, field) for field in PATHS)
                self._opened[name] = Synthesizer.open(
                    self.base, llm=llm, flow=flow, device=self.device, sampling=self.sampling
                )
            self._opened.move_to_end(name)
            return self._opened[name]


def _base_problems(folder: Path, sizes: Sizes) -> list[str]:
    problems: list[str] = []
    attempt(problems, lambda: tokenizer_path(folder))
    if (hift := sizes.hift) is not None:
        attempt(problems, lambda: check_weights(HiftGenerator, hift, folder / "hift.pt"))
    return problems


def _weight_problems(config: SpeakerConfig, name: str, sizes: Sizes) -> list[str]:
    problems: list[str] = []
    llm, flow, _ = (config.file(name, field) for field in PATHS)
    attempt(problems, lambda: check_weights(SpeechLanguageModel, sizes.llm, llm))
    attempt(problems, lambda: check_weights(TokenToMel, sizes.flow, flow))
    return [f"speakers.{name}: {problem}" for problem in problems]


def _add_voice(config: SpeakerConfig, name: str, sizes: Sizes, voices: dict[str, Voice], problems: list[str]) -> None:
    path, width = config.file(name, "spk_embedding_path"), sizes.flow.spk_embed_dim
    try:
        embeddings = read_embeddings(path)
    except ValueError as error:
        problems.append(str(error))
        return
    if name not in embeddings:
        problems.append(f"{path}: no embedding of {name!r}; it has {', '.join(embeddings) or 'none'}")
    elif len(embeddings[name]) != width:
        problems.append(f"{path}: the embedding of {name!r} has {len(embeddings[name])} values, the flow reads {width}")
    else:
        voices[name] = Voice(embeddings[name])
