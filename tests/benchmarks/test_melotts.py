"""The benchmark of MeloTTS's training at a tiny size: both loops compute the same, and the page says what was found."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks import melotts as bench
from benchmarks import melotts_plain as plain
from benchmarks.data import measure as measuring
from tests.tiny_spoken import Studio, write_config
from tts_kernel.data.sampler import PlannedBatch, Position
from tts_kernel.models.melotts.alignment import monotonic_durations
from tts_kernel.recipes.melotts import Prepared, prepare
from tts_kernel.recipes.melotts.model import Networks, build_networks
from tts_kernel.recipes.melotts.objective import VoiceObjective


@pytest.fixture(scope="module")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Studio:
    return Studio(tmp_path_factory.mktemp("studio"))


@pytest.fixture(scope="module")
def prepared(studio: Studio) -> Prepared:
    ready = prepare(studio.settings(reference_losses=True), studio.run())
    plain.write_files(ready)
    return ready


def networks_of(prepared: Prepared) -> Networks:
    return build_networks(prepared.settings, prepared.config, prepared.symbols, prepared.corpus.speakers, "")


def test_both_loops_have_the_same_losses_on_the_same_clips(prepared: Prepared, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plain, "ALIGNMENT_NOISE", 0.0)  # ours leaves padding out of its noise's scale
    networks = networks_of(prepared).eval()
    loop, objective = plain.Loop(networks, prepared), VoiceObjective(networks, prepared.settings)
    rows = np.array([2, 1, 0])  # longest first
    ours = prepared.corpus.data(prepared.corpus.train, 0.0)[PlannedBatch(rows, Position())]
    theirs = plain.Collate(prepared)([plain.Rows(prepared.corpus.train.paths)[int(row)] for row in rows[::-1]])
    assert theirs.ids == ours.ids
    for name in ("phones", "tones", "languages", "features", "spectrograms", "waves", "speakers", "frame_lengths"):
        assert torch.equal(getattr(theirs, name), getattr(ours, name)), name
    assert len(set(ours.frame_lengths.tolist())) == 3, "without padding there is nothing to compare"
    torch.manual_seed(3)
    said, recorded = loop.say(theirs)
    found = {**loop.judge(said, recorded), **loop.please(theirs, said, recorded)}
    torch.manual_seed(3)
    spoken = objective.say(ours)
    sums, counts = {**objective.judge(ours, spoken), **objective.please(ours, spoken)}, objective.counts(ours)
    names = {"d": "D", "dur_d": "DUR"}
    for name, value in sums.items():
        torch.testing.assert_close(found[names.get(name, name)], value / counts[name], rtol=1e-4, atol=1e-5, msg=name)


def test_both_searches_find_the_same_path() -> None:
    generator = torch.Generator().manual_seed(1)
    scores = torch.randn(5, 40, 12, generator=generator).round(decimals=1)  # with ties
    tokens, frames = torch.tensor([12, 1, 7, 12, 3]), torch.tensor([40, 40, 7, 13, 25])
    assert torch.equal(plain.plain_durations(scores, tokens, frames), monotonic_durations(scores, tokens, frames))


def test_a_plain_epoch_takes_a_step_for_every_batch_and_learns(prepared: Prepared) -> None:
    networks = networks_of(prepared)
    before = {name: value.clone() for name, value in networks.state_dict().items()}
    done = plain.train(prepared, networks, epoch=0)
    begun, *done = done
    assert begun.clips == 0
    assert [step.clips for step in done] == [4, 4]
    assert sum(step.frames for step in done) == prepared.corpus.train.frames.sum()
    assert all(step.padded > step.frames for step in done)
    assert done[0].losses.keys() == {"DUR", "D", "mel", "kl", "dur", "adv", "fm", "dur_adv"}
    for part in ("G.", "D.", "DUR."):
        changed = [name for name, value in networks.state_dict().items() if not torch.equal(value, before[name])]
        assert any(name.startswith(part) for name in changed)


@pytest.fixture
def small(studio: Studio, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tiny networks and clips, and functions called here instead of in a process of their own."""

    def called(function: Any, arguments: dict[str, Any]) -> dict[str, Any]:
        return {"peak_mb": 1.0, **function(**json.loads(json.dumps(arguments, default=str)))}

    demo = studio.folder / "demo"
    if not demo.exists():
        shutil.copytree(studio.data, demo)
        shutil.copytree(studio.encoder, demo / "bge-m3")
    model = json.loads(write_config(studio.folder / "small.json").read_text(encoding="utf-8"))["model"]
    monkeypatch.setattr(bench, "open_demo", lambda: demo)
    monkeypatch.setitem(bench.SIZES, "middle", bench.Size("tiny", 9, 24, 2, model))
    monkeypatch.setattr(measuring, "_one_run", called)
    monkeypatch.setattr(torch, "set_num_threads", lambda number: None)  # other tests go on with theirs


@pytest.mark.usefixtures("small")
def test_a_run_writes_the_page(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    given = ["--sizes", "middle", "--rounds", "1", "--clips", "7", "--output", str(page), "--scratch", str(tmp_path)]
    assert bench.main(given) == 0
    text = page.read_text(encoding="utf-8")
    assert "1 of 1 targets met" in text, "only the search is judged where fewer clips are trained on"
    assert "| tiny: clips |" in text
    assert "| >= 1x | smaller size |" in text
    assert "alignment search, 6 x 500 frames x 120 tokens" in text
    assert not list(tmp_path.glob("bench-melotts-*")), "scratch is emptied"


def test_figures_are_of_all_updates() -> None:
    done = [plain.Step(5.0, 9.0), plain.Step(7.0, 13.0, 6, 30, 60), plain.Step(9.0, 17.0, 2, 30, 60)]
    assert bench._figures(done) == pytest.approx(
        {"clips": 2.0, "audio": 60 * 512 / 44_100 / 4.0, "clips_by_clock": 1.0, "padding": 0.5}
    )


def test_a_slower_loop_is_said_and_fails_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def measured(function: Any, repeats: int, run: Path = tmp_path, **_: Any) -> dict[str, float]:
        Path(run).mkdir(exist_ok=True)
        speed = speeds[function.__name__]
        return {"clips": speed, "audio": 1.0, "clips_by_clock": 1.0, "padding": 0.1}

    monkeypatch.setattr(bench, "measure", measured)
    page = tmp_path / "page.md"
    given = ["--sizes", "demo", "--rounds", "3", "--output", str(page)]
    speeds = {"make_data": 0.0, "plain": 2.0, "ours": 1.5}
    assert bench.main(given) == 1
    assert "| 2/s | 1.5/s | 0.75x | >= 1x | **short** |" in page.read_text(encoding="utf-8")
    speeds = {"make_data": 0.0, "plain": 2.0, "ours": 3.0}
    assert bench.main(given) == 0
    assert "| 2/s | 3/s | 1.5x | >= 1x | met |" in page.read_text(encoding="utf-8")
