from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.data.pipeline.written import lengths_of, pipeline, row, rows
from tts_kernel.data.pipeline import Account, Accounts, Drop, PipelineError, check, count


def test_an_account_that_does_not_add_up_cannot_be_made() -> None:
    drop = Drop("too short", 3, ("a",))
    Account("filter", 10, 7, (drop,))
    with pytest.raises(AssertionError, match="filter: 10 in, 8 out"):
        Account("filter", 10, 8, (drop,))
    with pytest.raises(AssertionError, match="filter hands on what sort does not take"):
        Accounts((Account("filter", 10, 7, (drop,)), Account("sort", 8, 8)), ())


def test_every_drop_is_counted_under_its_processor_and_reason(tmp_path: Path) -> None:
    odd = [
        row("short", 0.05),
        row("wordless", words=0),
        row("wordy", words=300),
        row("silent", speech_token=[]),
        row("phone", rate=8_000),
        row("broken", audio_data=b"RIFF"),
    ]
    counted = count(pipeline(max_output_input_ratio=5), lengths_of(tmp_path, [*rows(6), *odd]))
    found = {(processor, drop.reason): drop.utterances for processor, drop in counted.accounts.drops()}
    assert found == {
        ("parquet_opener", "audio cannot be read"): ("broken",),
        ("filter", "too short"): ("short",),
        ("filter", "too little text"): ("wordless",),
        ("filter", "too much text"): ("wordy",),
        ("filter", "no speech tokens"): ("silent",),
        ("resample", "sample rate too low, 8,000 Hz"): ("phone",),
    }
    assert (counted.accounts.entered, counted.accounts.kept) == (12, 6)
    assert "1 too short (min_length is 10): short" in str(counted.accounts)


def test_the_trap_is_refused_and_the_value_that_it_names_keeps_the_data(tmp_path: Path) -> None:
    lengths = lengths_of(tmp_path, rows(8))
    with pytest.raises(PipelineError) as caught:
        check(count(pipeline(token_max_length=0), lengths))
    said = str(caught.value)
    for expected in ("0 of 8 utterances are left", "filter drops 8 too much text", "token_max_length is 0"):
        assert expected in said
    (keeps,) = re.findall(r"token_max_length (\d+) keeps them", said)
    mended = count(pipeline(token_max_length=int(keeps)), lengths)
    check(mended)
    assert mended.accounts.kept == 8
    assert count(pipeline(token_max_length=0, zero_is_no_limit=True), lengths).accounts.kept == 8


def test_nearly_nothing_is_refused_and_the_share_can_be_lowered(tmp_path: Path) -> None:
    counted = count(pipeline(min_length=395), lengths_of(tmp_path, rows(22)))
    assert counted.accounts.kept == 2
    with pytest.raises(PipelineError, match="2 of 22 utterances are left, expected 10% at least"):
        check(counted)
    check(counted, min_kept=0.05)


def test_no_utterance_at_all_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PipelineError, match=r"no utterance came in; is data\.list the right one"):
        check(count(pipeline(), lengths_of(tmp_path, [])))


def test_a_speaker_of_whom_nothing_is_left_is_named_with_the_reasons(tmp_path: Path) -> None:
    lost = [row("k1", 0.05, spk="kim"), row("k2", speech_token=[], spk="kim")]
    counted = count(pipeline(), lengths_of(tmp_path, [*rows(8), *lost]))
    with pytest.raises(PipelineError) as caught:
        check(counted)
    assert "nothing is left of speaker kim (2 utterances): 1 too short, 1 no speech tokens" in str(caught.value)
    assert "allow_lost_speakers" in str(caught.value)
    check(counted, allow_lost_speakers=True)
