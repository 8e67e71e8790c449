"""How an English word is said: the CMU Pronouncing Dictionary, and for other words a guess from their letters.

The dictionary and the model for unknown words come with the package gruut-lang-en (MIT; the CMU dictionary, 124,000
words, in IPA, and a conditional random field trained on it). A word with several pronunciations (read, record) is said
in the role that it has in its sentence (`english_tags`), else in the first way. A word that is not there is tried in
this order:

    capitals, or no vowel     spelled: "HTML" aitch tee em el
    'S at its end             the word, and s, z or iz
    a capital inside          its parts: "TensorFlow" tensor, flow
    two words of the dictionary in one, each of four letters or more: "workbench"
    anything else             the random field
"""

from __future__ import annotations

import base64
import functools
import re
import sqlite3
from typing import Any

Spoken = tuple[tuple[str, ...], tuple[int, ...]]  # phones, tones; the tone of a vowel is 1 plus its stress (0, 1, 2)

_CONSONANTS = {
    "b": "b", "t͡ʃ": "ch", "d": "d", "ð": "dh", "f": "f", "ɡ": "g", "h": "hh", "d͡ʒ": "jh", "k": "k", "l": "l", "m": "m",
    "n": "n", "ŋ": "ng", "p": "p", "ɹ": "r", "s": "s", "ʃ": "sh", "t": "t", "θ": "th", "v": "V", "w": "w", "j": "y",
    "z": "z", "ʒ": "zh",
}  # fmt: skip
_VOWELS = {
    "ɑ": "aa", "æ": "ae", "ə": "ah", "ʌ": "ah", "ɔ": "ao", "aʊ": "aw", "aɪ": "ay", "ɛ": "eh", "ɚ": "er", "eɪ": "ey",
    "ɪ": "ih", "i": "iy", "oʊ": "ow", "ɔɪ": "oy", "ʊ": "uh", "u": "uw",
}  # fmt: skip
_STRESS = {"ˈ": 2, "ˌ": 3}
_NAMES = (
    "ˈeɪ|b ˈi|s ˈi|d ˈi|ˈi|ˈɛ f|d͡ʒ ˈi|ˈeɪ t͡ʃ|ˈaɪ|d͡ʒ ˈeɪ|k ˈeɪ|ˈɛ l|ˈɛ m|ˈɛ n|ˈoʊ|p ˈi|k j ˈu|ˈɑ ɹ|ˈɛ s|t ˈi|j ˈu|v ˈi|"
    "d ˈʌ b ə l j u|ˈɛ k s|w ˈaɪ|z ˈi"
)
_LETTERS = dict(zip("abcdefghijklmnopqrstuvwxyz", _NAMES.split("|"), strict=True))
_ABBREVIATIONS = "AI AM API AR BA CD CEO CO CPU DJ DVD EU FBI GPU HR ID IP IT LA MA OS PC PM PR TV UK UN US USA VR WHO"
_SPELLED = frozenset(_ABBREVIATIONS.split())  # although the dictionary has them, or words like them
_ACRONYMS = ("ASEAN", "COVID", "FIFA", "MERS", "NAFTA", "NATO", "OPEC", "SARS", "UNESCO", "UNICEF")  # said as words
_OWN = {"polish": "p ˈɑ l ɪ ʃ", "used": "j ˈu z d", "Used": "j ˈu z d"}  # as they are written: Polish is another word
_SIBILANTS = ("s", "z", "sh", "zh", "ch", "jh")
_VOICELESS = ("p", "t", "k", "f", "th")


def is_word(word: str) -> bool:
    """Whether the dictionary has it as a word, so that capitals need not be spelled."""
    return word in _ACRONYMS or (word not in _SPELLED and word.lower() in _dictionary())


def has_roles(word: str) -> bool:
    """Whether it is said in one way as a verb and in another as a noun, or the like."""
    return word.lower() in _by_role()


@functools.lru_cache(maxsize=50_000)
def say_word(word: str, roles: tuple[str, ...] = ()) -> Spoken:
    """Letters A to Z and apostrophes -> phones and tones; `roles` as `english_tags.roles` gives them."""
    plain = word.replace("'", "")
    own = _by_role().get(word.lower(), {})
    if word not in _SPELLED and (role := next((role for role in roles if role in own), None)):
        return _spoken(own[role])
    if word in _OWN:
        return _spoken(_OWN[word])
    if word in _SPELLED or (len(plain) == 1 and plain not in "aAI"):
        return spell(plain)
    known = _dictionary().get(word.lower()) or _dictionary().get(plain.lower())
    if known is not None:
        return _spoken(known)
    if word.lower().endswith(("'s", "s'")):
        stem = say_word(re.sub("'[sS]$|[sS]'$", "", word))
        return stem if word.endswith("'") and stem[0][-1] in ("s", "z") else _joined([stem, _ending(stem[0][-1])])
    if (plain.isupper() and word not in _ACRONYMS) or not re.search("[aeiouy]", plain.lower()):
        return spell(plain)
    parts = re.findall("[A-Z]+(?![a-z])|[A-Z]?[a-z]+", plain)
    if len(parts) > 1:
        return _joined([say_word(part) for part in parts])
    halves = _halves(plain.lower())
    return _joined([say_word(half) for half in halves]) if halves else _guess(plain.lower())


