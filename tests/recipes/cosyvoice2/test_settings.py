from __future__ import annotations

from typing import Any

import pytest

from tts_kernel.data.pipeline.settings import CountSettings
from tts_kernel.recipes.cosyvoice2.settings import Settings, counting
from tts_kernel.settings import SettingsError, read_settings


def test_defaults_are_the_guides() -> None:
    guide = Settings()
    assert (guide.learning_rate, guide.warmup_steps, guide.grad_accumulation, guide.schedule) == (
        1e-5,
        200,
        8,
        "warmuplr",
    )
    assert (guide.epochs("llm"), guide.epochs("flow"), guide.log_every, guide.save_every) == (30, 84, 1, 100)
    assert (guide.max_frames_in_batch, guide.token_max_length, guide.grad_clip) == (400, 400, 5.0)


def test_both_is_the_language_model_first() -> None:
    assert Settings().models == ("llm", "flow")
    assert Settings(model="flow").models == ("flow",)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (
            {"rank": 0, "alpha": 0, "lora_dropout": 1.0, "model": "lmm", "max_frames_in_batch": 0},
            ["rank: found 0", "alpha: found 0", "lora_dropout: found 1.0", "model: found 'lmm'", "max_frames_in_batch"],
        ),
        ({"shuffle_size": 1}, ["shuffle_size: found 1, expected 0 for none or 2 at least"]),
        ({"data": "x"}, ["cv_data, tokenizer, base_model: not given"]),
        ({"cv_data": "x"}, ["data: found empty with cv_data"]),
        ({"method": "full", "dora": True}, ["method: found 'full' with settings of an adapter"]),
        ({"optimizer": "prodigy"}, ["learning_rate: found 1e-05 with optimizer 'prodigy', expected 1.0"]),
        ({"optimizer": "schedulefree"}, ["schedule: found 'warmuplr' with optimizer 'schedulefree'"]),
        ({"on_spike": "rollback", "keep_checkpoints": 0}, ["on_spike: found 'rollback' with keep_checkpoints 0"]),
        ({"on_out_of_memory": "split", "processes": 2}, ["on_out_of_memory: found 'split' with several processes"]),
        ({"rank": 0, "model": "hift", "ranks": 8}, ["rank: found 0", "model: found 'hift'", "did you mean rank?"]),
    ],
    ids=lambda item: ",".join(item) if isinstance(item, dict) else "",
)
def test_what_contradicts_itself_is_refused_all_at_once(given: dict[str, Any], expected: list[str]) -> None:
    with pytest.raises(SettingsError) as caught:
        read_settings(Settings, given)
    for text in expected:
        assert text in str(caught.value)


def test_a_count_has_the_batches_of_the_training() -> None:
    settings = Settings(token_max_length=7, max_frames_in_batch=123, sort_size=5, seed=3, zero_is_no_limit=True)
    expected = CountSettings(
        data="list",
        tokenizer="bpe",
        token_max_length=7,
        max_frames_in_batch=123,
        sort_size=5,
        seed=3,
        zero_is_no_limit=True,
    )
    with_tokenizer = Settings(
        **{**settings.__dict__, "data": "list", "cv_data": "cv", "tokenizer": "bpe", "base_model": "base"}
    )
    assert counting(with_tokenizer, "list") == expected
