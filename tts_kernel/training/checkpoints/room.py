"""How much disk a run's checkpoints will take, and whether it is there: asked before training and before each save."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor

from tts_kernel.models.weights import CheckpointError

_PER_TENSOR = 400  # bytes of a file beside the values: name, shape, padding, directory entry
# Tensors as large as the parameters that an optimizer keeps, by its class; of one not listed the most.
_STATES = {"AdamW": 2, "AdamWScheduleFree": 2, "Prodigy": 4}


def tensors_of(content: Any) -> Iterable[Tensor]:
    """Of nested dictionaries, lists and tuples."""
    if isinstance(content, Tensor):
        yield content
    elif isinstance(content, Mapping):
        for value in content.values():
            yield from tensors_of(value)
    elif isinstance(content, list | tuple):
        for value in content:
            yield from tensors_of(value)


def size_of(content: Any) -> int:
    """Bytes of a file with `content`; memory that several tensors share counts once."""
    sizes: dict[tuple[torch.device, int], int] = {}
    count = 0
    for tensor in tensors_of(content):
        count += 1
        if isinstance(tensor, DTensor):  # of which a file holds all shards
            sizes[tensor.device, -count] = tensor.numel() * tensor.element_size()
        else:
            sizes[tensor.device, tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
    return sum(sizes.values()) + _PER_TENSOR * count


def full_size(weights: Mapping[str, Any], optimizer: torch.optim.Optimizer) -> int:
    """Bytes that latest_full.pth will have, also before the optimizer's first step."""
    state = optimizer.state_dict()["state"]
    if state:
        return size_of(weights) + size_of(state)
    copies = _STATES.get(type(optimizer).__name__, max(_STATES.values()))
    own = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    return size_of(weights) + copies * (sum(p.numel() * p.element_size() for p in own) + _PER_TENSOR * len(own))


def room_needed(weights_bytes: int, full_bytes: int, *, keep_steps: int, keep_best: int, links: bool = True) -> int:
    """Bytes that a run's checkpoints take at most, at the worst moment: while one is written that will replace another.
    With hard links latest_full.pth is the newest step file, and best_model.pth is the first of the best `keep_best`."""
    healthy = 2 if keep_steps else 0  # those to roll back to, where all the newest are not healthy
    full = max(keep_steps, 1) + healthy if links else 1 + keep_steps + healthy
    weights = 1 + 2 + max(keep_best, 1) if links else 1 + 3 + keep_best
    return full * full_bytes + weights * weights_bytes + full_bytes


def taken(paths: Iterable[Path]) -> int:
    """Bytes on the disk, several names of one file counted once."""
    found = [path.stat() for path in paths if path.is_file()]
    return sum({(each.st_dev, each.st_ino): each.st_size for each in found}.values())


def free(folder: Path) -> int:
    """Bytes that may still be written there."""
    return shutil.disk_usage(folder).free


def check_run(
    folder: Path, weights_bytes: int, full_bytes: int, *, keep_steps: int, keep_best: int, links: bool, there: int
) -> None:
    """Raise CheckpointError unless all checkpoints of a run fit into `folder`, of whose files `there` bytes are
    checkpoints already."""
    needed = room_needed(weights_bytes, full_bytes, keep_steps=keep_steps, keep_best=keep_best, links=links)
    available = free(folder)
    if needed <= available + there:
        return
    least = room_needed(weights_bytes, full_bytes, keep_steps=min(keep_steps, 1), keep_best=0, links=links)
    advice = [f"name another disk in TTS_KERNEL_RUNS (now {os.path.realpath(folder)})"]
    if least <= available + there:
        if keep_steps > 1:
            advice.insert(0, f"lower keep_checkpoints (now {keep_steps}, {readable(full_bytes)} each)")
        if keep_best:
            advice.insert(0, f"lower keep_best (now {keep_best}, {readable(weights_bytes)} each)")
    raise CheckpointError(
        f"{folder}: the run's checkpoints will take up to {readable(needed)}; {readable(available)} are free and "
        f"{readable(there)} are checkpoints already. Make room, or {', or '.join(advice)}"
    )


def check_save(folder: Path, needed: int) -> None:
    """Raise CheckpointError unless `needed` bytes are free, before a file is begun."""
    available = free(folder)
    if needed > available:
        raise CheckpointError(
            f"{folder}: a checkpoint of {readable(needed)} does not fit, {readable(available)} are free. Those that "
            "were there are untouched; make room (or lower keep_checkpoints and keep_best) and resume the run"
        )


def readable(count: int) -> str:
    """1.5 GB, 120 MB, 0.3 MB."""
    value, unit = (count / 1e9, "GB") if count >= 1e9 else (count / 1e6, "MB")
    return f"{value:,.0f} {unit}" if value >= 100 else f"{value:.1f} {unit}"
