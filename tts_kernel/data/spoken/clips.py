"""The clips of a list that a model can learn from, and what became of the others.

    wavs/a.wav|text|SPEAKER_001|KR     (the language may be left out: it is detected)

A line that is wrong stops everything, all of them in one error; a recording that is of no use is left out, counted with
its reason. Source: the practitioners' guide; the reader of the list is data/corpora/melotts.py.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from tts_kernel.data.corpora.melotts import read_melotts
from tts_kernel.data.corpora.table import CorpusError
from tts_kernel.data.features import FeatureError
from tts_kernel.data.spoken.sounds import RATE, Sound, digest_of, measure, waveform
from tts_kernel.data.spoken.store import SpokenStore

HOP = 512  # samples of a frame
SILENCE = 1e-3  # peak below which nothing is said: -60 dB
CODES = ("KR", "EN", "ZH", "JP")
_SHOWN = 40  # bad lines in an error


@dataclass(frozen=True)
class Clips:
    """Usable clips as columns."""

    source: Path  # the list
    ids: list[str]
    paths: list[Path]
    speakers: list[str]
    sentences: list[str]  # names in the store
    digests: list[str]  # of the waveforms
    tokens: np.ndarray  # (clips,) phones with blanks
    frames: np.ndarray  # (clips,) of 512 samples at 44.1 kHz
    dropped: dict[str, int]  # reason -> clips
    resampled: int = 0  # of those that are used, from another rate than 44.1 kHz
    mixed_down: int = 0  # from more than one channel

    def __len__(self) -> int:
        return len(self.ids)

    def wave(self, row: int) -> np.ndarray:
        """(frames * HOP,) float32 of one clip at 44.1 kHz. Raises FeatureError for a recording that cannot be read any
        more, or is another one than was measured."""
        path = self.paths[row]
        try:
            wave = waveform(path)
        except (OSError, ValueError) as error:
            raise FeatureError(f"{error}; it could be read when the run began") from error
        if digest_of(wave) != self.digests[row]:
            raise FeatureError(
                f"{path}: {len(wave):,} samples at 44.1 kHz that are not those of when the run began; start again"
            )
        return wave[: int(self.frames[row]) * HOP]

    def __str__(self) -> str:
        hours = float(self.frames.sum()) * HOP / RATE / 3600
        lines = [f"{self.source.name}: {len(self):,} clips, {hours:.2f} h, {len(set(self.speakers)):,} speakers"]
        lines += [f"{count:,} clips left out: {reason}" for reason, count in sorted(self.dropped.items())]
        if self.resampled:
            lines.append(f"{self.resampled:,} clips resampled to {RATE / 1000:g} kHz")
        if self.mixed_down:
            lines.append(f"{self.mixed_down:,} clips mixed down to one channel")
        return "\n".join(lines)


def read_clips(path: Path, store: SpokenStore, *, segment_frames: int, progress: bool = True) -> Clips:
    """Read a list, or `metadata.list` of a folder; fill the store with its sentences, measure its recordings.
    Raises CorpusError naming every line that has missing or extra fields, no text, a language that is unknown, nothing
    to say or what nobody can say, and every recording that is missing or cannot be read; also if nothing is left."""
    path = Path(path)
    imported = read_melotts(path)
    table, account = imported.utterances.table, imported.account
    problems = [line for drop in account.drops.values() for line in _examples(drop.count, drop.examples)]
    names = ("id", "audio", "text", "speaker", "language")
    ids, audio, texts, speakers, languages = (table.column(name).to_pylist() for name in names)
    problems += [f"{name}: no speaker, expected a name" for name, who in zip(audio, speakers, strict=True) if not who]
    problems += [
        f"{name}: {who!r} stands where the speaker does; expected audio|text|speaker|language. For a speaker who is "
        "called so name the language, too"
        for name, who, code in zip(audio, speakers, languages, strict=True)
        if not code and who in CODES
    ]
    sentences = list(zip(texts, languages, strict=True))
    refused = store.fill(sentences, progress=progress)
    problems += [f"{name}: {refused[said]}" for name, said in zip(audio, sentences, strict=True) if said in refused]
    sounds = measure(imported.utterances.paths(), store.folder / "recordings.json", progress=progress)
    problems += [sound for sound in sounds if isinstance(sound, str)]
    if problems:
        shown = [*problems[:_SHOWN], *([f"... and {len(problems) - _SHOWN:,} more"] if problems[_SHOWN:] else [])]
        raise CorpusError("\n  ".join([f"{path}: {len(problems):,} lines cannot be used:", *shown]))
    clips = Clips(
        path,
        ids,
        imported.utterances.paths(),
        speakers,
        [store.name(*said) for said in sentences],
        [sound.digest for sound in sounds if isinstance(sound, Sound)],
        store.lengths([store.name(*said) for said in sentences]),
        np.array([_samples(sound) // HOP for sound in sounds], dtype=np.int64),
        {},
    )
    return _usable(clips, [sound for sound in sounds if isinstance(sound, Sound)], segment_frames)


def _usable(clips: Clips, sounds: list[Sound], segment_frames: int) -> Clips:
    """Without those that no alignment or segment could be made of."""
    shortest = f"shorter than a segment of {segment_frames * HOP / RATE:.2f} s"
    reasons = [
        "silence only"
        if sound.peak < SILENCE
        else shortest
        if frames < segment_frames
        else "more tokens than frames"
        if tokens > frames
        else ""
        for sound, frames, tokens in zip(sounds, clips.frames, clips.tokens, strict=True)
    ]
    keep = [number for number, reason in enumerate(reasons) if not reason]
    dropped = dict(Counter(filter(None, reasons)))
    if not keep:
        raise CorpusError(
            f"{clips.source}: no clip is left of {len(clips):,} ({dropped}); lower segment_size, or bring longer clips"
        )
    names = ("ids", "paths", "speakers", "sentences", "digests")
    columns: dict[str, Any] = {name: [getattr(clips, name)[number] for number in keep] for name in names}
    return replace(
        clips,
        **columns,
        tokens=clips.tokens[keep],
        frames=clips.frames[keep],
        dropped=dropped,
        resampled=sum(sounds[number].rate != RATE for number in keep),
        mixed_down=sum(sounds[number].channels > 1 for number in keep),
    )


def _samples(sound: Sound | str) -> int:
    assert isinstance(sound, Sound)
    return sound.samples


def _examples(count: int, examples: list[str]) -> list[str]:
    more = count - len(examples)
    return [*examples, *([f"and {more:,} more like the last"] if more else [])]
