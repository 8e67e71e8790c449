"""Who says what in the demo corpus, and how: voices, styles, sentences, and the seeded choice among them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

# The most distinct variants of eSpeak's voices, alternating so that any first few are mixed.
SPEAKERS = ("f1", "m2", "f3", "m8", "f5", "m5", "f4", "m7")


@dataclass(frozen=True)
class Style:
    """How a sentence is said."""

    rate: int  # words per minute
    pitch: int  # 0 to 99, 50 is the voice's own
    range: int  # 0 (flat) to 99, 50 is the voice's own
    level_db: float  # RMS of the speech, dB below full scale


STYLES = {
    "neutral": Style(rate=165, pitch=50, range=50, level_db=-24.0),
    "happy": Style(rate=195, pitch=75, range=95, level_db=-20.0),
    "sad": Style(rate=125, pitch=25, range=10, level_db=-30.0),
    "angry": Style(rate=210, pitch=35, range=85, level_db=-17.0),
}

ESPEAK_LANGUAGE = {"ko": "ko", "en": "en-us", "zh": "cmn", "ja": "ja"}
TURNS = ("ko", "en", "ko", "zh", "ko", "ja")  # the order in which a corpus of N sentences takes them: half Korean

# Written for this corpus.
SENTENCES = {
    "ko": (
        "오늘 날씨가 정말 좋네요.",
        "내일은 비가 온다고 해요.",
        "지금 집에 가는 길이에요.",
        "저녁에 같이 밥 먹을까요?",
        "어제 친구를 만났어요.",
        "친구가 집에 온다고 해요.",
        "커피 한 잔 마시고 싶어요.",
        "오늘은 일이 너무 많아요.",
        "주말에 어디로 가고 싶어요?",
        "우리 같이 노래를 불러요.",
        "버스가 아직 안 왔어요.",
        "문을 좀 닫아 주세요.",
        "이 노래는 정말 좋네요.",
        "아침에 일찍 일어났어요.",
        "내일 아침에 다시 올게요.",
        "어제는 비가 많이 왔어요.",
        "저는 지금 버스를 기다려요.",
        "친구와 커피를 마셨어요.",
        "물 한 잔만 주세요.",
        "주말에는 집에서 쉬어요.",
        "길이 너무 많이 막혀요.",
        "오늘 저녁은 뭐 먹을까요?",
        "우리 집은 여기서 가까워요.",
        "일이 아직 안 끝났어요.",
    ),
    "en": (
        "The weather is really nice today.",
        "I am on my way home now.",
        "Would you like a cup of coffee?",
        "My friend is coming home tomorrow.",
        "The bus has not come yet.",
        "Let us sing a song together.",
        "Please close the door for me.",
        "It rained a lot yesterday.",
    ),
    "zh": (
        "今天的天气真的很好。",
        "我现在正在回家的路上。",
        "你想喝一杯咖啡吗?",
        "明天我的朋友来我家。",
        "昨天下了很多雨。",
        "我们一起唱一首歌吧。",
        "请你把门关上好吗?",
        "公交车现在还没有来。",
    ),
    "ja": (
        "きょうは とても いい てんきですね。",
        "いま いえに かえる ところです。",
        "コーヒーを のみませんか。",
        "あした ともだちが いえに きます。",
        "きのうは あめが たくさん ふりました。",
        "いっしょに うたを うたいましょう。",
        "すみません、ドアを しめて ください。",
        "バスは まだ きません。",
    ),
}


@dataclass(frozen=True)
class Clip:
    """One clip to speak."""

    id: str
    speaker: str
    style: str
    language: str
    text: str
    held_out: bool

    @property
    def audio_path(self) -> str:
        """Relative to the corpus."""
        return f"audio/{self.speaker}/{self.id}.wav"


def choose_sentences(count: int) -> list[tuple[str, str]]:
    """The first `count` sentences, languages in `TURNS`, as (language, text)."""
    chosen: list[tuple[str, str]] = []
    taken = dict.fromkeys(SENTENCES, 0)
    turn = 0
    while len(chosen) < count:
        language = TURNS[turn % len(TURNS)]
        if taken[language] < len(SENTENCES[language]):
            chosen.append((language, SENTENCES[language][taken[language]]))
            taken[language] += 1
        turn += 1
    return chosen


def plan(*, seed: int, speakers: int, sentences: int, clips_per_style: int) -> list[Clip]:
    """The clips of a corpus: every speaker and style says its own seeded selection, a third of it held out."""
    chosen = choose_sentences(sentences)
    rng = np.random.default_rng(seed)
    clips = []
    for speaker in SPEAKERS[:speakers]:
        for style in STYLES:
            picked = [int(index) for index in rng.permutation(len(chosen))[:clips_per_style]]
            held_out = set(picked[: round(clips_per_style / 3)])
            for index in sorted(picked):
                language, text = chosen[index]
                clips.append(Clip(f"{speaker}_{style}_{index:02d}", speaker, style, language, text, index in held_out))
    return clips
