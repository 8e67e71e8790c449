from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.audited import audit_of, change_rows, named
from tests.conftest import CorpusMaker
from tests.tiny import read_rows
from tts_kernel.data.audit import Report
from tts_kernel.data.demo.sentences import SENTENCES
from tts_kernel.text.tokenizer import TextTokenizer, train_tokenizer

MANIFESTS = ("gpt_pairs_train.jsonl", "gpt_pairs_val.jsonl")


@pytest.fixture
def spoken(make_tiny_corpus: CorpusMaker) -> Path:
    """The tiny corpus with Korean texts, a tokenizer, ids to match, and codes in step with the texts."""
    folder = make_tiny_corpus(clips=10)
    tokenizer = train_tokenizer(SENTENCES["ko"], folder / "bpe.model", 150)
    clips = sorted({row["target_id"] for name in MANIFESTS for row in read_rows(folder / name)})
    for number, clip in enumerate(clips):
        text = f"{SENTENCES['ko'][number % 24]} {SENTENCES['ko'][(number * 7 + 1) % 24]}"
        say(folder, tokenizer, clip, text)
    return folder


def say(folder: Path, tokenizer: TextTokenizer, clip: str, text: str, **changes: Any) -> None:
    ids = np.array(tokenizer.encode(text), dtype=np.int64)
    np.save(folder / "text_ids" / f"{clip}.npy", ids)
    for name in MANIFESTS:
        change_rows(folder, lambda rows: _say(rows, clip, {"text": text, "target_text_len": len(ids), **changes}), name)


def _say(rows: list[dict[str, Any]], clip: str, changes: dict[str, Any]) -> None:
    for row in rows:
        if row["target_id"] == clip:
            row.update(changes)


def texts_only(folder: Path, **changes: Any) -> Report:
    """Without what the arrays of the tiny corpus would say; their lengths give no tempo to speak of."""
    return audit_of(
        folder, **{"min_chars_per_second": 0.0, "max_chars_per_second": 1e9, "tempo_factor": 50.0, **changes}
    )


def test_clean_texts_have_nothing_to_name(spoken: Path) -> None:
    report = texts_only(spoken)
    assert named(report) == {}
    assert report.summary["unknown_tokens"] == {"ko": 0.0}
    assert report.summary["text_from"] == "the field text"


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("...?!", "text_empty"),
        ("오늘\u200b 날씨가 정말 좋네요.", "text_control"),
        ("오늘 날씨가 ☃ 좋네요.", "text_unknown"),
        ("この文は日本語で書かれています。", "text_language"),
    ],
)
def test_bad_texts_are_named(spoken: Path, text: str, kind: str) -> None:
    say(spoken, TextTokenizer(spoken / "bpe.model"), "sp0_1", text)
    found = named(texts_only(spoken, max_unknown_tokens=0.0 if kind == "text_unknown" else 1.0))
    assert found == {kind: ["sp0_1"]}


def test_unknown_tokens_are_counted_per_language(spoken: Path) -> None:
    tokenizer = TextTokenizer(spoken / "bpe.model")
    say(spoken, tokenizer, "sp1_0", "☃", language="en")
    report = texts_only(spoken, max_unknown_tokens=1.0)
    ids = tokenizer.encode("☃")
    assert report.summary["unknown_tokens"] == {"ko": 0.0, "en": ids.count(tokenizer.unknown_id) / len(ids)}
    assert 0 < report.summary["unknown_tokens"]["en"] < 1


def test_clips_without_a_language_are_named_and_nothing_else_is_said_of_it(spoken: Path) -> None:
    tokenizer = TextTokenizer(spoken / "bpe.model")
    say(spoken, tokenizer, "sp0_0", SENTENCES["ko"][3], language=" ")
    say(spoken, tokenizer, "sp2_0", SENTENCES["ko"][4], language=None)
    assert named(texts_only(spoken)) == {"text_no_language": ["sp0_0", "sp2_0"]}


def test_a_corpus_without_the_field_has_no_missing_languages(spoken: Path) -> None:
    for name in MANIFESTS:
        change_rows(spoken, lambda rows: [row.pop("language") for row in rows], name)
    assert named(texts_only(spoken)) == {}


