"""MeloTTS speaks: Korean, English, Chinese or Japanese text -> waveform, in the voice of any speaker it has learned.

    tts = TTS("checkpoints", "config.json", "cuda")
    speech = tts.synthesize("안녕하세요. Nice to meet you!", "SPEAKER_001", "hello.wav", speed=1.1, seed=1)
    speech.wav, speech.sample_rate, speech.real_time_factor

How a text is read does not depend on the speaker: one who was recorded in one language speaks all of them.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch

from tts_kernel.audio import wav as audio
from tts_kernel.models.melotts.synthesizer import Speech as Spoken
from tts_kernel.models.melotts.text_encoder import Text
from tts_kernel.synthesis.melotts_encoder import find_encoder
from tts_kernel.synthesis.melotts_generator import find_generator, open_generator
from tts_kernel.synthesis.speech import PAUSE, Speech, SynthesisError, fade, open_device
from tts_kernel.text.bge_m3 import BGEM3, EncoderError
from tts_kernel.text.language import LANGUAGES, OTHER, canonical, detect
from tts_kernel.text.phones import Phones, TextError, to_ids, to_phones
from tts_kernel.text.pieces import MARKS, clean
from tts_kernel.text.sentences import split_sentences
from tts_kernel.text.symbols import Symbols, UnknownSymbolError

log = logging.getLogger(__name__)


class TTS:
    """A generator, and the text encoder whose features it reads."""

    def __init__(
        self,
        model_path: Path | str,
        config_path: Path | str,
        device: torch.device | str = "auto",
        *,
        bert: Path | str | None = None,
    ) -> None:
        """`model_path` is a G_*.pth, a folder of them, or a run's folder; `config_path` the config.json of the same
        training, public or ours; `bert` the folder of BGE-M3, or nothing where `find_encoder` finds it. A public model,
        trained with other text encoders, needs none and speaks without their features; what else was converted is in
        `generator.report`.
        Raises ConfigError, CheckpointError, EncoderError or SynthesisError for what is missing, damaged, or does not
        belong together."""
        self.device = open_device(device)
        self.config_path = Path(config_path)
        checkpoint = find_generator(Path(model_path))
        self.generator = open_generator(checkpoint, self.config_path)
        self.generator.model.to(self.device)
        self.encoder = None
        if self.generator.reads_features:
            self.encoder = self._open_encoder(bert or find_encoder(checkpoint, self.config_path))

    def synthesize(
        self,
        text: str,
        speaker_id: str | int,
        output_path: Path | str | None = None,
        speed: float = 1.0,
        sdp_ratio: float = 0.2,
        noise_scale: float = 0.6,
        noise_scale_w: float = 0.8,
        seed: int | None = None,
        language: str | None = None,
    ) -> Speech:
        """`text` in the voice of a speaker, given by name or number; with `output_path` in a wav file, too. Each
        sentence is read in the language that its script shows, or in `language`; other scripts in it keep theirs.
        `speed` 2 takes half the time. `noise_scale` varies the voice, `noise_scale_w` the sampled part `sdp_ratio` of
        the rhythm. The same seed gives the same waveform; without one it is drawn, and the result has it.
        Raises SynthesisError listing all that is wrong before anything is spoken, and for sound that is not finite or
        has no end."""
        started = time.perf_counter()
        output = None if output_path is None else Path(output_path)
        sentences, left_out, unsaid = self._read(text, language)
        problems = [
            *self._unknown_speaker(speaker_id),
            *_wrong_settings(speed, sdp_ratio, noise_scale, noise_scale_w, seed),
            *_wrong_output(output),
            *unsaid,
        ]
        if problems:
            raise SynthesisError("\n  ".join(problems if len(problems) == 1 else ["cannot be spoken:", *problems]))
        if left_out:
            log.warning("left out, for they have no sound: %s", " ".join(left_out))

        seed = int(torch.randint(2**62, ())) if seed is None else seed
        number = self.generator.speakers[speaker_id] if isinstance(speaker_id, str) else speaker_id
        infer = partial(
            self.generator.model.infer,
            speakers=torch.tensor([number], device=self.device),
            noise_scale=noise_scale,
            noise_scale_w=noise_scale_w,
            sdp_ratio=sdp_ratio,
            length_scale=1.0 / speed,
            generator=torch.Generator().manual_seed(seed),  # the CPU's: the same draws for every device
        )
        pause = np.zeros(round(PAUSE / speed * self.generator.sample_rate), dtype=np.float32)
        parts: list[np.ndarray] = []
        for said in sentences:
            parts += [pause] if parts else []
            parts.append(self._sound(said, infer))
        wav, took = np.concatenate(parts), time.perf_counter() - started
        rate = self.generator.sample_rate
        speech = Speech(wav, rate, took, seed=seed, sentences=tuple(sentences), left_out=tuple(left_out))
        if output:
            output.parent.mkdir(parents=True, exist_ok=True)
            audio.write(output, wav, speech.sample_rate)
        log.info("%.1f s of speech in %.1f s (real-time factor %.2f)", speech.seconds, took, speech.real_time_factor)
        return speech

    def _sound(self, said: Phones, infer: Callable[[Text], Spoken]) -> np.ndarray:
        """One sentence (samples,), its two ends faded."""
        try:
            spoken = infer(self._text(said))
        except ValueError as error:
            raise SynthesisError(f"{said.text!r:.80}: {error}") from error
        wav: np.ndarray = spoken.audio[0].float().cpu().numpy()
        if not np.isfinite(wav).all():
            raise SynthesisError(f"{said.text!r:.80}: the model made NaN or infinite sound; take an older checkpoint")
        return fade(wav, self.generator.sample_rate)

    def _text(self, said: Phones) -> Text:
        ids = to_ids(said, self.generator.symbols)
        phones, tones, languages = (torch.from_numpy(row)[None] for row in (ids.phones, ids.tones, ids.languages))
        if self.encoder is None:
            features = torch.zeros(1, self.generator.model.config.bert_channels, phones.shape[1])
        else:
            features = torch.from_numpy(self.encoder.of_phones(said))[None]
        return Text(phones, torch.tensor([phones.shape[1]]), tones, languages, features).to(self.device)

    def _read(self, text: str, language: str | None) -> tuple[list[Phones], list[str], list[str]]:
        """The sentences, the signs in them and between them that have no sound, and all that cannot be said."""
        if language and canonical(language) not in LANGUAGES:
            return [], [], [f"language is {language!r}, expected KR, EN, ZH or JP, or none to detect it"]
        main = detect(clean(text))
        sentences: list[Phones] = []
        left_out: list[str] = []
        problems: list[str] = []
        for sentence in split_sentences(text):
            if not any(letter.isalnum() for letter in sentence):
                left_out += [sign for sign in clean(sentence) if sign not in MARKS and not sign.isspace()]
                continue
            try:
                said = _phones(sentence, language or _language(sentence, main), self.generator.symbols)
                self._check(said)
            except (TextError, UnknownSymbolError, EncoderError) as error:
                problems.append(str(error))
                continue
            sentences.append(said)
            left_out += said.left_out
        if not sentences and not problems:
            problems.append(f"text {text!r:.80}: nothing to say in it; expected at least one letter or digit")
        return sentences, left_out, problems

    def _check(self, said: Phones) -> None:
        """Raise TextError, UnknownSymbolError or EncoderError for a sentence beyond what the models have rows for."""
        ids, config = to_ids(said, self.generator.symbols), self.generator.model.config
        if ids.tones.max() >= config.num_tones or ids.languages.max() >= config.num_languages:
            raise TextError(
                f"{said.text!r:.80}: has tone {ids.tones.max()} and language {ids.languages.max()}, the checkpoint has "
                f"{config.num_tones} tones and {config.num_languages} languages; it has not learned to say this"
            )
        if self.encoder is not None:
            self.encoder.tokens(said.text)

    def _unknown_speaker(self, speaker: str | int) -> list[str]:
        known = self.generator.speakers
        there = speaker in (known if isinstance(speaker, str) else self.generator.numbers)
        if there and not isinstance(speaker, (bool, float)):  # True and 2.0 are equal to numbers of speakers
            return []
        listed = ", ".join(f"{name!r} ({number})" for name, number in known.items())
        if not known:
            listed = (
                f"the numbers 0 to {self.generator.model.config.n_speakers - 1}, as {self.config_path} has no names"
            )
        return [f"speaker_id {speaker!r} is no speaker of the model; expected one of {listed}"]

    def _open_encoder(self, folder: Path | str | None) -> BGEM3:
        if folder is None:
            raise SynthesisError(
                "the model reads BGE-M3's features, and no folder bge-m3 lies beside it; pass bert, the folder of "
                "BAAI/bge-m3"
            )
        encoder, width = BGEM3(Path(folder), str(self.device)), self.generator.model.config.bert_channels
        if encoder.width != width:
            raise SynthesisError(
                f"{folder}: features are {encoder.width} wide, the model reads {width} (bert_channels); take the text "
                "encoder that it was trained with"
            )
        trained = self.generator.text_encoder
        if trained and encoder.identity != trained:
            raise SynthesisError(
                f"{folder}: another text encoder ({encoder.identity[:12]}) than the model was trained with "
                f"({trained[:12]}, text_encoder in config.json): its features mean something else; take that one"
            )
        encoder.of_text("a")  # opens the weights: whether they are whole is known now, and the first text is not slower
        return encoder


def _phones(sentence: str, language: str | None, symbols: Symbols) -> Phones:
    """As `to_phones`, without signs that have no sound. Raises TextError for letters that nobody knows how to say:
    without them it would be another sentence."""
    unread = {letter for letter in set(clean(sentence)) if detect(letter) == OTHER}
    if not unread:
        said = to_phones(sentence, language, symbols=symbols, unknown="leave out")
        unread = {letter for letter in said.left_out if letter.isalpha()}
    if unread:
        raise TextError(
            f"{sentence!r:.80}: cannot say {', '.join(map(repr, sorted(unread)))}; expected Korean, English, Chinese "
            "or Japanese text"
        )
    return said


def _language(sentence: str, main: str) -> str | None:
    """A sentence without letters, and one of Chinese characters in a Japanese text, is in the language of the text."""
    found = detect(clean(sentence))
    if not found or (found == "zh" and main == "ja"):
        found = main
    return found if found in LANGUAGES else None


def _wrong_settings(
    speed: float, sdp_ratio: float, noise_scale: float, noise_scale_w: float, seed: int | None
) -> list[str]:
    problems = []
    ranges = {
        "speed": (speed, "above 0", lambda value: 0 < value < math.inf),
        "sdp_ratio": (sdp_ratio, "0 to 1", lambda value: 0 <= value <= 1),
        "noise_scale": (noise_scale, "at least 0", lambda value: 0 <= value < math.inf),
        "noise_scale_w": (noise_scale_w, "at least 0", lambda value: 0 <= value < math.inf),
    }
    for name, (value, expected, fits) in ranges.items():
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not fits(value):
            problems.append(f"{name} is {value!r}, expected {expected}")
    if seed is not None and (isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < 2**63):
        problems.append(f"seed is {seed!r}, expected a whole number of at least 0, or None to draw one")
    return problems


def _wrong_output(path: Path | None) -> list[str]:
    if path is None:
        return []
    if path.suffix.lower() != ".wav" or path.is_dir():
        return [f"output_path is {path}, expected the name of a .wav file"]
    above = next((folder for folder in path.absolute().parents if folder.exists()), None)
    if above is not None and not above.is_dir():
        return [f"output_path is {path}, but {above} is a file; expected a folder there"]
    return []
