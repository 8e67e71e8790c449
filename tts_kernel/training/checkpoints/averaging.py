"""The mean of several checkpoints' weights: one model, often better than each of them.

Source: Izmailov et al. 2018, Averaging Weights Leads to Wider Optima and Better Generalization (arXiv 1803.05407); of
the last or best checkpoints of one run, as transformer translation models do since Vaswani et al. 2017, section 6.1.
"""

from __future__ import annotations

import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tts_kernel.models.weights import CheckpointError, plain_names, read_checkpoint, state_of
from tts_kernel.training.checkpoints.file import save, verify
from tts_kernel.training.checkpoints.room import tensors_of

_OF_ONE_SAVE = ("model", "state_dict", "metrics", "written", "step", "epoch", "averaged_from")
_OF_A_RESUME = ("optimizer", "optimizer_type", "scheduler", "scaler", "random", "standing")


def average(paths: Sequence[Path], target: Path) -> None:
    """Write the mean of the weights of `paths` to `target`, a checkpoint that loads like any of them: it keeps what
    they agree on (format, identity, settings), and says in `averaged_from` what it was made of. Values are summed in
    double precision; a counter is the highest of them, other integers (indices, masks) have to be equal. Raises
    CheckpointError where a file is damaged, or one has other names, shapes or types than the first, or values that are
    not finite."""
    if not paths:
        raise CheckpointError(
            f"{target}: no checkpoints were given to average; keep_best and keep_checkpoints keep some"
        )
    for path in paths:
        if zipfile.is_zipfile(path):
            verify(path)
    contents = [read_checkpoint(path) for path in paths]  # mapped: one tensor at a time is in memory
    states = [plain_names(state_of(content, str(path))) for content, path in zip(contents, paths, strict=True)]
    _check_alike(paths, states)
    model = {name: _mean(name, [state[name] for state in states], paths) for name in states[0]}
    steps = [int(content.get("step", 0)) for content in contents]
    save(
        target,
        {
            **_agreed(contents),
            "model": model,
            "step": max(steps),
            "epoch": max(int(content.get("epoch", 0)) for content in contents),
            "averaged_from": [
                {"file": path.name, "step": step, "metrics": dict(content.get("metrics", {}))}
                for path, step, content in zip(paths, steps, contents, strict=True)
            ],
        },
    )


def _mean(name: str, values: Sequence[Tensor], paths: Sequence[Path]) -> Tensor:
    first = values[0]
    if not (first.is_floating_point() or first.is_complex()):
        if first.ndim == 0:
            return torch.stack(list(values)).amax(0)  # a counter, such as a norm's of its batches
        for value, path in zip(values, paths, strict=True):
            if not torch.equal(value, first):
                raise CheckpointError(
                    f"{path}: {name} holds integers that differ from those of {paths[0].name}, and integers have no "
                    "mean; average checkpoints of one run"
                )
        return first.clone()
    total = torch.zeros_like(first, dtype=torch.complex128 if first.is_complex() else torch.float64)
    for value, path in zip(values, paths, strict=True):
        if not value.isfinite().all():
            raise CheckpointError(f"{path}: {name} holds values that are not finite; leave this checkpoint out")
        total += value
    return (total / len(values)).to(first.dtype)


def _check_alike(paths: Sequence[Path], states: Sequence[Mapping[str, Tensor]]) -> None:
    first, problems = states[0], []
    for path, state in zip(paths[1:], states[1:], strict=True):
        problems += [f"{path}: has no {name}" for name in first if name not in state]
        problems += [f"{path}: {name}, which is not in {paths[0].name}" for name in state if name not in first]
        for name in first.keys() & state.keys():
            expected, found = _form(first[name]), _form(state[name])
            if found != expected:
                problems.append(f"{path}: {name} is {found}, expected {expected} as in {paths[0].name}")
    if problems:
        more = f"\nand {len(problems) - 8} more" if len(problems) > 8 else ""
        raise CheckpointError("these checkpoints are not of one model:\n" + "\n".join(sorted(problems)[:8]) + more)


def _form(value: Tensor) -> str:
    return f"{str(value.dtype).removeprefix('torch.')} {list(value.shape)}"


def _agreed(contents: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Plain values that all files have and that are equal; neither a save's own nor what only a resume needs."""
    first = contents[0]
    return {
        key: value
        for key, value in first.items()
        if key not in (*_OF_ONE_SAVE, *_OF_A_RESUME)
        and not _holds_tensors(contents, key)
        and all(key in other and other[key] == value for other in contents[1:])
    }


def _holds_tensors(contents: Sequence[Mapping[str, Any]], key: str) -> bool:
    return next(iter(tensors_of([content.get(key) for content in contents])), None) is not None
