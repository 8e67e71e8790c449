from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tts_kernel.models.cosyvoice2.sequences import IGNORED, SPECIAL, SPEECH, START, TEXT, TURN, lay_out, may_interleave

CODES, RATIO = 30, (2, 4)
END, FILL = 30, 32


def ids(first: int, count: int) -> Tensor:
    return torch.arange(first, first + count)


def test_one_stream_is_start_text_turn_speech_and_predicts_speech_and_the_end() -> None:
    made = lay_out([ids(40, 3)], [ids(0, 4)], [False], RATIO, CODES)
    assert made.tokens.tolist() == [[START, 40, 41, 42, TURN, 0, 1, 2, 3]]
    assert made.kinds.tolist() == [[SPECIAL, TEXT, TEXT, TEXT, SPECIAL, SPEECH, SPEECH, SPEECH, SPEECH]]
    assert made.targets.tolist() == [[*4 * [IGNORED], 0, 1, 2, 3, END]]


def test_two_streams_take_turns_and_ask_for_more_text_after_each() -> None:
    made = lay_out([ids(40, 5)], [ids(0, 11)], [True], RATIO, CODES)
    assert made.tokens.tolist() == [[START, 40, 41, 0, 1, 2, 3, 42, 43, 4, 5, 6, 7, 44, TURN, 8, 9, 10]]
    quiet = IGNORED
    expected = [quiet, quiet, 0, 1, 2, 3, FILL, quiet, 4, 5, 6, 7, FILL, quiet, 8, 9, 10, END]
    assert made.targets.tolist() == [expected]


@pytest.mark.parametrize("text", range(1, 9))
@pytest.mark.parametrize("speech", [17, 18, 23])
def test_two_streams_hold_every_token_once_and_in_order(text: int, speech: int) -> None:
    made = lay_out([ids(40, text)], [ids(0, speech)], [True], RATIO, CODES)
    assert made.tokens[made.kinds == TEXT].tolist() == ids(40, text).tolist()
    assert made.tokens[made.kinds == SPEECH].tolist() == ids(0, speech).tolist()
    assert made.targets[(made.targets >= 0) & (made.targets < CODES)].tolist() == ids(0, speech).tolist()
    assert int((made.targets == FILL).sum()) == (text // 2 if may_interleave(text, speech, RATIO) else 0)


def test_an_utterance_whose_text_outlasts_its_speech_stays_one_stream() -> None:
    assert not may_interleave(4, 8, RATIO)  # exactly the ratio
    assert may_interleave(4, 9, RATIO)
    asked, plain = (lay_out([ids(40, 4)], [ids(0, 8)], [both], RATIO, CODES) for both in (True, False))
    assert torch.equal(asked.tokens, plain.tokens)
    assert torch.equal(asked.targets, plain.targets)


def test_rows_of_other_lengths_are_padded_at_the_end_without_targets() -> None:
    made = lay_out([ids(40, 2), ids(40, 1)], [ids(0, 3), ids(0, 2)], [False, False], RATIO, CODES)
    assert made.lengths.tolist() == [7, 5]
    assert made.real.sum(1).tolist() == [7, 5]
    assert made.targets[1, 5:].tolist() == [IGNORED, IGNORED]
