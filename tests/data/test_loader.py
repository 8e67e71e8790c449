from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from tts_kernel.data import loader as loaders
from tts_kernel.data.batch import Batch, Limits, PairDataset
from tts_kernel.data.loader import BatchLoader, LoaderSettings
from tts_kernel.data.manifest import read_manifest
from tts_kernel.data.sampler import BatchPlan, Position

LIMITS = Limits(50, 30, 20, 40, latents=(4, 64), semantic_bins=20, emotion_bins=80)


@pytest.fixture
def data(tiny_corpus: Path) -> PairDataset:
    manifest = read_manifest(tiny_corpus / "gpt_pairs_train.jsonl")
    return PairDataset(manifest, LIMITS, np.zeros(len(manifest), np.int32), "mel", "stored")


def plan_of(data: PairDataset) -> BatchPlan:
    rows = np.arange(len(data.manifest))
    return BatchPlan(rows, data.manifest.numbers("target_code_len"), len(rows), batch_size=5)


def ids(batches: object) -> list[list[str]]:
    return [batch.ids for batch in batches]  # type: ignore[attr-defined]


@pytest.mark.parametrize("start", ["fork", "forkserver", "spawn"])
def test_workers_of_any_start_method_give_the_batches_of_no_workers(data: PairDataset, start: str) -> None:
    plan = plan_of(data)
    expected = list(BatchLoader(data, plan, LoaderSettings()).batches(Position()))
    found = list(BatchLoader(data, plan, LoaderSettings(2, worker_start=start)).batches(Position()))  # type: ignore[arg-type]
    assert ids(found) == ids(expected)
    assert [batch.position for batch in found] == [batch.position for batch in expected]
    assert all(torch.equal(a.emotion_features, b.emotion_features) for a, b in zip(found, expected, strict=True))


class ByWorker(PairDataset):
    """Batches that tell the process that read them."""

    def __getitem__(self, planned: object) -> Batch:
        batch = super().__getitem__(planned)  # type: ignore[arg-type]
        info = torch.utils.data.get_worker_info()
        batch.ids.append(f"{info.seed if info else 'here'}")
        return batch


@pytest.mark.parametrize("persistent", [True, False])
def test_workers_stay_from_one_epoch_to_the_next_if_asked(tiny_corpus: Path, persistent: bool) -> None:
    manifest = read_manifest(tiny_corpus / "gpt_pairs_train.jsonl")
    data = ByWorker(manifest, LIMITS, np.zeros(len(manifest), np.int32), "mel", "stored")
    loader = BatchLoader(data, plan_of(data), LoaderSettings(1, persistent_workers=persistent))
    seeds = [{batch.ids[-1] for batch in loader.batches(Position(epoch))} for epoch in range(2)]
    assert (seeds[0] == seeds[1]) == persistent


@pytest.mark.parametrize("workers", [0, 2])
def test_a_loader_begins_where_it_is_told_also_after_it_was_left(data: PairDataset, workers: int) -> None:
    plan = plan_of(data)
    loader = BatchLoader(data, plan, LoaderSettings(workers))
    whole = list(loader.batches(Position()))
    left = loader.batches(Position())
    assert next(left).ids == whole[0].ids
    position = whole[1].position
    assert position is not None
    assert ids(loader.batches(position)) == ids(whole[2:])


def test_the_random_state_that_a_resume_restores_is_not_drawn_from(data: PairDataset) -> None:
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    list(BatchLoader(data, plan_of(data), LoaderSettings(1)).batches(Position()))
    assert torch.equal(torch.rand(1), expected)


def test_auto_forks_where_that_is_safe(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "linux")
    assert LoaderSettings().start_method() == "fork"
    monkeypatch.setattr(sys, "platform", "darwin")
    assert LoaderSettings().start_method() == "forkserver"
    monkeypatch.setattr(loaders.multiprocessing, "get_all_start_methods", lambda: ["spawn"])
    assert LoaderSettings().start_method() == "spawn"
    with pytest.raises(ValueError, match="worker_start is 'fork', expected auto or one of spawn"):
        LoaderSettings(worker_start="fork")


@pytest.mark.parametrize(("workers", "ahead"), [(-1, 2), (2, 0)])
def test_impossible_numbers_are_refused(workers: int, ahead: int) -> None:
    with pytest.raises(ValueError, match=f"num_workers is {workers} and prefetch_factor {ahead}"):
        LoaderSettings(workers, ahead)
