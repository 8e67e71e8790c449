from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.conftest import CorpusMaker
from tests.tiny_voice import LATENTS, Bench, voice
from tts_kernel.evaluation.probe import ProbeResult
from tts_kernel.recipes.indextts2.judge import Judgement, judge, keep_emotion_vectors
from tts_kernel.recipes.indextts2.train import dataset
from tts_kernel.runs import Run
from tts_kernel.training.outcome import Outcome

OUTCOME = Outcome("finished", 9, 9, {"val/loss": 2.0}, {"val/loss": 2.1}, 1.0)


def probe(accuracy: float, chance: float = 0.25) -> ProbeResult:
    return ProbeResult(accuracy, 0.01, chance, clips=40, classes=4)


GOOD = Judgement(probe(0.85), probe(0.5), probe(0.8), probe(0.7), 2.0, 2.1, True, [])


def test_a_good_stage_2_misses_nothing() -> None:
    assert GOOD.speaker_kept() == pytest.approx(0.25 / 0.6)
    assert GOOD.style_kept() == pytest.approx(0.7 / 0.8)
    assert GOOD.loss_rise() == pytest.approx(0.05)
    assert GOOD.missed() == []
    assert "MISSED" not in str(GOOD)


@pytest.mark.parametrize(
    ("change", "missed"),
    [
        ({"speaker_after": probe(0.6)}, "the speaker probe kept 58%"),
        ({"style_after": probe(0.5)}, "the style probe kept 62%"),
        ({"val_loss_after": 2.3}, "val/loss rose by 15.0%"),
    ],
)
def test_each_missed_target_is_named(change: dict[str, object], missed: str) -> None:
    bad = replace(GOOD, **change)
    assert len(bad.missed()) == 1
    assert bad.missed()[0].startswith(missed)
    assert f"MISSED: {missed}" in str(bad)
    assert json.loads(json.dumps(bad.facts()))["missed"] == bad.missed()


def test_what_was_not_measured_is_not_missed() -> None:
    nothing = Judgement(None, None, probe(0.5), None, 2.0, 2.0, False, ["too few clips"])
    assert (nothing.speaker_kept(), nothing.style_kept(), nothing.missed()) == (None, None, [])
    assert "speaker probe        not measured" in str(nothing)
    assert "too few clips" in str(nothing)


def test_an_adversary_whose_speakers_could_not_be_probed_is_missed() -> None:
    unknown = Judgement(None, None, probe(0.8), probe(0.8), 2.0, 2.0, True, ["too few clips"])
    assert unknown.missed() == ["the speaker could not be probed; hold out more clips of the same speakers"]


def write_vectors(run: Run, when: str, separation: float, seed: int) -> None:
    """40 clips of 4 speakers and 2 styles, the speaker `separation` apart in the vectors."""
    random = np.random.default_rng(seed)
    speakers, styles = np.repeat(np.arange(4), 10), np.tile(np.arange(2), 20)
    vectors = random.standard_normal((40, 8))
    vectors[np.arange(40), speakers] += separation
    vectors[:, 4] += 6.0 * styles
    columns = {"speakers": [f"sp{number}" for number in speakers], "styles": [f"st{number}" for number in styles]}
    np.savez(run.folder / f"emotion_{when}.npz", vectors=vectors, clips=np.arange(40).astype(str), **columns)


def test_the_probes_find_what_was_removed_and_what_was_kept(tmp_path: Path) -> None:
    run = Run(tmp_path)
    write_vectors(run, "before", separation=8.0, seed=0)
    write_vectors(run, "after", separation=0.0, seed=1)
    judgement = judge(run, OUTCOME)
    assert judgement.speaker_before.accuracy > 0.85
    assert judgement.speaker_kept() < 0.3
    assert judgement.style_kept() > 0.9
    assert judgement.missed() == []
    assert json.loads((tmp_path / "probe.json").read_text(encoding="utf-8")) == judgement.facts()


def test_a_run_without_vectors_is_judged_by_its_loss_and_says_so(tmp_path: Path) -> None:
    judgement = judge(Run(tmp_path), replace(OUTCOME, val_after={"val/loss": 3.0}))
    assert (judgement.speaker_kept(), judgement.style_kept()) == (None, None)
    assert len(judgement.missed()) == 1
    assert any("no adversary to judge" in note for note in judgement.notes)


def test_kept_vectors_are_one_a_clip_by_the_path_that_training_takes(
    tmp_path: Path, make_tiny_corpus: CorpusMaker
) -> None:
    bench = Bench(tmp_path, make_tiny_corpus(speakers=5, latents=LATENTS))
    prepared = bench.prepare()
    corpus = prepared.corpus
    data = dataset(prepared.settings, prepared.config, corpus.train, corpus.mapping)
    model = voice(emo_mel_input_size=80).train()
    keep_emotion_vectors(model, data, corpus.train_rows, bench.run(), "before")
    assert model.training
    kept = np.load(bench.run().folder / "emotion_before.npz")
    assert len(kept["clips"]) == len(set(kept["clips"].tolist())) == 20  # of 40 pairs
    assert kept["speakers"].tolist() == [name.split("_")[0] for name in kept["clips"].tolist()]
    assert set(kept["styles"].tolist()) == {""}
    for clip, vector in zip(kept["clips"].tolist(), kept["vectors"], strict=True):
        mel = torch.from_numpy(np.load(bench.data / "mel" / f"{clip}.npy"))[None]
        expected = model.emotion_vector(mel, torch.tensor([mel.shape[1]])).detach()[0].numpy()
        np.testing.assert_allclose(vector, expected, rtol=1e-4, atol=1e-5)


def test_a_stage_2_run_keeps_vectors_before_and_after(tmp_path: Path, make_tiny_corpus: CorpusMaker) -> None:
    bench = Bench(tmp_path, make_tiny_corpus(latents=LATENTS))
    bench.train(max_steps=1)
    before = (bench.run().folder / "emotion_before.npz").read_bytes()
    bench.train()
    assert (bench.run().folder / "emotion_before.npz").read_bytes() == before, "a resume must not judge against itself"
    vectors = [np.load(bench.run().folder / f"emotion_{when}.npz")["vectors"] for when in ("before", "after")]
    assert vectors[0].shape == vectors[1].shape == (6, 32)
    assert np.abs(vectors[0] - vectors[1]).max() > 0
