from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from tests.data.pipeline.written import row, rows, write_shards
from tts_kernel.data.pipeline import PipelineError
from tts_kernel.data.pipeline.settings import CountSettings
from tts_kernel.data.pipeline.survey import FILE, Survey, open_source, survey
from tts_kernel.runs import PROJECT_ROOT, Run
from tts_kernel.settings import read_settings
from tts_kernel.text.tokenizer import train_tokenizer


def survey_of(**values: object) -> Survey:
    settings = read_settings(CountSettings, values)
    return survey(open_source(settings), settings)


def parameters(name: str) -> dict[str, object]:
    path = PROJECT_ROOT / "parameters" / "01_batch_count" / f"{name}.yaml"
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def test_the_guides_case_has_about_240_batches() -> None:
    found = survey_of(**parameters("guide_266"))
    assert 235 <= len(found.counted) <= 245
    assert found.problems() == []
    assert found.verdict() == f"{len(found.counted)} batches per epoch, 30 optimiser steps of 8, 0.1% padding"
    found.refuse()


def test_the_trap_is_named_in_the_verdict_and_refused() -> None:
    found = survey_of(**parameters("guide_trap"))
    assert found.verdict().startswith("0 batches per epoch: token_max_length is 0, which is a limit and drops every")
    assert "zero_is_no_limit" in found.verdict()
    found.refuse()  # the file asks for a report only
    with pytest.raises(PipelineError, match="token_max_length is 0"):
        survey_of(**parameters("guide_trap") | {"on_refusal": "fail"}).refuse()
    assert survey_of(**parameters("guide_trap") | {"zero_is_no_limit": True}).problems() == []


def test_other_settings_are_counted_beside_the_chosen_one() -> None:
    found = survey_of(utterances=266, try_frames="400, 1000, 2000", try_text_tokens="20, 400")
    tried = {(each.setting, each.value): each for each in found.tries}
    chosen = [key for key, each in tried.items() if each.chosen]
    assert chosen == [("max_frames_in_batch", 400), ("token_max_length", 400)]
    frames = [tried["max_frames_in_batch", value] for value in (400, 1000, 2000)]
    assert [each.batches for each in frames] == sorted((each.batches for each in frames), reverse=True)
    assert [each.memory_gb for each in frames] == sorted(each.memory_gb for each in frames)
    assert tried["token_max_length", 20].kept < tried["token_max_length", 400].kept == 266
    static = survey_of(utterances=50, batch_type="static", try_text_tokens="")
    assert [each.setting for each in static.tries] == ["token_max_length"]


def test_what_was_not_there_to_change_is_not_tried(tmp_path: Path) -> None:
    path = tmp_path / "conf.yaml"
    path.write_text("train_data_pipeline: [{processor: batch, conf: {batch_type: dynamic}}]", encoding="utf-8")
    found = survey_of(utterances=50, pipeline=str(path))
    assert {each.setting for each in found.tries} == {"max_frames_in_batch"}
    assert {each.kept for each in found.tries} == {50}


def test_the_table_has_a_line_for_each_setting_and_says_where_0_is_no_limit() -> None:
    found = survey_of(utterances=266, token_max_length=0, zero_is_no_limit=True, try_frames="1000", try_text_tokens="9")
    head, *lines = found.table().splitlines()
    assert head.split() == ["setting", "value", "kept", "batches", "steps", "padding", "memory"]
    assert [line.split()[:3] for line in lines] == [
        ["max_frames_in_batch", "400*", "266"],
        ["max_frames_in_batch", "1,000", "266"],
        ["token_max_length", "none*", "266"],
        ["token_max_length", "9", str(found.tries[3].kept)],
    ]
    assert len({len(line) for line in lines}) == 1


def test_too_few_batches_for_a_step_are_said() -> None:
    verdict = survey_of(utterances=20, grad_accumulation=500).verdict()
    assert "fewer than the 500 of an optimiser step: an epoch is a single, smaller one" in verdict


def test_what_is_dropped_is_in_the_verdict() -> None:
    found = survey_of(utterances=266, min_length=600.0)
    lost = 266 - found.counted.accounts.kept
    assert found.problems() == []
    assert found.verdict().endswith(f"padding; {lost} of 266 utterances are dropped")


