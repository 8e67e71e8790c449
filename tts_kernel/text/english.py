"""English: numbers, abbreviations and signs in words, words in phones as they are said in their sentence."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import replace

from tts_kernel.text.english_numbers import MONTHS, cardinal, number, ordinal, plural, say
from tts_kernel.text.english_tags import roles
from tts_kernel.text.english_words import Spoken, has_roles, say_word, spell
from tts_kernel.text.expressions import rewrite
from tts_kernel.text.pieces import MARKS, Piece, mark_or_unknown
from tts_kernel.text.words import say_signs

ABBREVIATIONS = {
    "mr.": "mister", "mrs.": "missus", "ms.": "mizz", "dr.": "doctor", "prof.": "professor", "st.": "saint",
    "jr.": "junior", "sr.": "senior", "vs.": "versus", "etc.": "et cetera", "e.g.": "for example", "i.e.": "that is",
    "approx.": "approximately", "dept.": "department", "inc.": "incorporated", "ltd.": "limited", "co.": "company",
    "corp.": "corporation", "mt.": "mount", "ave.": "avenue", "blvd.": "boulevard", "gen.": "general",
    "capt.": "captain", "sgt.": "sergeant", "lt.": "lieutenant", "rev.": "reverend", "hon.": "honorable",
    "jan.": "January", "feb.": "February", "aug.": "August", "sept.": "September", "oct.": "October",
    "nov.": "November", "dec.": "December", "ph.d.": "P H D", "vol.": "volume", "fig.": "figure", "pp.": "pages",
}  # fmt: skip
_ABBREVIATED = re.compile(
    rf"(?<![\w.])(?:{'|'.join(re.escape(short) for short in sorted(ABBREVIATIONS, key=len, reverse=True))})(?!\w)", re.I
)
_DOTTED = re.compile(r"(?<![\w.])(?:[A-Za-z]\.){2,}")  # U.S., p.m.
_TITLED = re.compile(r"\b(Mr|Mrs|Ms|Dr|St|Prof)(?= [A-Z])")  # without the full stop
_STREETS = {"St": "Street", "Dr": "Drive", "Rd": "Road"}
_STREET = re.compile(r"\b([A-Z][a-z]+|\d+(?:st|nd|rd|th)) (St|Dr|Rd)\.(?! [A-Z])")
_MONTH = "|".join([*MONTHS, *(rf"{month[:3]}\b\.?" for month in MONTHS), r"Sept\b\.?"])
_MONTH_DAY = re.compile(rf"\b({_MONTH}) (\d{{1,2}})(?:st|nd|rd|th)?(?![\d:/.%,-]?\d)")
_DAY_MONTH = re.compile(rf"\b(\d{{1,2}}) ({_MONTH})(?= [12]\d{{3}}\b)")
_HOUR = re.compile(r"(?<![\d.:])(\d{1,2})(?::([0-5]\d))? ?([aApP])(?:\.[mM]\.|[mM]\b)")
_PLURAL = re.compile(r"(?:(?<![\w.])')?(?<![\w.,])(\d+)'?s\b")  # 1980s, '90s
_FEET = re.compile(r"(?<![\w.])(\d{1,2})'(\d{1,2})\"")
_ROMAN = re.compile(r"\b([A-Z][a-z]+) (?=[IVX]{2})(X{0,3})(IX|IV|V?I{0,3})\b")
_NAMES = """
Alexander Benedict Catherine Charles Edward Elizabeth Francis Frederick George Gregory Henry James John Leo Louis Mary
Napoleon Nicholas Paul Peter Philip Pius Richard Victoria William
"""
_RULERS = frozenset(_NAMES.split())  # whose numbers are ordinals
_ADDRESS = re.compile(
    r"[\w.-]+@[\w-]+(?:\.[\w-]+)+|\b(?:https?://|www\.)\S+\w|\b[\w-]+\.(?:com|net|org|io|co|kr|jp|cn)\b"
)
_GLUED = re.compile(r"\d+(?:\.\d+)*")
_WORDS = re.compile(r"[A-Za-z]+(?:'[A-Za-z]+)*'?|.", re.DOTALL)
_UNACCENTED = {"ß": "ss", "æ": "ae", "Æ": "Ae", "ø": "o", "Ø": "O", "œ": "oe", "Œ": "Oe", "đ": "d", "ł": "l", "Ł": "L"}
_UNACCENTED |= {"ð": "th", "þ": "th", "ı": "i"}
_PLAIN = str.maketrans(_UNACCENTED)
_VOWELS = ("aa", "ae", "ah", "ao", "aw", "ay", "eh", "er", "ey", "ih", "iy", "ow", "oy", "uh", "uw")
_BEFORE_VOWELS: dict[str, Spoken] = {"the": (("dh", "iy"), (0, 1)), "to": (("t", "uw"), (0, 1))}
_AT_THE_END: dict[str, Spoken] = {"for": (("f", "ao", "r"), (0, 2, 0)), "to": (("t", "uw"), (0, 2))}


def normalise(text: str) -> str:
    """Abbreviations, numbers, units, money and signs in words; letters without their accents."""
    letters = unicodedata.normalize("NFD", text.translate(_PLAIN))
    text = "".join(letter for letter in letters if not unicodedata.combining(letter))
    text = text.replace("’", "'").replace("‘", "'")
    text = _ADDRESS.sub(_say_address, text)
    text = re.sub(r"\b([A-Z]{1,3})&([A-Z])\b", lambda match: f"{' '.join(match[1])} and {match[2]}", text)  # AT&T
    text = re.sub(r"\bvs(?=\s)", "versus", text).replace("Wi-Fi", "WiFi")
    text = _HOUR.sub(_say_hour, text)
    text = _MONTH_DAY.sub(lambda match: f"{_month(match[1])} {ordinal(match[2])}", text)
    text = _DAY_MONTH.sub(lambda match: f"{ordinal(match[1])} of {_month(match[2])}", text)
    text = _STREET.sub(lambda match: f"{match[1]} {_STREETS[match[2]]}{_stop(match)}", text)
    text = _TITLED.sub(lambda match: ABBREVIATIONS[f"{match[1].lower()}."], text)
    text = _ABBREVIATED.sub(lambda match: ABBREVIATIONS[match.group().lower()] + _stop(match), text)
    text = re.sub(r"\b[Nn]o\.(?=\s?\d)", "number", text)
    text = re.sub(r"\bC#", "C sharp", re.sub(r"#(?=[A-Za-z])", "hashtag ", text))
    text = _DOTTED.sub(lambda match: " ".join(match.group().upper().replace(".", "")) + _stop(match), text)
    text = _ROMAN.sub(_say_roman, text)
    text = re.sub(r"(?<=\d) (?=\d/\d)", " and ", text)  # 2 1/2
    text = re.sub(r"(?<=\d) ?x ?(?=\d)", " times ", text)
    text = _FEET.sub(lambda match: f"{cardinal(match[1])} foot {cardinal(match[2])}", text)
    text = _PLURAL.sub(lambda match: plural(match[1]), text)
    text = re.sub(r"(?<![\w.])\.(?=\d)", "0.", text)
    said = say_signs(rewrite(text, say), "en")
    said = _GLUED.sub(_say_glued, re.sub(r"\bA(?=\d)", "A-", said))
    return re.sub(r" +([,.!?])", r"\1", re.sub(" +", " ", said))


def pronounce(text: str) -> list[Piece]:
    """A normalised text -> its words and marks. A hyphen or an apostrophe inside a word is not said."""
    pieces = []
    places = list(_WORDS.finditer(text))
    parts = _parts_of_speech([match.group() for match in places])
    for place, match in enumerate(places):
        word = match.group()
        if word[0].isascii() and word[0].isalpha():
            quoted = word.endswith("'") and not word.lower().endswith("s'")
            plain = word[:-1] if quoted else word
            named = plain == "A" and _is_letter(text[: match.start()], text[match.end() :])
            pieces.append(Piece(plain, *(spell("a") if named else say_word(plain, parts.get(place, ())))))
            pieces += [mark_or_unknown("'")] if quoted else []
        elif (
            word == "-" and text[max(match.start() - 1, 0)].isalpha() and text[match.end() : match.end() + 1].isalpha()
        ):
            pieces.append(Piece(word))
        else:
            pieces.append(mark_or_unknown(word))
    following = None
    for place in range(len(pieces) - 1, -1, -1):
        if pieces[place].phones:
            said, pieces[place] = pieces[place], _in_context(pieces[place], following)
            following = said
    return pieces


def _parts_of_speech(words: list[str]) -> dict[int, tuple[str, ...]]:
    """The roles of the words, by place, that are said differently in different ones."""
    places = [place for place, word in enumerate(words) if has_roles(word)]
    if not places:
        return {}
    numbers = {place: number for number, place in enumerate(place for place, word in enumerate(words) if word != " ")}
    found = roles([words[place] for place in numbers], [numbers[place] for place in places])
    return dict(zip(places, found, strict=True))


def _is_letter(before: str, after: str) -> bool:
    """Whether an A is the letter: at the end (plan A), before or behind another one (A M), in A-four."""
    return (
        re.match(r"\s*(?:$|[.,;:!?)'\"]|[A-Z]\b)|-[a-z]", after) is not None
        or re.search(r"\b[A-Z] $", before) is not None
    )


def _in_context(piece: Piece, following: Piece | None) -> Piece:
    """the apple, to eat, what for?, used to"""
    spoken: Spoken = (piece.phones, piece.tones)
    if piece.text == "used" and following is not None and following.text == "to":
        spoken = (("y", "uw", "s", "t"), (0, 2, 0, 0))
    if following is None or following.phones[0] in MARKS.values():
        spoken = _AT_THE_END.get(piece.text.lower(), spoken)
    elif following.phones[0] in _VOWELS:
        spoken = _BEFORE_VOWELS.get(piece.text.lower(), spoken)
    return replace(piece, phones=spoken[0], tones=spoken[1])


def _stop(match: re.Match[str]) -> str:
    """The full stop of an abbreviation that ends the text ends the sentence, too."""
    return "" if match.string[match.end() :].strip(" \"'”’)]") else "."


def _month(written: str) -> str:
    return next(month for month in MONTHS if month.startswith(written[:3]))


def _say_hour(match: re.Match[str]) -> str:
    minutes = match[2] or "00"
    after = "" if minutes == "00" else f" oh {cardinal(minutes)}" if minutes < "10" else f" {cardinal(minutes)}"
    stop = _stop(match) if match.group().endswith(".") else ""
    return f"{cardinal(match[1])}{after} {match[3].upper()} M{stop}"


def _say_address(match: re.Match[str]) -> str:
    """user@example.com, www.example.com/path"""
    said = match.group().replace("://", " ").replace("/", " slash ").replace("_", " ")
    return re.sub(r"\.(?=\w)", " dot ", said)


def _say_roman(match: re.Match[str]) -> str:
    """World War II two, Henry VIII the eighth."""
    ones = ("", "I", "II", "III", "IV", "V", "VI", "VII", "VIII", "IX").index(match[3])
    value = str(10 * len(match[2]) + ones)
    return f"{match[1]} {f'the {ordinal(value)}' if match[1] in _RULERS else cardinal(value)}"


def _say_glued(match: re.Match[str]) -> str:
    """Numbers glued to letters: MP3, v2.0."""
    before, after = match.string[: match.start()][-1:], match.string[match.end() :][:1]
    said = " point ".join(number(value) for value in match.group().split("."))
    return f"{' ' * before.isalpha()}{said}{' ' * after.isalpha()}"
