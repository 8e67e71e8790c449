"""Which part of speech an English word is in its sentence, for words that are said in two ways: close, live, record.

The tagger is the conditional random field that comes with gruut-lang-en (MIT).
"""

from __future__ import annotations

import base64
import functools
import string
from collections.abc import Sequence
from typing import Any

# What the dictionary calls a pronunciation's part of speech, by Penn Treebank tag
_ROLES = {
    "VB": ("VB", "VBP", "VBZ", "VBG", "MD"),
    "VBD": ("VBD", "VBN"),
    "NN": ("NN", "NNS", "NNP", "NNPS"),
    "JJ": ("JJ", "JJR", "JJS"),
    "RB": ("RB", "RBR", "RBS", "RP"),
}
_FALLBACK = {"VBD": "VB", "RB": "JJ"}  # where the dictionary does not tell the two apart
_SURE = 0.8  # probability of a role below which a word is said in its first way


def roles(words: Sequence[str], places: Sequence[int]) -> list[tuple[str, ...]]:
    """The roles in which the words at `places` of a sentence, marks included, may be said, best first; none where the
    tagger is not sure. Source: rhasspy/gruut, gruut/pos.py (names of the features)."""
    items: list[dict[str, object]] = []
    for place in range(len(words)):
        features = _features(words[place])
        for distance in (-2, -1, 1, 2):
            if 0 <= place + distance < len(words):
                features |= _features(words[place + distance], f"{distance:+d}:")
        if place == 0:
            features["BOS"] = True
        if place == len(words) - 1:
            features["EOS"] = True
        items.append(features)
    field = _random_field()
    field.set(items)
    return [_role(field, place) for place in places]


def _role(field: Any, place: int) -> tuple[str, ...]:
    sums = {role: sum(field.marginal(tag, place) for tag in tags) for role, tags in _ROLES.items()}
    best = max(sums, key=lambda role: sums[role])
    return (best, _FALLBACK.get(best, best)) if sums[best] >= _SURE else ()


def _features(word: str, prefix: str = "") -> dict[str, object]:
    return {
        f"{prefix}bias": 1.0,
        f"{prefix}word": base64.b64encode(word.encode()).decode(),
        f"{prefix}len(word)": len(word),
        f"{prefix}word[:2]": word[:2],
        f"{prefix}word[:3]": word[:3],
        f"{prefix}word[-2:]": word[-2:],
        f"{prefix}word[-3:]": word[-3:],
        f"{prefix}word.ispunctuation": word in string.punctuation,
        f"{prefix}word.isdigit()": word.isdigit(),
    }


@functools.cache
def _random_field() -> Any:
    import gruut_lang_en
    import pycrfsuite

    tagger = pycrfsuite.Tagger()
    tagger.open(str(gruut_lang_en.get_lang_dir() / "pos" / "model.crf"))
    return tagger
