from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.models.cosyvoice2.tiny_models import flow
from tests.synthesis.tiny_folder import SIZES, TEXT, make_folder, save
from tts_kernel.models.config_types import ConfigError
from tts_kernel.models.cosyvoice2.config import HiftConfig
from tts_kernel.models.cosyvoice2.flow import TokenToMel
from tts_kernel.models.weights import CheckpointError
from tts_kernel.runs import write_yaml
from tts_kernel.synthesis.griffin_lim import GriffinLim
from tts_kernel.synthesis.model_folder import (
    Sizes,
    check_weights,
    open_model,
    open_tokenizer,
    open_vocoder,
    read_sizes,
    tokenizer_path,
    write_sizes,
)


@pytest.mark.parametrize("sizes", [SIZES, Sizes(), replace(SIZES, hift=None)], ids=["tiny", "published", "griffin-lim"])
def test_sizes_are_read_as_they_were_written(tmp_path: Path, sizes: Sizes) -> None:
    write_sizes(tmp_path, sizes)
    assert read_sizes(tmp_path) == sizes


def test_what_config_yaml_does_not_say_is_the_published_size(tmp_path: Path) -> None:
    assert read_sizes(tmp_path) == Sizes()
    write_yaml(tmp_path / "config.yaml", {"llm": {"speech_token_size": 256}})
    assert read_sizes(tmp_path).llm.speech_token_size == 256
    assert read_sizes(tmp_path).hift == HiftConfig()


def test_all_that_is_wrong_with_config_yaml_is_said_at_once(tmp_path: Path) -> None:
    write_yaml(tmp_path / "config.yaml", {"llm": {"width": 3}, "flow": 5, "hift": {"base_channels": "x"}})
    with pytest.raises(ConfigError, match=r"config.yaml: llm: width .*; flow is 5, .*; hift: base_channels is 'x'"):
        read_sizes(tmp_path)


@pytest.mark.parametrize("text", ["- llm", "", "vocoder: {}", "llm: {", "llm: !!python/name:os.system {}"])
def test_what_is_no_configuration_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "config.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match=r"config.yaml"):
        read_sizes(tmp_path)


def test_a_tokenizer_is_found_and_encodes(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"expected one of bpe.model, CosyVoice-BlankEN, tokenizer.json"):
        tokenizer_path(tmp_path)
    folder = make_folder(tmp_path / "model")
    assert tokenizer_path(folder) == folder / "bpe.model"
    assert len(open_tokenizer(folder)(TEXT)) > 5
    (tmp_path / "tokenizer.json").touch()
    assert tokenizer_path(tmp_path) == tmp_path


def test_the_vocoder_is_what_the_sizes_say(tmp_path: Path) -> None:
    assert isinstance(open_vocoder(None, tmp_path / "hift.pt"), GriffinLim)
    with pytest.raises(CheckpointError, match=r"hift.pt: does not exist"):
        open_vocoder(SIZES.hift, tmp_path / "hift.pt")


def test_weights_are_checked_as_strictly_as_they_are_opened(tmp_path: Path) -> None:
    good, bad = save(flow(), tmp_path / "flow.pt", epoch=3), save(flow(output_size=12), tmp_path / "other.pt")
    check_weights(TokenToMel, SIZES.flow, good)
    for attempt in (lambda: check_weights(TokenToMel, SIZES.flow, bad), lambda: open_model(flow(), bad)):
        with pytest.raises(CheckpointError, match=r"other.pt: does not fit this model"):
            attempt()


@pytest.mark.filterwarnings("error")
def test_a_check_warns_of_nothing(tmp_path: Path) -> None:
    check_weights(TokenToMel, SIZES.flow, save(flow(), tmp_path / "flow.pt"))


def test_an_opened_model_is_in_eval_mode_with_the_files_weights(tmp_path: Path) -> None:
    path = save(flow(), tmp_path / "flow.pt")
    opened = open_model(TokenToMel(SIZES.flow), path)
    assert not opened.training
    for name, value in flow().state_dict().items():
        assert torch.equal(opened.state_dict()[name], value)
