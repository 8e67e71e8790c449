"""What the texts tell: empty, dirty, in another language than claimed, unknown to the tokenizer, repeated, or too long
or short for their sound."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tts_kernel.data.audit.findings import Finding, in_clips
from tts_kernel.data.audit.rows import SPREAD, TEXT, Rows
from tts_kernel.data.audit.settings import AuditSettings
from tts_kernel.data.string_keys import string_keys
from tts_kernel.text.language import CONTROL, canonical, count_classes, fits, languages_of, letters
from tts_kernel.text.tokenizer import TextTokenizer

SHORT_TEXT = 8  # letters: shorter texts, such as "yes", are naturally said again
ENOUGH = 20  # clips of a language from which its median tempo means something
SHOWN = 60  # characters of a text in a finding


@dataclass(frozen=True)
class Texts:
    """The texts of some clips, in ascending order of the clips' numbers."""

    clips: np.ndarray  # (texts,) numbers
    texts: pa.ChunkedArray
    source: str  # where they come from, in words
    sampled: bool
    counts: np.ndarray = field(repr=False)  # (texts, classes) of text.language

    @property
    def letters(self) -> np.ndarray:
        return letters(self.counts)

    def shown(self, members: np.ndarray) -> list[str]:
        """Shortened and quoted, so that control characters can be seen."""
        texts = self.texts.take(pa.array(members)).to_pylist()
        return [repr(text if len(text) <= SHOWN else f"{text[:SHOWN]}...") for text in texts]


def of_column(rows: Rows) -> Texts | None:
    """The texts that the manifests themselves hold; None if they have no field `text`."""
    if "text" not in rows:
        return None
    filled = rows.has("text")[rows.first]
    clips = np.flatnonzero(filled)
    texts = rows.texts("text", rows.first[clips])
    return Texts(clips, texts, "the field text", sampled=False, counts=count_classes(texts))


def decoded(clips: np.ndarray, ids: Sequence[list[int]], tokenizer: TextTokenizer, sampled: bool) -> Texts:
    """The texts of these clips from their token ids."""
    texts = pa.chunked_array([pa.array([_decode(tokenizer, each) for each in ids], TEXT)])
    return Texts(clips, texts, "the token ids", sampled, count_classes(texts))


def _decode(tokenizer: TextTokenizer, ids: list[int]) -> str:
    known = [item for item in ids if 0 <= item < tokenizer.vocab_size]  # others are a finding of the features
    return tokenizer.decode(known)


def check_texts(rows: Rows, texts: Texts) -> list[Finding]:
    """Empty, dirty, repeated, or in another script than the language field says."""
    total, sampled = len(texts.clips), texts.sampled
    names, language = rows.categories("language")
    language = language[rows.first[texts.clips]]  # (texts,)
    claimed = np.array([*map(canonical, names), ""])[language]

    def shown(members: np.ndarray) -> Iterable[str]:
        return texts.shown(np.searchsorted(texts.clips, members))

    def scripts(members: np.ndarray) -> Iterable[str]:
        places = np.searchsorted(texts.clips, members)
        for place, text in zip(places, texts.shown(places), strict=True):
            yield f"{claimed[place]} claimed, {languages_of(texts.counts[place : place + 1])[0]} written: {text}"

    def members(where: np.ndarray) -> np.ndarray:
        return texts.clips[where]

    empty = texts.letters == 0
    findings = in_clips("text_empty", rows, members(empty), total, shown, sampled=sampled)
    findings += in_clips("text_control", rows, members(texts.counts[:, CONTROL] > 0), total, shown, sampled=sampled)
    wrong = ~fits(claimed, texts.counts)
    findings += in_clips("text_language", rows, members(wrong), total, scripts, sampled=sampled)
    findings += in_clips("text_repeated", rows, members(_repeated(rows, texts)), total, shown, sampled=sampled)
    return findings


def check_language_field(rows: Rows) -> list[Finding]:
    """Clips without a language, where the manifest has the field at all."""
    if "language" not in rows:
        return []
    names, language = rows.categories("language")
    blank = np.array([not name.strip() for name in names] + [True])
    return in_clips("text_no_language", rows, np.flatnonzero(blank[language[rows.first]]), len(rows.clips))


def _repeated(rows: Rows, texts: Texts) -> np.ndarray:
    """(texts,) bool: said before by the same speaker in the same style."""
    keys = string_keys(pc.utf8_trim_whitespace(texts.texts))
    for name in ("speaker", "style"):
        keys = (keys ^ (rows.categories(name)[1][rows.first[texts.clips]] + 1).astype(np.uint64)) * SPREAD
    order = np.argsort(keys, kind="stable")  # so the first clip of each text stays out
    again = np.zeros(len(order), dtype=bool)
    again[order[1:][keys[order[1:]] == keys[order[:-1]]]] = True
    return again & (texts.letters >= SHORT_TEXT)


@dataclass(frozen=True)
class Tempo:
    """How much text there is per second of sound, for some clips."""

    clips: np.ndarray  # (clips,) numbers
    rate: np.ndarray  # (clips,) letters, or tokens, per second
    unit: str


def tempo_of_texts(texts: Texts, seconds: np.ndarray) -> Tempo:
    """`seconds`: (all clips,), NaN where unknown. Clips without letters have no tempo."""
    known = (texts.letters > 0) & (seconds[texts.clips] > 0)
    clips = texts.clips[known]
    return Tempo(clips, texts.letters[known] / seconds[clips], "letters")


def tempo_of_tokens(rows: Rows, seconds: np.ndarray) -> Tempo:
    """The same from the manifests' token counts, for corpora whose texts are not at hand."""
    tokens = rows.numbers("target_text_len")[rows.first]
    clips = np.flatnonzero(seconds > 0)
    return Tempo(clips, tokens[clips] / seconds[clips], "tokens")


def check_tempo(rows: Rows, tempo: Tempo, settings: AuditSettings, *, sampled: bool) -> list[Finding]:
    """Clips far from their language's median tempo, or outside the absolute limits."""
    median = np.full(len(tempo.clips), np.nan)
    for places in by_language(rows, tempo.clips).values():
        if len(places) >= ENOUGH:
            median[places] = np.median(tempo.rate[places])
    odd = (tempo.rate > settings.tempo_factor * median) | (tempo.rate < median / settings.tempo_factor)
    if tempo.unit == "letters":
        odd |= (tempo.rate < settings.min_chars_per_second) | (tempo.rate > settings.max_chars_per_second)

    def what(members: np.ndarray) -> Iterable[str]:
        for place in np.searchsorted(tempo.clips, members):
            usual = f", usual {median[place]:.1f}" if np.isfinite(median[place]) else ""
            yield f"{tempo.rate[place]:.1f} {tempo.unit} per second{usual}"

    return in_clips("text_tempo", rows, tempo.clips[odd], len(tempo.clips), what, sampled=sampled)


def by_language(rows: Rows, clips: np.ndarray) -> dict[str, np.ndarray]:
    """Name of a language -> the places in `clips` (numbers of clips) that have it; "" for those without."""
    names, language = rows.categories("language")
    language = language[rows.first[clips]]
    return {
        (names[number] if number >= 0 else ""): np.flatnonzero(language == number) for number in np.unique(language)
    }
