"""The symbols that MeloTTS reads: phones of every language, tones, languages.

The ids of a model are places in its table, so a table belongs to the checkpoint and is saved with it. `MELOTTS` is the
published one, 219 names in their published order. `SYMBOLS`, ours, begins with it, so every public row keeps its place,
and adds the twenty Korean finals that a text decomposed directly into jamo has and a text in spoken form has not.

Source: myshell-ai/MeloTTS, melo/text/symbols.py (names, order, tones and languages at commit 2091453).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

PAD = "_"  # at both ends of a sentence, and the blank between phones
PUNCTUATION = ("!", "?", "…", ",", ".", "'", "-")

_CHINESE = (
    "E En a ai an ang ao b c ch d e ei en eng er f g h i i0 ia ian iang iao ie in ing iong ir iu j k l m n o ong ou p "
    "q r s sh t u ua uai uan uang ui un uo v van ve vn w x y z zh AA EE OO"
)
_JAPANESE = "N a a: b by ch d dy e e: f g gy h hy i i: j k ky m my n ny o o: p py q r ry s sh t ts ty u u: w y z zy"
_ENGLISH = "aa ae ah ao aw ay b ch d dh eh er ey f g hh ih iy jh k l m n ng ow oy p r s sh t th uh uw V w y z zh"
_KOREAN = "ᄀ ᄁ ᄂ ᄃ ᄄ ᄅ ᄆ ᄇ ᄈ ᄉ ᄊ ᄋ ᄌ ᄍ ᄎ ᄏ ᄐ ᄑ ᄒ ᅡ ᅢ ᅣ ᅤ ᅥ ᅦ ᅧ ᅨ ᅩ ᅪ ᅫ ᅬ ᅭ ᅮ ᅯ ᅰ ᅱ ᅲ ᅳ ᅴ ᅵ ᆨ ᆫ ᆮ ᆯ ᆷ ᆸ ᆼ ㄸ ( ) * / : [ \\ ] ^ ~"
# Spanish, French, German and Russian: never written here, but they shape the order.
_OTHERS = 'Q v x ɑ æ ʃ ʑ ç ɯ ɪ ɔ ɛ ɹ ð ə ɫ ɥ ɸ ʊ ɾ ʒ θ β ŋ ɦ ɡ ɲ ʝ ɣ ʎ ˈ ˌ ː \u0303 œ ø ʁ ɒ ʌ ɜ ɐ ʏ \u0329 ɭ ʲ ɕ " ɵ ɬ'
_PHONES = sorted(set(f"{_CHINESE} {_JAPANESE} {_ENGLISH} {_KOREAN} {_OTHERS}".split()))

MELOTTS = (PAD, *_PHONES, *PUNCTUATION, "¿", "¡", "SP", "UNK")
SPOKEN_FINAL = {  # how the other Korean finals are spoken at the end of a word
    **dict.fromkeys("ᆩᆪᆰᆿ", "ᆨ"),
    **dict.fromkeys("ᆬᆭ", "ᆫ"),
    **dict.fromkeys("ᆺᆻᆽᆾᇀᇂ", "ᆮ"),
    **dict.fromkeys("ᆲᆳᆴᆶ", "ᆯ"),
    **dict.fromkeys("ᆱ", "ᆷ"),
    **dict.fromkeys("ᆵᆹᇁ", "ᆸ"),
}
OTHER_FINALS = tuple(sorted(SPOKEN_FINAL))

LANGUAGE_IDS = {"zh": 0, "ja": 1, "en": 2, "ko": 4}
FIRST_TONES = {"zh": 0, "ja": 6, "en": 7, "ko": 11}
TONES = {"zh": 6, "ja": 1, "en": 4, "ko": 1}  # how many each language has, 0 for "none" included
NUM_LANGUAGES, NUM_TONES = 8, 16  # rows of the published embeddings


class UnknownSymbolError(ValueError):
    """A sentence holds what cannot be said; the message has the sentence, and each symbol with its place."""


@dataclass(frozen=True)
class Symbols:
    """The table of one checkpoint."""

    names: tuple[str, ...]

    def __post_init__(self) -> None:
        repeated = sorted({name for name in self.names if self.names.count(name) > 1})
        if repeated or not self.names or self.names[0] != PAD:
            first = self.names[0] if self.names else "nothing"
            raise ValueError(
                f"a symbol table begins with {PAD!r} and has every name once; found {first!r} first, "
                f"repeated {repeated[:5]}; take the list `symbols` of the checkpoint's config.json"
            )

    def __len__(self) -> int:
        return len(self.names)

    def __contains__(self, name: object) -> bool:
        return name in self._places

    @cached_property
    def _places(self) -> dict[str, int]:
        return {name: place for place, name in enumerate(self.names)}

    @property
    def has_all_finals(self) -> bool:
        """Whether Korean can be written as it is spelled; otherwise its finals are reduced to the seven spoken ones."""
        return all(final in self for final in OTHER_FINALS)

    def ids(self, phones: Sequence[str], text: str) -> np.ndarray:
        """(phones,) names -> (phones,) int64. Raises UnknownSymbolError, quoting `text`, for names not in the table."""
        missing = sorted({name for name in phones if name not in self})
        if missing:
            raise UnknownSymbolError(
                f"{text!r}: the phones {missing} are not in the checkpoint's table of {len(self)} symbols; "
                "train with the table `SYMBOLS`, or leave these sentences out"
            )
        return np.array([self._places[name] for name in phones], dtype=np.int64)

    def rows_in(self, older: Symbols) -> np.ndarray:
        """(len(self),) int64: the row of `older` that each symbol continues, -1 for a new one. A new Korean final
        continues the spoken one: an embedding that grows starts where the sound is."""
        names = (name if name in older else SPOKEN_FINAL.get(name, name) for name in self.names)
        return np.array([older._places.get(name, -1) for name in names], dtype=np.int64)


def tone_ids(tones: Sequence[int], languages: Sequence[str]) -> np.ndarray:
    """(phones,) tones within their language -> (phones,) int64 rows of the tone embedding."""
    return np.array([FIRST_TONES[name] + tone for tone, name in zip(tones, languages, strict=True)], dtype=np.int64)


def language_ids(languages: Iterable[str]) -> np.ndarray:
    """(phones,) languages -> (phones,) int64 rows of the language embedding."""
    return np.array([LANGUAGE_IDS[name] for name in languages], dtype=np.int64)


SYMBOLS = Symbols((*MELOTTS, *OTHER_FINALS))