def test_a_lost_speaker_is_the_verdict_and_not_what_was_dropped_most(tmp_path: Path) -> None:
    given = [*rows(9), row("r", 0.05), row("s", 0.05), row("k", words=300, spk="kim")]
    path = write_shards(tmp_path / "data", given)
    tokenizer = train_tokenizer(["x xx xxx xxxx xxxxx"], tmp_path / "bpe.model", 8)
    found = survey_of(data=str(path), tokenizer=str(tokenizer.path), min_length=10.0, token_max_length=100)
    assert "but nothing is left of speaker kim (1 utterance): 1 too much text" in found.verdict()


def test_nothing_read_is_the_verdict(tmp_path: Path) -> None:
    path = write_shards(tmp_path / "data", [])
    tokenizer = train_tokenizer(["x xx xxx xxxx xxxxx"], tmp_path / "bpe.model", 8)
    found = survey_of(data=str(path), tokenizer=str(tokenizer.path))
    assert found.verdict() == "0 batches per epoch, but no utterance came in; is data.list the right one?"


def test_bars_hold_whole_numbers_of_values_so_that_an_even_spread_is_even(tmp_path: Path) -> None:
    values = counts_of(tmp_path, utterances=50_000, try_frames="400", try_text_tokens="400")
    for name, unit in (("frames", 2), ("text_tokens", 1), ("speech_tokens", 1)):
        edges, counts = values[name]["edges"], np.array(values[name]["counts"])
        width = edges[1] - edges[0]
        assert width % unit == 0
        assert (edges[0] + unit / 2) % unit == 0
        smooth = (counts[:-2] + counts[2:]) / 2
        high = smooth > 0.5 * counts.max()
        assert (np.abs(counts[1:-1] - smooth)[high] < 0.15 * smooth[high]).all(), name


def counts_of(folder: Path, **values: object) -> dict[str, Any]:
    read: dict[str, Any] = json.loads(survey_of(**values).save(Run(folder)).read_text(encoding="utf-8"))
    return read


def test_limits_lie_in_the_unit_of_what_they_limit(tmp_path: Path) -> None:
    limits = counts_of(tmp_path, utterances=30, min_length=100.0, max_length=900.0, token_min_length=2)["limits"]
    assert limits["frames"] == [
        ["max_frames_in_batch 400", 400],
        ["min_length 100 x 10 ms = 50", 50],
        ["max_length 900 x 10 ms = 450", 450],
    ]
    assert limits["text_tokens"] == [["token_min_length 2", 2], ["token_max_length 400", 400]]
    free = {"token_max_length": 0, "zero_is_no_limit": True, "batch_type": "static", "max_length": 1e6}
    assert counts_of(tmp_path, utterances=30, **free)["limits"]["text_tokens"] == []


def test_a_list_is_read_and_what_the_figures_need_is_written(tmp_path: Path) -> None:
    path = write_shards(tmp_path / "data", [*rows(9), row("short", 0.05)])
    tokenizer = train_tokenizer(["x xx xxx xxxx xxxxx"], tmp_path / "bpe.model", 8)
    found = survey_of(data=str(path), tokenizer=str(tokenizer.path), min_length=10.0)
    assert str(found.source).startswith(f"{path}: 10 utterances, 0.01 hours, 1 speaker\n")
    assert (found.facts()["utterances"], found.facts()["kept"]) == (10, 9)
    assert found.facts()["drops"] == {"filter: too short": 1}
    (tmp_path / "run").mkdir()
    values = json.loads(found.save(Run(tmp_path / "run")).read_text(encoding="utf-8"))
    assert (tmp_path / "run" / FILE).is_file()
    assert sum(values["frames"]["counts"]) == sum(values["text_tokens"]["counts"]) == 10
    assert sum(values["batch_sizes"]["counts"]) == len(found.counted)
    assert [account["processor"] for account in values["accounts"]][2] == "filter"
    assert values["accounts"][2]["drops"][0]["count"] == 1
