from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tts_kernel.data.pipeline import lengths_of_statistics


def test_frames_are_twice_the_tokens_whatever_the_rate() -> None:
    rows = lengths_of_statistics(4, 3.0, 0.0, 5.0)
    rows = replace(rows, samples=np.array([960, 961, 44_100, 16_000]), rates=np.array([24_000, 24_000, 44_100, 16_000]))
    rows = replace(rows, speech_tokens=np.array([1, 2, 25, 25]))
    assert rows.audio_frames.tolist() == [2, 4, 50, 50]
    assert rows.frames.tolist() == (2 * rows.speech_tokens).tolist()
    assert not rows.trimmed.any()


def test_the_shorter_of_mel_and_tokens_decides() -> None:
    rows = replace(lengths_of_statistics(2, 2.0, 0.0, 5.0), speech_tokens=np.array([48, 53]))
    assert rows.frames.tolist() == [96, 100]
    assert rows.trimmed.tolist() == [2, -3]


def test_statistics_are_met_and_repeat_with_their_seed() -> None:
    rows = lengths_of_statistics(4000, 5.9, 0.4, 6.0, seed=3)
    assert np.median(rows.seconds) == pytest.approx(5.9, rel=0.03)
    assert np.log(rows.seconds).std() == pytest.approx(0.4, rel=0.05)
    assert (rows.text_tokens / rows.seconds).mean() == pytest.approx(6.0, rel=0.05)
    assert (rows.samples == lengths_of_statistics(4000, 5.9, 0.4, 6.0, seed=3).samples).all()


def test_rows_are_taken_by_place_and_by_mask() -> None:
    rows = lengths_of_statistics(5, 5.0, 0.4, 6.0)
    assert rows.take(np.array([3, 1])).utterances.tolist() == rows.utterances[[3, 1]].tolist()
    assert len(rows.take(np.arange(5) > 2)) == 2
