"""Which reading a Chinese character has where its word does not tell: by the characters around it.

The dictionary of phrases knows words. A character that is in none of them (两只, 很长, 种的), and the particles 地, 得
and 儿, follow their neighbours.
"""

from __future__ import annotations

from dataclasses import replace

from tts_kernel.text.chinese_tones import NEUTRAL, Syllable

_GAINED = frozenset(["获得", "取得", "心得", "所得", "难得", "赢得", "求得", "博得", "夺得", "只得", "不得"])  # 得 dé
_MUST = frozenset("我你您他她它咱们谁就都也又还可总非必须")  # 得 after them is děi, unless something has been got
_SPOKEN_VERBS = frozenset("说看走跑笑问想写听唱叫哭喊做学讲坐站")  # rjieba takes 地说 for a word
_WITHOUT_R = frozenset("女婴幼孤男少胎健宠生孩混血托产")  # 儿 after them is a child, elsewhere an r
OWN_READINGS = {  # where the dictionary has none, or a rarer one
    "数一数": "shu3 yi1 shu3",
    "不得了": "bu4 de2 liao3",
    "不得不": "bu4 de2 bu4",
    "不得已": "bu4 de2 yi3",
    "落下": "luo4 xia4",
    "空房": "kong1 fang2",
}
_NUMERALS = "一二两三四五六七八九十百千万几每半"
_ALONE = (  # a character that is in no phrase, one of these before it or behind it (none: anything) -> its reading
    ("只", _NUMERALS, "", "zhi1"),
    ("行", _NUMERALS, "字诗代", "hang2"),
    ("长", "", "了得着出大高满成在到", "zhang3"),
    ("长", "", "", "chang2"),
    ("种", f"{_NUMERALS}这那各某此哪", "", "zhong3"),
    ("种", "", "", "zhong4"),
    ("重", "", "写做读来考看建修说选启放", "chong2"),
    ("切", "", "", "qie1"),
    ("数", "", "钱到了着不", "shu3"),
    ("空", "有没抽", "", "kong4"),
    ("空", "", "", "kong1"),
    ("干", "很太真晾擦晒吹", "", "gan1"),
    ("教", "", "", "jiao1"),
    ("背", "", "着", "bei1"),
    ("还", "", "钱书债清", "huan2"),
    ("系", "", "好上着紧鞋领", "ji4"),
    ("量", "", "一了体身血", "liang2"),
)


def read_in_context(syllables: list[Syllable | None]) -> list[Syllable | None]:
    """The same with the readings that follow from their neighbours; None is what is not read."""
    syllables = list(syllables)
    for place, own in enumerate(syllables):
        if own is not None and own.alone:
            syllables[place] = _alone(own, _at(syllables, place - 1), _at(syllables, place + 1))
    _make_particles(syllables)
    return syllables


def _alone(own: Syllable, before: str, after: str) -> Syllable:
    for character, left, right, reading in _ALONE:
        if own.character == character and _is_one_of(before, left) and _is_one_of(after, right):
            return replace(own, pinyin=reading[:-1], tone=int(reading[-1]))
    return own


def _is_one_of(character: str, wanted: str) -> bool:
    return not wanted or (character != "" and character in wanted)


def _make_particles(syllables: list[Syllable | None]) -> None:
    """地 after an adverb (高兴地说), 得 after a verb (长得很好) and 儿 at the end of a word (这儿) have no tone."""
    for place, own in enumerate(syllables):
        if own is None:
            continue
        before, after = (syllables[at] if 0 <= at < len(syllables) else None for at in (place - 1, place + 1))
        if own.character == "得":
            syllables[place] = _particle_de(own, before, after)
        elif before is None:
            continue
        elif own.character == "儿" and own.place == own.length - 1 > 0 and before.character not in _WITHOUT_R:
            syllables[place] = replace(own, tone=NEUTRAL)
        elif own.character == "地" and after is not None:
            alone = own.length == 1 or (own.place == 0 and own.length == 2 and after.character in _SPOKEN_VERBS)
            repeated = own.length == own.place + 1 == 3 and before.character == _at(syllables, place - 2)
            if (alone and before.length > 1) or repeated:
                syllables[place] = replace(own, pinyin="de", tone=NEUTRAL)


def _particle_de(own: Syllable, before: Syllable | None, after: Syllable | None) -> Syllable:
    """得 is de after a verb (跑得快, 觉得), děi where something must be done (我得走), else dé."""
    must = before is None or before.character in _MUST
    if own.length == 1 and must:
        return own if after is None or after.character in "了过到出着" else replace(own, pinyin="dei", tone=3)
    if own.place == own.length - 1 < 2 and before is not None:
        if own.length == 2 and must:
            return replace(own, pinyin="dei", tone=3)
        gained = own.length == 2 and f"{before.character}得" in _GAINED
        return own if gained else replace(own, pinyin="de", tone=NEUTRAL)
    inside = own.length == 3 and own.place == 1 and before is not None and before.character != "不"
    return replace(own, pinyin="de", tone=NEUTRAL) if inside else own


def _at(syllables: list[Syllable | None], place: int) -> str:
    syllable = syllables[place] if 0 <= place < len(syllables) else None
    return syllable.character if syllable is not None else ""