def test_the_same_text_again_is_named_for_one_speaker_and_style_only(spoken: Path) -> None:
    tokenizer = TextTokenizer(spoken / "bpe.model")
    for clip, style in (("sp0_0", "sad"), ("sp0_1", "sad"), ("sp0_2", "happy"), ("sp1_0", "sad")):
        say(
            spoken,
            tokenizer,
            clip,
            " 우리 같이 노래를 불러요." if clip == "sp0_0" else "우리 같이 노래를 불러요.",
            style=style,
        )
    order = [row["target_id"] for row in read_rows(spoken / MANIFESTS[0]) if row["target_id"] in ("sp0_0", "sp0_1")]
    assert named(texts_only(spoken)) == {"text_repeated": [next(clip for clip in order if clip != order[0])]}


def test_short_texts_may_be_said_again(spoken: Path) -> None:
    tokenizer = TextTokenizer(spoken / "bpe.model")
    for clip in ("sp0_0", "sp0_1"):
        say(spoken, tokenizer, clip, "일이")
    assert named(texts_only(spoken)) == {}


def test_ids_of_another_tokenizer_are_named(spoken: Path) -> None:
    path = spoken / "text_ids" / "sp1_2.npy"
    np.save(path, np.load(path)[::-1])
    assert named(texts_only(spoken)) == {"text_ids_differ": ["sp1_2"]}


def test_texts_are_decoded_where_the_manifest_has_none(spoken: Path) -> None:
    tokenizer = TextTokenizer(spoken / "bpe.model")
    say(spoken, tokenizer, "sp0_1", "??")
    say(spoken, tokenizer, "sp0_2", "날씨가 ☃")
    for name in MANIFESTS:
        change_rows(spoken, lambda rows: [row.pop("text") for row in rows], name)
    report = texts_only(spoken)
    assert report.summary["text_from"] == "the token ids"
    assert named(report) == {"text_empty": ["sp0_1"], "text_unknown": ["sp0_2"]}
    assert named(texts_only(spoken, check_features=False)) == {}  # nothing to read them from


def test_ids_beyond_the_vocabulary_are_named_and_do_not_stop_decoding(spoken: Path) -> None:
    size = TextTokenizer(spoken / "bpe.model").vocab_size
    np.save(spoken / "text_ids" / "sp0_1.npy", np.array([5, size], dtype=np.int64))
    for name in MANIFESTS:
        change_rows(spoken, lambda rows: [row.pop("text") for row in rows], name)
        change_rows(spoken, lambda rows: _say(rows, "sp0_1", {"target_text_len": 2}), name)
    found = named(texts_only(spoken))
    assert found["feature_ids"] == ["sp0_1"]
    assert set(found) <= {"feature_ids", "text_empty"}


def test_a_text_far_from_the_usual_tempo_is_named(spoken: Path) -> None:
    tokenizer = TextTokenizer(spoken / "bpe.model")
    for name in MANIFESTS:  # every clip two seconds long
        change_rows(spoken, lambda rows: [row.update(target_mel_len=172) for row in rows], name)
    say(spoken, tokenizer, "sp0_1", " ".join(SENTENCES["ko"][:12]))
    say(spoken, tokenizer, "sp0_2", "네")
    wide = {"check_features": False, "min_chars_per_second": 0.0, "max_chars_per_second": 1e9}
    assert named(texts_only(spoken, **wide, tempo_factor=3.0)) == {"text_tempo": ["sp0_1", "sp0_2"]}
    assert named(texts_only(spoken, **wide | {"max_chars_per_second": 40.0})) == {"text_tempo": ["sp0_1"]}
    assert named(texts_only(spoken, **wide | {"min_chars_per_second": 1.0})) == {"text_tempo": ["sp0_2"]}


def test_tokens_tell_the_tempo_where_there_is_no_text(make_tiny_corpus: CorpusMaker) -> None:
    folder = make_tiny_corpus(clips=10)
    for name in MANIFESTS:
        change_rows(folder, lambda rows: [row.update(target_mel_len=172, target_text_len=9) for row in rows], name)
        change_rows(folder, lambda rows: _say(rows, "sp1_1", {"target_text_len": 60}), name)
    report = audit_of(folder, check_features=False)
    assert named(report) == {"text_tempo": ["sp1_1"]}
    assert report.summary["tempo"]["unit"] == "tokens"
