from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.models import checkpoint_files
from tests.models.checkpoint_files import Make, assert_loads_strictly, assert_refused, assert_same
from tests.models.melotts.tiny_models import CONFIG, duration_discriminator, synthesizer
from tests.parity import fill
from tts_kernel.models.melotts.config import DurationDiscriminatorConfig
from tts_kernel.models.melotts.discriminators import DurationDiscriminator, MultiPeriodDiscriminator
from tts_kernel.models.melotts.synthesizer import Synthesizer
from tts_kernel.models.melotts.weights import load_weights, rows_by_name
from tts_kernel.models.weights import CheckpointError

SYMBOLS = list("_abcdefghi.")  # as many as CONFIG has


def filled_waves() -> MultiPeriodDiscriminator:
    model = MultiPeriodDiscriminator()
    fill.fill(model)
    return model


MODELS: dict[str, tuple[Make, Make]] = {
    "G": (lambda: Synthesizer(CONFIG), synthesizer),
    "D": (MultiPeriodDiscriminator, filled_waves),
    "DUR": (lambda: DurationDiscriminator(DurationDiscriminatorConfig.beside(CONFIG)), duration_discriminator),
}


def pair(name: str = "G") -> tuple[Any, dict[str, Tensor]]:
    return checkpoint_files.pair(*MODELS[name])


def write(folder: Path, state: dict[str, Tensor]) -> Path:
    """As the reference's training writes it."""
    optimizer = {"state": {0: {"step": torch.tensor(7.0)}}, "param_groups": [{"lr": 3e-4}]}
    checkpoint = {"model": state, "iteration": 12, "optimizer": optimizer, "learning_rate": 3e-4}
    return checkpoint_files.write(folder / "G_1000.pth", checkpoint)


@pytest.mark.parametrize("name", MODELS)
def test_a_published_file_loads_strictly(tmp_path: Path, name: str) -> None:
    model, state = pair(name)
    assert_loads_strictly(load_weights, model, write(tmp_path, state), state)


@pytest.mark.parametrize("name", MODELS)
def test_missing_unexpected_and_mis_shaped_names_are_listed_and_nothing_is_copied(tmp_path: Path, name: str) -> None:
    model, state = pair(name)
    first, second = [key for key in state if key.endswith("bias")][:2]
    state["of_another_model.weight"] = torch.ones(2)
    del state[first]
    state[second] = torch.ones(3, 1, 4)
    said = (f"1 missing: {first}", "1 unexpected: of_another_model.weight", f"{second}: file [3, 1, 4]")
    assert_refused(load_weights, model, write(tmp_path, state), said)


def test_integers_where_weights_belong_are_refused(tmp_path: Path) -> None:
    model, state = pair()
    state["dec.cond.bias"] = torch.zeros(8, dtype=torch.long)
    assert_refused(
        load_weights, model, write(tmp_path, state), ["dec.cond.bias: file torch.int64, model torch.float32"]
    )


def test_half_precision_wrappers_and_newer_names_of_weight_norm_are_read(tmp_path: Path) -> None:
    model, state = pair()
    names = {"weight_g": "parametrizations.weight.original0", "weight_v": "parametrizations.weight.original1"}
    other = {}
    for key, value in state.items():
        stem, _, last = key.rpartition(".")
        other[f"module.{stem}.{names.get(last, last)}"] = value.half()
    load_weights(model, write(tmp_path, other))
    assert_same(model, {key: value.half().float() for key, value in state.items()})


def with_second_features() -> dict[str, Tensor]:
    public = Synthesizer(replace(CONFIG, ja_bert_channels=6))
    fill.fill(public)
    return dict(public.state_dict())


def test_second_features_leave_their_constant_part_behind(tmp_path: Path) -> None:
    model, _ = pair()
    state = with_second_features()
    report = load_weights(model, write(tmp_path, state))
    expected = state["enc_p.bert_proj.bias"] + state["enc_p.ja_bert_proj.bias"]
    assert torch.equal(model.enc_p.bert_proj.bias, expected)
    assert report.dropped == [
        "enc_p.ja_bert_proj.weight",
        "enc_p.ja_bert_proj.bias (added to enc_p.bert_proj.bias)",
    ]
    assert report.loaded == len(state) - 2


def test_second_features_that_a_file_does_not_know_start_silent(tmp_path: Path) -> None:
    model = Synthesizer(replace(CONFIG, ja_bert_channels=6))
    _, state = pair()
    report = load_weights(model, write(tmp_path, state))
    assert model.enc_p.ja_bert_proj is not None
    assert not model.enc_p.ja_bert_proj.weight.any()
    assert not model.enc_p.ja_bert_proj.bias.any()
    assert report.reinitialised == ["enc_p.ja_bert_proj.weight (zero)", "enc_p.ja_bert_proj.bias (zero)"]


