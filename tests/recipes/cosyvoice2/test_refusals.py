"""Input and settings with which nothing is trained, and what is told of odd input with which it is."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.data.pipeline.written import row, write_shards
from tests.recipes.cosyvoice2.bench import SIZES, Bench, make_base
from tts_kernel.data.pipeline import PipelineError
from tts_kernel.models.config_types import ConfigError
from tts_kernel.models.weights import CheckpointError
from tts_kernel.recipes.cosyvoice2 import train
from tts_kernel.recipes.cosyvoice2.model import check_models, write_sizes
from tts_kernel.text.tokenizer import train_tokenizer


def test_a_pipeline_that_leaves_nothing_is_refused_with_what_would_keep_it(bench: Bench) -> None:
    with pytest.raises(PipelineError) as caught:
        bench.prepare(token_max_length=0)
    assert "data: 0 of 9 utterances are left" in str(caught.value)
    assert "cv_data: 0 of 3 utterances are left" in str(caught.value)
    assert "token_max_length is 0, which is a limit" in str(caught.value)


def test_a_speaker_of_whom_nothing_is_left_is_refused_by_name_in_either_list(bench: Bench) -> None:
    both = [row("u_one", 0.7), *(row(f"u_two{number}", 1.6, spk="another") for number in range(2))]
    write_shards(bench.folder / "both", both)
    for name in ("data", "cv_data"):
        with pytest.raises(PipelineError) as caught:
            bench.prepare(max_length=150.0, **{name: str(bench.folder / "both")})
        assert f"{name}: nothing is left of speaker another (2 utterances): 2 too long" in str(caught.value)
        assert "allow_lost_speakers" in str(caught.value)
    kept = bench.prepare(max_length=150.0, allow_lost_speakers=True, cv_data=str(bench.folder / "both"))
    said = str(kept)
    assert "cv_data: filter drops 2 too long (max_length is 150): u_two0, u_two1" in said


def test_a_first_row_beyond_max_frames_in_batch_is_a_batch_of_its_own(bench: Bench) -> None:
    write_shards(bench.folder / "long", [row("u_long", 3.0), row("u_a", 0.6), row("u_b", 0.6)])
    changes: dict[str, Any] = {"data": str(bench.folder / "long"), "shuffle_size": 0, "sort_size": 0}
    prepared = bench.prepare(**changes)
    said = str(prepared)
    assert "the first utterance, u_long, exceeds max_frames_in_batch; upstream's loader would fail on it" in said
    assert "u_long has 150 frames" in said
    assert [len(prepared.corpus.train.first.batch(number)) for number in range(2)] == [1, 2]
    assert len(prepared.corpus.train.first) == 2
    assert train(prepared, bench.run()).status == "finished"


def test_utterances_that_are_trained_on_and_held_out_are_refused(bench: Bench) -> None:
    with pytest.raises(PipelineError, match="9 utterances are in data and in cv_data, such as u0, u1, u2"):
        bench.prepare(cv_data=str(bench.folder / "train"))


def test_frames_are_twice_the_tokens_and_who_was_trimmed_is_named(bench: Bench) -> None:
    longer = row("u_long", 0.8)
    longer["speech_token"] = [*longer["speech_token"], 1, 2]
    write_shards(bench.folder / "odd", [longer, row("u_right", 0.7)])
    prepared = bench.prepare(data=str(bench.folder / "odd"))
    assert "trimmed to 2 mel frames per speech token: 1 of 2 utterances, by 2 tokens at most: u_long" in str(prepared)
    assert "cv_data: trimmed to 2 mel frames per speech token: 1 of 2" in str(
        bench.prepare(cv_data=str(bench.folder / "odd"))
    )
    assert train(prepared, bench.run()).status == "finished"


def test_tokens_that_the_base_does_not_have_are_refused_by_their_utterance(bench: Bench) -> None:
    strange = row("strange", 0.7) | {"speech_token": [5] * 17 + [200]}
    write_shards(bench.folder / "odd", [row("u_right", 0.7), strange])
    with pytest.raises(PipelineError, match="strange: speech tokens 5 to 200, expected 0 to 199"):
        bench.train(model="flow", data=str(bench.folder / "odd"))
    letters = "abcdefghijklmnopqrstuvwxyz"
    train_tokenizer([" ".join(letters * 3), "x xx xxx"], bench.base / "bpe.model", 58)  # single letters come last
    write_shards(bench.folder / "words", [row("many", 0.7) | {"text": letters}, row("u_right", 0.7)])
    with pytest.raises(PipelineError, match=r"many: text tokens \d+ to \d+, expected 0 to 49"):
        bench.train("other", model="llm", data=str(bench.folder / "words"))


def test_bases_that_are_missing_or_of_other_sizes_are_refused_together_before_training(
    bench: Bench, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=r"no such folder; expected one with llm\.pt and flow\.pt"):
        bench.prepare(base_model=str(tmp_path / "nowhere"))
    (bench.base / "flow.pt").unlink()
    write_sizes(replace(SIZES, llm=replace(SIZES.llm, speech_token_size=210)), bench.base)
    with pytest.raises(CheckpointError) as caught:
        bench.prepare()
    assert "llm.pt: does not fit this model" in str(caught.value)
    assert "flow.pt: does not exist" in str(caught.value)
    with pytest.raises(CheckpointError, match=r"flow\.pt: does not exist"):
        bench.prepare(model="flow")
    (bench.base / "config.yaml").write_text("lm: {}\n", encoding="utf-8")
    with pytest.raises(ConfigError, match="expected the sections llm and flow"):
        bench.prepare()


def test_adapters_that_are_missing_or_of_another_base_are_refused_together_before_training(bench: Bench) -> None:
    bench.train("first", model="llm")
    other = make_base(bench.folder / "other", seed=12)
    with pytest.raises(CheckpointError) as caught:
        bench.prepare(adapter=str(bench.run("first").folder), base_model=str(other), rank=3)
    for expected in (
        "rank: 2 there, 3 here",
        f"base: trained on {bench.base / 'llm.pt'}",
        f"{bench.run('first').folder / 'flow' / 'adapter' / 'adapter_config.json'}: no such file",
    ):
        assert expected in str(caught.value)


def test_checking_the_models_reads_no_values_and_says_nothing(bench: Bench, recwarn: pytest.WarningsRecorder) -> None:
    settings = bench.settings()
    check_models(settings, SIZES)
    check_models(replace(settings, method="full", base_model=str(bench.folder)), SIZES)  # without files: fresh weights
    assert not recwarn.list


def test_what_will_not_fit_or_ends_inside_its_warmup_is_said_before_training(bench: Bench) -> None:
    said = str(bench.prepare(memory_limit=0.5, warmup_steps=100))
    assert "WARNING: llm will not fit into 0.5 GB; lower max_frames_in_batch, or set gradient_checkpointing" in said
    assert "WARNING: flow ends inside its warm-up of 100 steps" in said
    assert "WARNING" not in str(bench.prepare())
