from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from benchmarks import cosyvoice2_synthesis as bench
from tests.models.cosyvoice2.tiny_models import flow
from tests.synthesis.tiny_folder import lora_voice, synthesizer


def test_whole_and_streaming_are_heard_equally_long_for_each_text_and_round() -> None:
    texts = [("a dog.", lora_voice()), ("a big dog ran.", lora_voice())]
    found = bench.measure(synthesizer(), texts, rounds=2)
    whole, streaming = ([one.seconds for one in spoken] for spoken in found.values())
    assert whole == streaming
    assert whole == [pytest.approx(letters * 4 / 25) for letters in (4, 10, 4, 10)]
    assert all(one.first > 0.9 * one.took for one in found["whole"])  # all of the work lies before its first sound
    assert all(0 < one.first <= one.took for one in found["streaming"])


def test_the_first_sound_is_timed_before_the_last(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0.0, 2.0, 5.0])
    monkeypatch.setattr(bench.time, "process_time", lambda: next(clock))

    def pieces() -> Iterator[np.ndarray]:
        yield np.zeros(24)
        yield np.zeros(24)

    assert bench.timed(pieces(), 24) == bench.Spoken(seconds=2.0, first=2.0, took=5.0)


def test_each_vocoder_and_way_has_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    spoken = {"whole": [bench.Spoken(2.0, 1.0, 1.0)], "streaming": [bench.Spoken(2.0, 0.5, 1.0)]}
    monkeypatch.setattr(bench, "measure", lambda models, texts, rounds: spoken)
    rows = [("a dog.", lora_voice())]
    lines = bench.table(
        synthesizer(flow=flow(output_size=80), vocoder=bench.HiftGenerator(bench.HiftConfig())), rows, 1
    )
    assert len(lines) == 2 + 2 * 2 * 2
    assert "| HiFT, a sentence | streaming | 2.0 s | 0.50 s (0.50 to 0.50) | 2.0x | 0.50 (0.50 to 0.50) |" in lines
