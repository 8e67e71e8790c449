from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from tests.conftest import CorpusMaker
from tests.tiny import read_rows, write_rows
from tests.tiny_voice import CONFIG, LATENTS, Bench, differing, make_base
from tts_kernel.data.batch import FeatureError
from tts_kernel.data.demo.sentences import SENTENCES
from tts_kernel.data.manifest import ManifestError
from tts_kernel.data.ordering import order_mel_first
from tts_kernel.data.sampler import Position
from tts_kernel.data.speakers import SpeakerMapError
from tts_kernel.models.indextts2.config import read_config
from tts_kernel.models.indextts2.gpt import UnifiedVoice
from tts_kernel.models.weights import CheckpointError
from tts_kernel.recipes.indextts2 import explain
from tts_kernel.recipes.indextts2.model import build_model
from tts_kernel.recipes.indextts2.train import _optimizer
from tts_kernel.text.tokenizer import train_tokenizer

MODULES = {
    "backbone": ("gpt.", "final_norm.", "text_", "mel_", "speed_emb."),
    "speaker": ("conditioning_encoder.", "perceiver_encoder."),
    "emotion": ("emo_conditioning_encoder.", "emo_perceiver_encoder.", "emovec_layer.", "emo_layer."),
    "adversary": ("speaker_classifier.",),
}


@pytest.fixture
def bench(tmp_path: Path, make_tiny_corpus: CorpusMaker) -> Bench:
    return Bench(tmp_path, make_tiny_corpus(latents=LATENTS))


def edit_row(bench: Bench, row: int, manifest: str = "gpt_pairs_train_mel.jsonl", **changes: Any) -> None:
    path = bench.data / manifest
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    rows[row] |= changes
    rows[row] = {name: value for name, value in rows[row].items() if value is not None}
    path.write_text("".join(json.dumps(item) + "\n" for item in rows), encoding="utf-8")


def assert_nothing_trained(bench: Bench) -> None:
    assert not list(bench.run().checkpoints.glob("*.pth"))


# What each stage trains


@pytest.mark.parametrize(
    ("changes", "trained"),
    [
        ({"stage": 1}, {"backbone"}),  # stored conditions: nothing flows through the conditioners
        ({"stage": 1, "conditions": "computed"}, {"backbone", "speaker", "emotion"}),
        ({"stage": 2}, {"backbone", "emotion", "adversary"}),
        ({"stage": 2, "conditions": "computed"}, {"backbone", "emotion", "adversary"}),
        ({"stage": 3}, {"backbone"}),
        ({"stage": 3, "conditions": "computed"}, {"backbone"}),
    ],
    ids=lambda item: "-".join(map(str, item.values())) if isinstance(item, dict) else "",
)
def test_a_stage_trains_its_parts_and_leaves_the_others_bit_equal(
    bench: Bench, changes: dict[str, Any], trained: set[str]
) -> None:
    prepared = bench.prepare(**changes)
    torch.manual_seed(prepared.settings.seed)
    before = UnifiedVoice(prepared.config).state_dict()
    before |= torch.load(bench.base, weights_only=True)["model"]
    bench.train(max_steps=1, **changes)
    after = bench.saved(file="latest.pth")["model"]
    buffers = {name for name in before if name.endswith(".pe") or ".norm.running" in name or name.endswith("_tracked")}
    moved = differing(before, after) - buffers
    found = {part for part, prefixes in MODULES.items() if any(name.startswith(prefixes) for name in moved)}
    assert found == trained
    for part in trained - {"backbone"}:
        own = {name for name in before if name.startswith(MODULES[part])} - buffers
        assert len(moved & own) > 0.8 * len(own), f"{part}: only {sorted(moved & own)}"


def test_emotion_of_stage_2_is_computed_in_validation_too(bench: Bench) -> None:
    first = bench.train("first", max_steps=1).val_before
    for path in (bench.data / "emo_vec").iterdir():
        np.save(path, np.random.default_rng(1).standard_normal(LATENTS[1]).astype(np.float32))
    assert bench.train("stored", max_steps=1).val_before == first
    for path in (bench.data / "mel").iterdir():
        np.save(path, np.load(path)[::-1] * 3.0)
    changed = bench.train("mel", max_steps=1).val_before
    assert changed["val/loss"] != first["val/loss"]
    assert changed["val/speaker_loss"] != first["val/speaker_loss"]


