from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.data.pipeline.written import row, write_shards
from tests.recipes.cosyvoice2.bench import CODES, Bench
from tts_kernel.data.pipeline.batches import PipelineDataset, Spoken
from tts_kernel.data.sampler import Position
from tts_kernel.recipes.cosyvoice2.corpus import fingerprint, open_corpus


def test_an_utterance_is_decoded_once_while_there_is_room(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    corpus = open_corpus(bench.settings())
    decoded: list[int] = []
    own = PipelineDataset.spoken

    def spoken(self: PipelineDataset, number: int) -> Spoken:
        decoded.append(number)
        return own(self, number)

    monkeypatch.setattr(PipelineDataset, "spoken", spoken)
    plan = corpus.train
    for gigabytes, times in ((1.0, 1), (0.0, 2)):
        decoded.clear()
        data = corpus.data(plan, gigabytes, 50, CODES)
        epochs = [[data[planned] for planned in plan.epoch(Position(epoch=epoch))] for epoch in (0, 1)]
        assert sorted(decoded) == sorted(list(range(9)) * times)
        assert sorted(name for batch in epochs[1] for name in batch.ids) == [f"u{number}" for number in range(9)]


def test_kept_utterances_make_the_pipelines_own_batches(bench: Bench) -> None:
    corpus = open_corpus(bench.settings())
    plan = corpus.train
    plain = PipelineDataset(plan.pipeline, plan.lengths, corpus.encoder)
    kept = corpus.data(plan, 1.0, 50, CODES)
    for planned in [*plan.epoch(Position()), *plan.epoch(Position())]:
        ours, theirs = kept[planned], plain[planned]
        assert ours.facts() == theirs.facts()
        assert ours.position == theirs.position
        assert torch.equal(ours.mel, theirs.mel)
        assert torch.equal(ours.embedding, theirs.embedding)


def test_a_fingerprint_follows_the_utterances_and_their_lengths(bench: Bench, tmp_path: Path) -> None:
    def of(*shards: list[dict[str, object]]) -> int:
        folder = tmp_path / f"shards{len(list(tmp_path.iterdir()))}"
        write_shards(folder, *shards)
        return fingerprint(open_corpus(bench.settings(data=str(folder))).train)

    plain = of([row("a", 0.6), row("b", 0.8)])
    assert of([row("a", 0.6), row("b", 0.8)]) == plain
    assert of([row("a", 0.6), row("c", 0.8)]) != plain
    assert of([row("a", 0.6), row("b", 1.0)]) != plain
    assert of([row("a", 0.6)], [row("b", 0.8)]) == plain  # shards are how it lies on the disk


def test_the_accounts_and_the_batches_are_told(bench: Bench) -> None:
    said = str(open_corpus(bench.settings(max_length=110.0)))
    assert "too long (max_length is 110)" in said
    assert "6 utterances to train on in" in said
    assert "3 to validate on" in said
