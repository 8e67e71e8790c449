from __future__ import annotations

import json
from pathlib import Path

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


def test_too_few_batches_for_a_step_are_said() -> None:
    assert "too few for one optimiser step of 500" in survey_of(utterances=20, grad_accumulation=500).verdict()


def test_a_list_is_read_and_what_the_figures_need_is_written(tmp_path: Path) -> None:
    path = write_shards(tmp_path / "data", [*rows(9), row("short", 0.05)])
    tokenizer = train_tokenizer(["x xx xxx xxxx xxxxx"], tmp_path / "bpe.model", 8)
    found = survey_of(data=str(path), tokenizer=str(tokenizer.path), min_length=10.0)
    assert str(found.source).startswith(f"{path}: 10 utterances, 0.01 hours, 1 speakers")
    assert (found.facts()["utterances"], found.facts()["kept"]) == (10, 9)
    assert found.facts()["drops"] == {"filter: too short": 1}
    (tmp_path / "run").mkdir()
    values = json.loads(found.save(Run(tmp_path / "run")).read_text(encoding="utf-8"))
    assert (tmp_path / "run" / FILE).is_file()
    assert sum(values["frames"]["counts"]) == sum(values["text_tokens"]["counts"]) == 10
    assert sum(values["batch_sizes"]["counts"]) == len(found.counted)
    assert [account["processor"] for account in values["accounts"]][2] == "filter"
    assert values["accounts"][2]["drops"][0]["count"] == 1