def spell(letters: str) -> Spoken:
    """By the names of its letters."""
    return _joined([_spoken(_LETTERS[letter]) for letter in letters.lower()])


def _halves(word: str) -> tuple[str, str] | None:
    """The two words that it is made of, the first as long as possible."""
    for cut in range(len(word) - 4, 3, -1):
        if word[:cut] in _dictionary() and word[cut:] in _dictionary():
            return word[:cut], word[cut:]
    return None


def _ending(last: str) -> Spoken:
    if last in _SIBILANTS:
        return ("ih", "z"), (1, 0)
    return (("s",) if last in _VOICELESS else ("z",)), (0,)


def _guess(word: str) -> Spoken:
    """By the conditional random field, whose features are the letters around each letter.
    Source: rhasspy/gruut, gruut/g2p.py (names of the features)."""
    encoded = [base64.b64encode(letter.encode()).decode() for letter in word]
    items: list[dict[str, str | bool | float]] = []
    for place in range(len(word)):
        features: dict[str, str | bool | float] = {"bias": 1.0, "grapheme": encoded[place]}
        for distance in (1, 2, 3):
            if place >= distance:
                features[f"grapheme-{distance}"] = encoded[place - distance]
            if place + distance < len(word):
                features[f"grapheme+{distance}"] = encoded[place + distance]
        if place == 0:
            features["begin"] = True
        if place == len(word) - 1:
            features["end"] = True
        items.append(features)
    labels = (base64.b64decode(label).decode() for label in _random_field().tag(items))
    phones = " ".join(phone for label in labels for phone in label.split("|") if phone != "_")
    return _spoken(phones) if phones else spell(word)


def _spoken(ipa: str) -> Spoken:
    phones: list[str] = []
    tones: list[int] = []
    for symbol in ipa.split():
        stress, sound = (_STRESS[symbol[0]], symbol[1:]) if symbol[0] in _STRESS else (1, symbol)
        phones.append(_VOWELS.get(sound) or _CONSONANTS[sound])
        tones.append(stress if sound in _VOWELS else 0)
    return tuple(phones), tuple(tones)


def _joined(parts: list[Spoken]) -> Spoken:
    return tuple(phone for phones, _ in parts for phone in phones), tuple(tone for _, tones in parts for tone in tones)


@functools.cache
def _dictionary() -> dict[str, str]:
    """word -> its first pronunciation, IPA symbols with a space between."""
    return {word: ipa for word, ipa, _ in reversed(_lexicon())}


@functools.cache
def _by_role() -> dict[str, dict[str, str]]:
    """word -> role (VB, NN ...) -> pronunciation, of words whose roles are said differently. Of several ones for a role
    the word's first is taken where it is among them, else the first of them."""
    found: dict[str, dict[str, str]] = {}
    for word, ipa, role in _lexicon():
        if role in ("VB", "VBD", "NN", "JJ", "RB"):
            own = found.setdefault(word, {})
            if role not in own or ipa == _dictionary()[word]:
                own[role] = ipa
    return {word: own for word, own in found.items() if len(set(own.values())) > 1}


@functools.cache
def _lexicon() -> list[tuple[str, str, str]]:
    """(word, pronunciation, role or nothing), the first pronunciation of a word before its others."""
    import gruut_lang_en

    with sqlite3.connect(
        f"file:{gruut_lang_en.get_lang_dir() / 'lexicon.db'}?mode=ro&immutable=1", uri=True
    ) as lexicon:
        rows = lexicon.execute("SELECT word, phonemes, role FROM word_phonemes ORDER BY pron_order")
        return [(word, ipa, role.removeprefix("gruut:")) for word, ipa, role in rows]


@functools.cache
def _random_field() -> Any:
    import gruut_lang_en
    import pycrfsuite

    tagger = pycrfsuite.Tagger()
    tagger.open(str(gruut_lang_en.get_lang_dir() / "g2p" / "model.crf"))
    return tagger
