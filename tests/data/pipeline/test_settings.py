from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from tests.data.pipeline.test_upstream import OURS
from tts_kernel.data.pipeline import PipelineError
from tts_kernel.data.pipeline.processors import Filter, Shuffle
from tts_kernel.data.pipeline.settings import CountSettings, pipeline_of
from tts_kernel.runs import PROJECT_ROOT
from tts_kernel.settings import SettingsError, read_settings

FILES = sorted((PROJECT_ROOT / "parameters" / "01_batch_count").glob("*.yaml"))
assert FILES, "nothing collected: the test below would pass by not running"


def test_settings_make_the_pipeline_that_they_say() -> None:
    made = pipeline_of(CountSettings(token_max_length=50, shuffle_size=0, max_frames_in_batch=900))
    assert made.of(Filter) == Filter(max_length=40960, min_length=0, token_max_length=50)
    assert made.of(Shuffle) is None
    assert made.batching.max_frames_in_batch == 900


def test_a_file_decides_instead_of_the_settings(tmp_path: Path) -> None:
    path = tmp_path / "conf.yaml"
    path.write_text(OURS.replace("token_max_length: 400", "token_max_length: 0"), encoding="utf-8")
    read = pipeline_of(CountSettings(pipeline=str(path), token_max_length=7)).of(Filter)
    assert read is not None
    assert (read.token_max_length, read.zero_is_no_limit) == (0, False)
    opted = pipeline_of(CountSettings(pipeline=str(path), zero_is_no_limit=True)).of(Filter)
    assert opted is not None
    assert opted.zero_is_no_limit
    with pytest.raises(PipelineError, match="no such file"):
        pipeline_of(CountSettings(pipeline=str(tmp_path / "gone.yaml")))


def test_no_limit_adds_no_filter_with_limits_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / "conf.yaml"
    path.write_text("train_data_pipeline: [{processor: batch, conf: {batch_type: dynamic}}]", encoding="utf-8")
    assert pipeline_of(CountSettings(pipeline=str(path), zero_is_no_limit=True)).of(Filter) is None


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"try_frames": "400, many"}, "try_frames: found '400, many'"),
        ({"try_text_tokens": "0"}, "try_text_tokens: found '0'"),
        ({"utterances": 3, "data": "here"}, "utterances and data: found 3 and 'here'"),
        ({"shuffle_size": 1}, "shuffle_size: found 1"),
        ({"data": "here"}, "tokenizer: not given"),
        ({"batch_type": "other"}, "batch_type: found 'other'"),
        ({"min_kept": 2.0}, "min_kept: found 2.0"),
        ({"max_frames": 3}, "max_frames: not a parameter"),
    ],
)
def test_settings_that_cannot_be_used_are_refused(values: dict[str, object], reason: str) -> None:
    with pytest.raises(SettingsError, match=reason):
        read_settings(CountSettings, values)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_parameter_file_makes_a_pipeline(path: Path) -> None:
    assert pipeline_of(read_settings(CountSettings, yaml.safe_load(path.read_text(encoding="utf-8"))))
