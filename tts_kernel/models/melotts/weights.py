"""Published `G_*.pth`, `D_*.pth` and `DUR_*.pth`, and those that our training writes -> our models, with a report.

Source of the layouts and of what else such files hold: parity case layout_full.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from tts_kernel.models.melotts.discriminators import DurationDiscriminator, MultiPeriodDiscriminator
from tts_kernel.models.melotts.synthesizer import Synthesizer
from tts_kernel.models.weights import CheckpointError, LoadReport, copy_state, plain_names, read_checkpoint, state_of

SYMBOLS, SPEAKERS = "enc_p.emb.weight", "emb_g.weight"
BY_NUMBER = ("enc_p.tone_emb.weight", "enc_p.language_emb.weight")  # later versions append to them
FEATURES, SECOND_FEATURES = "enc_p.bert_proj", "enc_p.ja_bert_proj"
_NEW_NORM = {".parametrizations.weight.original0": ".weight_g", ".parametrizations.weight.original1": ".weight_v"}
_LOSSLESS = (torch.float32, torch.float16, torch.bfloat16)  # into the models' float32


def load_weights(
    model: Synthesizer | MultiPeriodDiscriminator | DurationDiscriminator,
    path: Path,
    *,
    file_symbols: Sequence[str] | None = None,
    model_symbols: Sequence[str] | None = None,
    file_speakers: Mapping[str, int] | None = None,
    model_speakers: Mapping[str, int] | None = None,
    new_features: bool = False,
) -> LoadReport:
    """Load `path` into `model`, strictly but for five rules about a generator that the report names. Symbols, if both
    tables are given (symbol by number), keep their rows wherever they move, and new ones start at the mean of the
    file's; so do speakers, if both maps are given (number by name), else a table of another size starts fresh. Tones
    and languages keep their leading rows. The second features of public models are left out where the model has none,
    their constant part added to the first ones' bias; where only the model has them they start at zero. With
    `new_features`, for another text encoder than the file's, the projection of the features starts fresh.
    Raises CheckpointError listing missing, unexpected and mis-shaped names; then nothing was copied."""
    report, where = LoadReport(), str(path)
    state = {_published(name): value for name, value in plain_names(state_of(read_checkpoint(path), where)).items()}
    own = model.state_dict()
    report.mis_shaped = [
        f"{name}: file {value.dtype}, model {own[name].dtype}"
        for name, value in state.items()
        if name in own and value.dtype not in _LOSSLESS
    ]
    fresh: list[str] = []
    if isinstance(model, Synthesizer):
        _second_features(state, own, report)
        _symbols(state, own, file_symbols, model_symbols, report, where)
        _speakers(state, own, file_speakers, model_speakers, fresh, report, where)
        for name in BY_NUMBER:
            _leading_rows(state, own, name, report)
        if new_features:
            fresh.append(f"{FEATURES}.")
            for name in [name for name in state if name.startswith(f"{FEATURES}.")]:
                report.dropped.append(name)
                del state[name]
    return copy_state(model, state, fresh, report, where)


def _published(name: str) -> str:
    """Weight norm under its older names, which the published files and our models have."""
    for new, old in _NEW_NORM.items():
        name = name.removesuffix(new) + old if name.endswith(new) else name
    return name


def _second_features(state: dict[str, Tensor], own: Mapping[str, Tensor], report: LoadReport) -> None:
    weight, bias = f"{SECOND_FEATURES}.weight", f"{SECOND_FEATURES}.bias"
    if weight in own and weight not in state:
        for name in (weight, bias):
            state[name] = torch.zeros_like(own[name])
            report.reinitialised.append(f"{name} (zero)")
    elif weight in state and weight not in own:
        report.dropped += [weight, f"{bias} (added to {FEATURES}.bias)"]
        del state[weight]
        constant = state.pop(bias, None)
        if constant is not None and f"{FEATURES}.bias" in state:
            state[f"{FEATURES}.bias"] = state[f"{FEATURES}.bias"].float() + constant.float()


def _symbols(
    state: dict[str, Tensor],
    own: Mapping[str, Tensor],
    in_file: Sequence[str] | None,
    in_model: Sequence[str] | None,
    report: LoadReport,
    where: str,
) -> None:
    table = state.get(SYMBOLS)
    if table is None:
        return
    if in_file is None or in_model is None:
        if len(table) != len(own[SYMBOLS]):
            raise CheckpointError(
                f"{where}: {len(table)} symbols, the model has {len(own[SYMBOLS])}; give both tables, so that each "
                "symbol finds its row (the file's is in the config.json beside it)"
            )
        return
    for title, names, rows in (("file", in_file, len(table)), ("model", in_model, len(own[SYMBOLS]))):
        if len(names) != rows:
            raise CheckpointError(f"{where}: the {title}'s table lists {len(names)} symbols, its weights have {rows}")
    if list(in_file) != list(in_model):
        known = {symbol: number for number, symbol in enumerate(in_file)}
        wanted = {symbol: number for number, symbol in enumerate(in_model)}
        state[SYMBOLS] = rows_by_name(table, known, wanted, len(in_model))
        report.extended.append(SYMBOLS + _news(known, wanted))
        report.dropped += [f"{SYMBOLS}: {symbol!r}" for symbol in in_file if symbol not in wanted]


def _speakers(
    state: dict[str, Tensor],
    own: Mapping[str, Tensor],
    in_file: Mapping[str, int] | None,
    in_model: Mapping[str, int] | None,
    fresh: list[str],
    report: LoadReport,
    where: str,
) -> None:
    table = state.get(SPEAKERS)
    if table is None:
        return
    for title, names, rows in (("file", in_file, len(table)), ("model", in_model, len(own[SPEAKERS]))):
        beyond = [f"{name} {number}" for name, number in (names or {}).items() if not 0 <= number < rows]
        if beyond:
            raise CheckpointError(f"{where}: the {title} has {rows} speakers, its map goes beyond: {beyond[:4]}")
    if not in_file or not in_model:
        if table.shape[1:] == own[SPEAKERS].shape[1:] and len(table) != len(own[SPEAKERS]):
            fresh.append(SPEAKERS)
    elif dict(in_file) != dict(in_model) or len(table) != len(own[SPEAKERS]):
        state[SPEAKERS] = rows_by_name(table, in_file, in_model, len(own[SPEAKERS]))
        report.extended.append(SPEAKERS + _news(in_file, in_model))


def _leading_rows(state: dict[str, Tensor], own: Mapping[str, Tensor], name: str, report: LoadReport) -> None:
    table = state.get(name)
    if table is None or len(table) == len(own[name]) or table.shape[1:] != own[name].shape[1:]:
        return
    size = len(own[name])
    missing = table.float().mean(dim=0).expand(max(size - len(table), 0), -1)
    state[name] = torch.cat([table[:size].float(), missing])
    report.extended.append(f"{name} ({len(table)} rows, now {size})")


def rows_by_name(table: Tensor, in_file: Mapping[str, int], in_model: Mapping[str, int], size: int) -> Tensor:
    """(rows, width) numbered as in the file -> (size, width) numbered as in the model. Rows that no known name asks for
    are the mean of the file's named ones."""
    table = table.float()
    rows = table[list(in_file.values())].mean(dim=0).repeat(size, 1)
    for name, number in in_model.items():
        if name in in_file:
            rows[number] = table[in_file[name]]
    return rows


def _news(in_file: Mapping[str, int], in_model: Mapping[str, int]) -> str:
    """Names that the file does not have, for the report."""
    new = [name for name in in_model if name not in in_file]
    more = f" and {len(new) - 8} more" if len(new) > 8 else ""
    return f" (new: {', '.join(new[:8])}{more})" if new else ""
