from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.synthesis.tiny_melotts import SIZES, SPEAKERS, make_model, write_config, write_model
from tts_kernel.models.config_types import ConfigError
from tts_kernel.models.weights import CheckpointError
from tts_kernel.synthesis.melotts_generator import find_generator, open_generator
from tts_kernel.text.symbols import MELOTTS, SYMBOLS

OLDER = replace(SIZES, n_vocab=len(MELOTTS))


def test_a_generator_is_ready_to_speak(tmp_path: Path) -> None:
    generator = open_generator(write_model(tmp_path / "G_3.pth"), write_config(tmp_path / "config.json"))
    assert not generator.model.training
    assert not any(parameter.requires_grad for parameter in generator.model.parameters())
    assert not any(name.endswith("weight_g") for name in generator.model.state_dict())
    assert generator.symbols == SYMBOLS
    assert generator.speakers == SPEAKERS
    assert generator.numbers == {0, 2, 3}
    assert generator.sample_rate == 8_000
    assert generator.reads_features


@pytest.mark.parametrize(
    ("files", "found"),
    [
        (("G_latest.pth", "G_900.pth"), "G_latest.pth"),
        (("G_900.pth", "G_1000.pth", "D_2000.pth", "G_best.pth"), "G_1000.pth"),
        (("checkpoints/G_8.pth", "DUR_9.pth"), "checkpoints/G_8.pth"),
    ],
)
def test_a_folder_gives_its_latest_generator(tmp_path: Path, files: tuple[str, ...], found: str) -> None:
    (tmp_path / "checkpoints").mkdir()
    for name in files:
        (tmp_path / name).touch()
    assert find_generator(tmp_path) == tmp_path / found


def test_a_folder_without_a_generator_is_refused(tmp_path: Path) -> None:
    (tmp_path / "D_10.pth").touch()
    with pytest.raises(CheckpointError, match=r"no G_latest.pth and no G_<step>.pth"):
        find_generator(tmp_path)


@pytest.mark.parametrize("names", [MELOTTS, SYMBOLS.names], ids=["public", "ours"])
def test_without_a_table_in_the_config_the_one_of_the_same_length_is_taken(
    tmp_path: Path, names: tuple[str, ...]
) -> None:
    model = make_model(replace(SIZES, n_vocab=len(names)))
    generator = open_generator(
        write_model(tmp_path / "G_3.pth", model), write_config(tmp_path / "config.json", symbols=())
    )
    assert generator.symbols.names == names


def test_names_that_the_config_of_a_training_lacks_are_found_beside_the_checkpoint(tmp_path: Path) -> None:
    names = (*SYMBOLS.names, "new")
    path = write_model(tmp_path / "run" / "G_3.pth", make_model(replace(SIZES, n_vocab=len(names))))
    write_config(path.with_name("config.json"), symbols=names)
    generator = open_generator(path, write_config(tmp_path / "config_bge_m3.json", symbols=(), speakers={}))
    assert generator.symbols.names == names
    assert generator.speakers == SPEAKERS


def test_an_unlisted_table_of_another_length_is_refused(tmp_path: Path) -> None:
    path = write_model(tmp_path / "G_3.pth", make_model(replace(SIZES, n_vocab=50)))
    with pytest.raises(CheckpointError, match=r"has 50 symbols, which .* does not list"):
        open_generator(path, write_config(tmp_path / "config.json", symbols=()))


def test_a_config_of_another_training_is_refused_with_all_its_differences(tmp_path: Path) -> None:
    path = write_model(tmp_path / "G_3.pth", make_model(replace(OLDER, n_speakers=9)))
    with pytest.raises(CheckpointError, match=r"has 219 symbols, .* says 239; has 9 speakers .* says 4; take the"):
        open_generator(path, write_config(tmp_path / "config.json"))


def test_a_speaker_beyond_the_checkpoint_is_refused(tmp_path: Path) -> None:
    path = write_model(tmp_path / "G_3.pth")
    with pytest.raises(CheckpointError, match=r"has 4 speakers, its map goes beyond.*Bo 4"):
        open_generator(path, write_config(tmp_path / "config.json", speakers={"Ann": 0, "Bo": 4}))


def test_a_table_that_is_none_is_refused(tmp_path: Path) -> None:
    config = write_config(tmp_path / "config.json", symbols=("a", *SYMBOLS.names[1:]))
    with pytest.raises(ConfigError, match="a symbol table begins with '_'"):
        open_generator(write_model(tmp_path / "G_3.pth"), config)


def test_tones_and_languages_are_as_many_as_the_checkpoint_has(tmp_path: Path) -> None:
    path = write_model(tmp_path / "G_3.pth", make_model(replace(SIZES, num_tones=12, num_languages=10)))
    sizes = open_generator(path, write_config(tmp_path / "config.json")).model.config
    assert (sizes.num_tones, sizes.num_languages) == (12, 10)


def test_a_public_model_speaks_without_the_features_of_its_own_encoders(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = write_model(tmp_path / "G_3.pth", make_model(replace(OLDER, ja_bert_channels=5)))
    config = write_config(tmp_path / "config.json", symbols=MELOTTS, ja_bert_channels=5)
    with caplog.at_level(logging.WARNING):
        generator = open_generator(path, config)
    assert not generator.reads_features
    assert "trained with other text encoders" in caplog.text


@pytest.mark.parametrize("content", [{"a": 1}, {"model": {"enc_p.emb.weight": torch.zeros(239, 8)}}])
def test_a_checkpoint_of_another_kind_is_refused(tmp_path: Path, content: dict[str, object]) -> None:
    torch.save(content, tmp_path / "G_3.pth")
    with pytest.raises(CheckpointError, match=r"no tensors found|does not fit this model"):
        open_generator(tmp_path / "G_3.pth", write_config(tmp_path / "config.json"))