def test_another_text_encoders_projection_starts_fresh(tmp_path: Path) -> None:
    model, state = pair()
    before = model.enc_p.bert_proj.weight.clone()
    state["enc_p.bert_proj.weight"] = torch.ones(8, 13, 1)  # even of another width
    report = load_weights(model, write(tmp_path, state), new_features=True)
    assert torch.equal(model.enc_p.bert_proj.weight, before)
    assert report.reinitialised == report.dropped == ["enc_p.bert_proj.weight", "enc_p.bert_proj.bias"]
    assert torch.equal(model.dp.proj.weight, state["dp.proj.weight"])


def test_symbols_keep_their_rows_wherever_they_move(tmp_path: Path) -> None:
    _, state = pair()
    wanted = ["_", *"zbca", "new", *"defghi"]  # without "."
    model = Synthesizer(replace(CONFIG, n_vocab=len(wanted)))
    report = load_weights(model, write(tmp_path, state), file_symbols=SYMBOLS, model_symbols=wanted)
    table, given = model.enc_p.emb.weight, state["enc_p.emb.weight"]
    for symbol in "_abcdefghi":
        assert torch.equal(table[wanted.index(symbol)], given[SYMBOLS.index(symbol)])
    for symbol in ("z", "new"):
        torch.testing.assert_close(table[wanted.index(symbol)], given.mean(dim=0))
    assert report.extended == ["enc_p.emb.weight (new: z, new)"]
    assert report.dropped == ["enc_p.emb.weight: '.'"]


def test_the_same_symbols_in_another_order_are_put_in_order(tmp_path: Path) -> None:
    model, state = pair()
    load_weights(model, write(tmp_path, state), file_symbols=SYMBOLS, model_symbols=SYMBOLS[::-1])
    assert torch.equal(model.enc_p.emb.weight, state["enc_p.emb.weight"].flip(0))


def test_another_number_of_symbols_needs_both_tables(tmp_path: Path) -> None:
    _, state = pair()
    model = Synthesizer(replace(CONFIG, n_vocab=14))
    with pytest.raises(CheckpointError, match="11 symbols, the model has 14; give both tables"):
        load_weights(model, write(tmp_path, state), model_symbols=SYMBOLS)
    with pytest.raises(CheckpointError, match="the model's table lists 11 symbols, its weights have 14"):
        load_weights(model, write(tmp_path, state), file_symbols=SYMBOLS, model_symbols=SYMBOLS)


def test_speakers_keep_their_voice_by_name_and_new_ones_start_at_the_mean(tmp_path: Path) -> None:
    _, state = pair()
    model = Synthesizer(replace(CONFIG, n_speakers=6))
    report = load_weights(
        model, write(tmp_path, state), file_speakers={"KR": 1, "EN": 3}, model_speakers={"MINA": 0, "EN": 5}
    )
    given, table = state["emb_g.weight"], model.emb_g.weight
    assert torch.equal(table[5], given[3])
    torch.testing.assert_close(table[0], given[[1, 3]].mean(dim=0))
    assert report.extended == ["emb_g.weight (new: MINA)"]


def test_another_number_of_speakers_without_names_starts_fresh(tmp_path: Path) -> None:
    _, state = pair()
    model = Synthesizer(replace(CONFIG, n_speakers=6))
    before = model.emb_g.weight.clone()
    report = load_weights(model, write(tmp_path, state))
    assert report.reinitialised == ["emb_g.weight"]
    assert torch.equal(model.emb_g.weight, before)


def test_a_speaker_beyond_the_table_is_named(tmp_path: Path) -> None:
    model, state = pair()
    with pytest.raises(CheckpointError, match=r"the file has 4 speakers, its map goes beyond: \['KR 4'\]"):
        load_weights(model, write(tmp_path, state), file_speakers={"KR": 4}, model_speakers={"KR": 0})


def test_tones_and_languages_keep_their_leading_rows(tmp_path: Path) -> None:
    _, state = pair()
    model = Synthesizer(replace(CONFIG, num_tones=7, num_languages=2))
    report = load_weights(model, write(tmp_path, state))
    tones, languages = state["enc_p.tone_emb.weight"], state["enc_p.language_emb.weight"]
    assert torch.equal(model.enc_p.tone_emb.weight[:5], tones)
    torch.testing.assert_close(model.enc_p.tone_emb.weight[5:], tones.mean(dim=0).expand(2, -1))
    assert torch.equal(model.enc_p.language_emb.weight, languages[:2])
    assert report.extended == ["enc_p.tone_emb.weight (5 rows, now 7)", "enc_p.language_emb.weight (3 rows, now 2)"]


def test_rows_that_nobody_asks_for_are_the_mean_of_the_named_ones() -> None:
    table = torch.tensor([[1.0], [2.0], [100.0]])
    rows = rows_by_name(table, {"a": 0, "b": 1}, {"b": 2}, 3)
    assert rows[:, 0].tolist() == [1.5, 1.5, 2.0]
