from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.recipes.cosyvoice2.bench import Bench
from tts_kernel.audio import wav as audio
from tts_kernel.recipes.cosyvoice2 import train
from tts_kernel.synthesis import learned
from tts_kernel.synthesis.speakers import Speakers


class ByPitch:
    """An extractor that hears nothing but how often the signal changes its sign."""

    def tokens(self, wav: np.ndarray, rate: int) -> np.ndarray:
        raise AssertionError("similarity needs no tokens")

    def embedding(self, wav: np.ndarray, rate: int) -> np.ndarray:
        crossings = float((wav[1:] * wav[:-1] < 0).mean())
        return np.array([1.0, crossings], np.float32)


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def test_the_same_sentences_are_spoken_before_and_after_and_the_adapter_is_heard(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepared, run = bench.prepare(spoken=2, learning_rate=0.05), bench.run()
    first, again = learned.speak(prepared, run, "before"), learned.speak(prepared, run, "before")
    assert len(first) == 2
    assert all(np.array_equal(one, other) for (one, _), (other, _) in zip(first, again, strict=True))
    train(prepared, run)
    after = learned.speak(prepared, run, "after")
    assert any(not np.array_equal(one, other) for (one, _), (other, _) in zip(first, after, strict=True))
    names = [f"{when}_{number}.wav" for when in ("after", "before") for number in (0, 1)]
    assert sorted(path.name for path in (run.folder / "samples").iterdir()) == names
    kept, rate = audio.read(run.folder / "samples" / "after_1.wav")
    assert (len(kept), rate) == (len(after[1][0]), 24_000)

    monkeypatch.setattr(learned, "_extractor", lambda asked: ByPitch())
    found = learned.similarity(prepared, run, {"before": first, "after": after})
    assert found["before"].clips == 2
    assert found["after"].real is not None
    values = json.loads((run.folder / "similarity.json").read_text(encoding="utf-8"))
    assert values["after"]["score"] == found["after"].score


def test_of_your_own_data_without_an_extractor_similarity_is_not_measured(bench: Bench) -> None:
    prepared, run = bench.prepare(spoken=0), bench.run()
    assert learned.speak(prepared, run, "before") == []
    found = learned.similarity(prepared, run, {"before": [], "after": []})
    assert found["before"].score is None
    assert "name campplus.onnx" in str(found["after"])


def test_a_model_that_an_earlier_session_trained_is_heard_too(bench: Bench) -> None:
    run = bench.run()
    train(bench.prepare(model="llm"), run)
    assert set(learned._trained(run)) == {"llm"}
    train(bench.prepare(model="flow"), run)
    assert learned._trained(run) == {
        "llm": run.folder / "llm" / "epoch_1_whole.pt",
        "flow": run.folder / "flow" / "epoch_1_whole.pt",
    }


def test_a_trained_voice_is_exported_and_speaks_from_its_folder(bench: Bench) -> None:
    prepared, run = bench.prepare(spoken=1), bench.run()
    assert learned.export(prepared, run) is None
    train(prepared, run)
    config = learned.export(prepared, run)
    assert config == run.folder / "export" / "speaker_config.json"
    (run.folder / "export").rename(run.folder.parent / "moved")
    voices = Speakers.from_config(run.folder.parent / "moved" / "speaker_config.json")
    assert len(voices.names) == 1
    wav = voices.synthesize(learned.sentences(prepared)[0], generator=torch.Generator().manual_seed(0))
    assert np.isfinite(wav).all()
    seeded = torch.Generator().manual_seed(prepared.settings.seed)
    same = voices.synthesize(learned.sentences(prepared)[0], generator=seeded)
    np.testing.assert_allclose(same, learned.speak(prepared, run, "after")[0][0], atol=1e-5)