def test_stage_3_reads_the_stored_vectors_and_no_mel(bench: Bench) -> None:
    first = bench.train("first", stage=3, max_steps=1).val_before
    assert "val/speaker_loss" not in first
    for path in (bench.data / "mel").iterdir():
        path.unlink()
    assert bench.train("no mel", stage=3, max_steps=1).val_before == first
    for path in (bench.data / "emo_vec").iterdir():
        np.save(path, 3.0 * np.load(path))
    assert bench.train("other", stage=3, max_steps=1).val_before != first


def test_an_error_in_the_adversary_stops_the_run(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: UnifiedVoice, emotion: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("the adversary is broken")

    monkeypatch.setattr(UnifiedVoice, "speaker_logits", fail)
    with pytest.raises(RuntimeError, match="the adversary is broken"):
        bench.train()
    assert_nothing_trained(bench)


def test_reversal_keeps_the_adversary_from_learning_the_speaker(bench: Bench) -> None:
    only = {"text_weight": 1e-9, "mel_weight": 0.0, "speaker_loss_weight": 1.0, "grad_clip": 1e9}
    sizes = {"batch_size": 24, "grad_accumulation": 1, "grl_schedule": "constant", "epochs": 15}
    losses = {}
    for strength in (0.0, 5.0):
        bench.train(f"at{strength:.0f}", **only, **sizes, grl_lambda=strength, learning_rate=3e-3)
        losses[strength] = bench.run(f"at{strength:.0f}").last("train/speaker_loss")
    assert losses[0.0] < 0.8 * losses[5.0], losses


def test_a_higher_classifier_rate_is_the_adversarys_alone(bench: Bench) -> None:
    settings = bench.settings(classifier_rate=3.0)
    model = UnifiedVoice(CONFIG)
    assert len(_optimizer(settings, model).param_groups) == 2
    model = UnifiedVoice(bench.prepare().config)
    groups = _optimizer(settings, model).param_groups
    assert [group["lr"] for group in groups] == pytest.approx([1e-3, 1e-3, 3e-3, 3e-3])
    assert [group["weight_decay"] for group in groups] == [0.01, 0.0, 0.01, 0.0]
    owned = {id(p) for group in groups[2:] for p in group["params"]}
    assert owned == {id(p) for p in model.speaker_classifier.parameters()}
    assert sum(len(group["params"]) for group in groups) == len(list(model.parameters()))


# Optimisers and precision


def test_prodigy_logs_the_rate_that_reaches_the_weights(bench: Bench) -> None:
    bench.train(optimizer="prodigy", learning_rate=1.0, d_coef=2.0, epochs=2)
    saved = bench.saved()
    steps, rates = bench.run().series("train/lr")
    assert rates[0] == pytest.approx(1e-6)  # Prodigy's first estimate, times 1.0
    assert rates[-1] > rates[0]
    assert saved["optimizer_type"] == "prodigy"
    assert saved["optimizer"]["param_groups"][0]["d"] >= rates[-1]
    assert "mel_head.weight" in differing(torch.load(bench.base)["model"], {
        name: value for name, value in saved["model"].items() if not name.startswith("speaker_classifier")
    })  # fmt: skip
    assert math.isfinite(bench.run().last("val/loss"))
    assert steps == list(range(1, 7))


def test_bfloat16_trains_with_float32_weights(bench: Bench) -> None:
    exact = bench.train("exact", max_steps=2, precision="float32")
    half = bench.train("half", max_steps=2, precision="bfloat16")
    assert half.val_after["val/loss"] != exact.val_after["val/loss"]
    assert half.val_after["val/loss"] == pytest.approx(exact.val_after["val/loss"], rel=0.02)
    assert {value.dtype for value in bench.saved("half")["model"].values()} == {torch.float32, torch.int64}


# Bad input


def test_text_longer_than_the_table_is_refused_or_counted(bench: Bench) -> None:
    edit_row(bench, 3, target_text_len=21)
    edit_row(bench, 5, target_code_len=31)
    with pytest.raises(ManifestError, match=r"jsonl:4: 21 text tokens[^\n]*at most 20 and 30") as caught:
        bench.train()
    assert len(caught.value.problems) == 2
    prepared = bench.prepare(drop_too_long=True)
    assert prepared.corpus.dropped == {"longer than the model's tables": 2}
    assert len(prepared.corpus.train_rows) == prepared.corpus.available == 22
    assert "2 rows left out: longer than the model's tables" in str(prepared)
    assert bench.train(drop_too_long=True).status == "finished"


def test_a_file_longer_than_its_manifest_says_is_refused(bench: Bench) -> None:
    np.save(bench.data / "text_ids" / "sp0_0.npy", np.full(21, 5))
    with pytest.raises(FeatureError, match=r"sp0_0\.npy: shape \[21\], expected 1 to 20 text tokens"):
        bench.train()


@pytest.mark.parametrize(
    ("file", "array", "message"),
    [
        ("codes/sp0_0.npy", np.array([3, 30]), "code 30 lies outside the model's vocabulary of 30"),
        ("codes/sp0_0.npy", np.array([3, -1]), "code -1 lies outside"),
        ("text_ids/sp0_0.npy", np.array([3, 50]), "text token 50 lies outside the model's vocabulary of 50"),
        ("mel/sp0_0.npy", np.zeros((40, 64), np.float32), r"shape \[40, 64\], expected \[at least 3 frames, 80\]"),
        ("mel/sp0_0.npy", np.full((40, 80), np.nan, np.float32), "3200 of 3200 values are NaN"),
        ("condition/sp0_0.npy", np.zeros((5, 32), np.float32), r"shape \[5, 32\], expected \[4, 32\]"),
    ],
    ids=["code", "negative code", "text", "64 bins", "NaN", "latents"],
)
def test_a_feature_that_does_not_fit_stops_the_run_by_name(
    bench: Bench, file: str, array: np.ndarray, message: str
) -> None:
    np.save(bench.data / file, array)
    with pytest.raises(FeatureError, match=message) as caught:
        bench.train()
    assert Path(file).name in str(caught.value)


def test_a_missing_feature_file_stops_the_run_before_its_first_step(bench: Bench) -> None:
    (bench.data / "mel" / "sp1_0.npy").unlink()
    (bench.data / "codes" / "sp0_5.npy").unlink()
    with pytest.raises(ManifestError, match=r"target_mel_path: mel/sp1_0\.npy does not exist"):
        bench.train()
    np.save(bench.data / "mel" / "sp1_0.npy", np.zeros((20, 80), np.float32))
    with pytest.raises(ManifestError, match=r"val\.jsonl.*codes/sp0_5\.npy does not exist"):
        bench.train()
    assert_nothing_trained(bench)


def test_a_row_without_a_feature_that_others_have_stops_the_run_before_its_first_step(bench: Bench) -> None:
    edit_row(bench, 7, prompt_condition_path=None)
    with pytest.raises(ManifestError, match=r"jsonl:8: .*prompt_condition_path"):
        bench.train()
    assert_nothing_trained(bench)


def test_a_manifest_without_mels_names_the_command(bench: Bench) -> None:
    for row in range(24):
        edit_row(bench, row, target_mel_path=None, target_mel_len=None)
    with pytest.raises(ManifestError, match=r"no row has a mel; run python -m tts_kernel\.data\.extract"):
        bench.train()


@pytest.mark.parametrize("role", ["target_id", "prompt_id"])
def test_validation_clips_that_are_trained_on_are_refused_with_their_number_and_one_of_them(
    bench: Bench, role: str
) -> None:
    held = sorted({row["target_id"] for row in read_rows(bench.data / "gpt_pairs_val.jsonl")})[:2]
    for row, clip in enumerate(held):
        edit_row(bench, row, **{role: clip})
    with pytest.raises(ManifestError, match=rf"val\.jsonl: 2 of its target clips are trained on, such as '{held[0]}'"):
        bench.prepare()
    assert_nothing_trained(bench)


def test_a_manifest_that_names_files_outside_its_folder_trains_only_where_that_is_allowed(bench: Bench) -> None:
    outside = bench.data.with_name("elsewhere")
    (bench.data / "codes").rename(outside)
    for name in ("gpt_pairs_train_mel.jsonl", "gpt_pairs_val.jsonl"):
        rows = read_rows(bench.data / name)
        write_rows(
            bench.data / name,
            [row | {"target_codes_path": f"../{outside.name}/{row['target_id']}.npy"} for row in rows],
        )
    with pytest.raises(ManifestError, match="target_codes_path"):
        bench.train()
    assert_nothing_trained(bench)
    assert bench.train(allow_outside_paths=True).step == 3


def test_a_checkpoint_of_another_architecture_is_refused(bench: Bench) -> None:
    deeper = make_base(bench.folder / "deeper", CONFIG.reading("mel").__class__(**{**vars(CONFIG), "layers": 2}))
    with pytest.raises(CheckpointError, match=r"gpt\.h\.1\.") as caught:
        bench.train(base_checkpoint=str(deeper), model_config=str(bench.base.parent / "config.yaml"))
    assert "Check that model_config belongs to this checkpoint" in str(caught.value)
    assert_nothing_trained(bench)


def test_a_truncated_checkpoint_is_refused(bench: Bench) -> None:
    content = bench.base.read_bytes()
    bench.base.write_bytes(content[: len(content) // 2])
    with pytest.raises(CheckpointError, match="truncated or damaged"):
        bench.train()
    assert_nothing_trained(bench)


def test_code_in_a_base_checkpoint_does_not_run(bench: Bench) -> None:
    trace = bench.folder / "it_ran"

    class Evil:
        def __reduce__(self) -> Any:
            return os.mkdir, (str(trace),)

    torch.save({"model": torch.load(bench.base)["model"], "note": Evil()}, bench.base)
    with pytest.raises(CheckpointError, match="could run code"):
        bench.train()
    assert not trace.exists()


@pytest.mark.parametrize(
    ("mapping", "share"),
    [({"nobody": 0}, r"0 of 40 rows \(0\.0%\)"), ({"sp0": 0, "sp3": 1}, r"16 of 40 rows \(40\.0%\)")],
)
def test_a_speaker_map_of_other_speakers_is_refused(
    tmp_path: Path, make_tiny_corpus: CorpusMaker, mapping: dict[str, int], share: str
) -> None:
    bench = Bench(tmp_path, make_tiny_corpus(speakers=5, latents=LATENTS))
    (tmp_path / "map.json").write_text(json.dumps(mapping), encoding="utf-8")
    with pytest.raises(SpeakerMapError, match=share):
        bench.prepare(speaker_mapping=str(tmp_path / "map.json"))


def test_a_speaker_map_of_some_speakers_is_used_where_it_is_meant(
    tmp_path: Path, make_tiny_corpus: CorpusMaker
) -> None:
    bench = Bench(tmp_path, make_tiny_corpus(speakers=5, latents=LATENTS))
    (tmp_path / "map.json").write_text('{"sp0": 0, "sp3": 1}', encoding="utf-8")
    chosen = {"speaker_mapping": str(tmp_path / "map.json"), "min_speaker_coverage": 0.4}
    prepared = bench.prepare(**chosen)
    assert prepared.config.num_speakers == 2
    bench.train(**chosen, max_steps=1)
    assert json.loads((bench.run().folder / "speaker_mapping.json").read_text()) == {"sp0": 0, "sp3": 1}
    assert 0.0 <= bench.run().last("val/speaker_acc") <= 1.0


def test_a_batch_of_unknown_speakers_alone_still_trains(tmp_path: Path, make_tiny_corpus: CorpusMaker) -> None:
    bench = Bench(tmp_path, make_tiny_corpus(speakers=3, latents=LATENTS))
    (tmp_path / "map.json").write_text('{"sp0": 0, "sp1": 1}', encoding="utf-8")
    chosen = {"speaker_mapping": str(tmp_path / "map.json"), "batch_size": 1, "grad_accumulation": 1}
    outcome = bench.train(**chosen)
    assert outcome.status == "finished"
    assert all(math.isfinite(value) for value in outcome.val_after.values())


def with_mels_of(data: Path, speakers: str) -> None:
    """Leave the mels of these speakers only ("[12]" is a glob), and order the manifest by them."""
    for mel in set((data / "mel").glob("*.npy")) - set((data / "mel").glob(f"sp{speakers}_*.npy")):
        mel.unlink()
    (data / "gpt_pairs_train_mel.jsonl").unlink()
    rows = [json.loads(line) for line in (data / "gpt_pairs_train.jsonl").read_text(encoding="utf-8").splitlines()]
    bare = [{name: value for name, value in row.items() if "mel" not in name} for row in rows]
    (data / "gpt_pairs_train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in bare), encoding="utf-8")
    order_mel_first(data)


def test_a_map_that_misses_the_rows_with_a_mel_is_refused(tmp_path: Path, make_tiny_corpus: CorpusMaker) -> None:
    data = make_tiny_corpus(latents=LATENTS)
    with_mels_of(data, "0")
    (tmp_path / "map.json").write_text('{"sp1": 0, "sp2": 1}', encoding="utf-8")
    with pytest.raises(SpeakerMapError, match="0 of 4 rows"):
        Bench(tmp_path, data).prepare(speaker_mapping=str(tmp_path / "map.json"), validation_share=0.3)


def test_validation_stays_on_its_first_pairs_when_more_mels_arrive(
    tmp_path: Path, make_tiny_corpus: CorpusMaker
) -> None:
    data = make_tiny_corpus(latents=LATENTS, clips=8)
    mels = {mel.name: mel.read_bytes() for mel in (data / "mel").glob("*.npy")}
    with_mels_of(data, "[01]")
    bench = Bench(tmp_path, data)

    def validated() -> list[str]:
        corpus = bench.prepare(validation_share=0.3).corpus
        return corpus.validation.take(corpus.validation_rows).strings("id").to_pylist()

    before = validated()
    for name, content in mels.items():
        (data / "mel" / name).write_bytes(content)
    assert order_mel_first(data).added > 0
    assert validated() == before
    (bench.run().folder / "validation_pairs.txt").unlink()
    assert len(validated()) > len(before)


def test_the_vocabulary_grows_by_token_name_through_the_recipe(bench: Bench, tmp_path: Path) -> None:
    text = SENTENCES["en"]
    old = train_tokenizer(text, tmp_path / "old.model", CONFIG.number_text_tokens)
    new = train_tokenizer([*text, "grüße über öfen"], tmp_path / "new.model", CONFIG.number_text_tokens + 6)
    prepared = bench.prepare(tokenizer=str(new.path), base_tokenizer=str(old.path))
    model = build_model(prepared.settings, prepared.config)
    before = torch.load(bench.base, weights_only=True)["model"]["text_embedding.weight"]
    assert len(model.text_embedding.weight) == new.vocab_size + 1 > len(before)
    token = next(token for token in new.tokens()[3:] if token in old.tokens()[3:])
    after = model.text_embedding.weight[new.tokens().index(token)]
    assert torch.equal(after, before[old.tokens().index(token)])


# What a run leaves


def test_a_runs_config_opens_its_checkpoint_for_the_next_stage(bench: Bench) -> None:
    bench.train("two", max_steps=1)
    checkpoint = bench.run("two").checkpoints / "best_model.pth"
    assert read_config(checkpoint.parent / "config.yaml") == bench.prepare("two").config
    written = yaml.safe_load((checkpoint.parent / "config.yaml").read_text(encoding="utf-8"))
    assert written["settings"]["max_steps"] == 1
    outcome = bench.train("three", stage=3, base_checkpoint=str(checkpoint), max_steps=1)
    assert outcome.status == "step limit reached"
    again = bench.train("again", base_checkpoint=str(checkpoint), max_steps=1)
    assert again.val_before["val/loss"] == bench.run("two").last("val/loss")


def test_no_batch_holds_two_pairs_of_one_clip(bench: Bench) -> None:
    prepared = bench.prepare(batch_size=4)
    targets = np.array(prepared.corpus.train.strings("target_id").to_pylist())
    for epoch in range(3):
        planned = list(prepared.plan.epoch(Position(epoch)))
        assert len(planned) == 6
        assert all(len(set(targets[batch.rows])) == 4 for batch in planned)


def test_the_end_is_explained_with_what_to_do_next(bench: Bench) -> None:
    prepared, run = bench.prepare(), bench.run()
    limited = bench.train(max_steps=1)
    assert (
        explain(limited, prepared, run)
        == "step limit reached: step 1 of 3. run_name run with a higher max_steps goes on"
    )
    assert explain(bench.train(), prepared, run) == "finished: step 3 of 3"


def test_a_run_that_ends_inside_its_warm_up_is_warned_of(bench: Bench) -> None:
    assert "WARNING: the run ends inside its warm-up of 1,000 steps" in str(bench.prepare(warmup_steps=1000))
    assert "WARNING" not in str(bench.prepare(warmup_steps=1))
