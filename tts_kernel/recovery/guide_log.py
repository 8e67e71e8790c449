"""Lines of the guide's trainer for IndexTTS-2.

[Train] epoch=1 step=100 text_loss=2.3456 mel_loss=5.6789 lr=2.00e-05 | 3.1steps/min 0.2samples/s | grad_norm=1.23 ...
[Val] epoch=1 step=1000 text_loss=2.3456 mel_loss=5.6789 mel_top1=0.0789 | val_time=0.52min
[Info] Resumed from output/latest.pth at epoch 0, step 900.
"""

from __future__ import annotations

import re
from collections import defaultdict
from pathlib import Path

import numpy as np
import pyarrow.compute as pc

from tts_kernel.recovery.history import Points
from tts_kernel.recovery.names import house_name
from tts_kernel.recovery.text_logs import line_times, numbers, words

_TRAIN, _VAL = b"[Train] ", b"[Val] "
_BLOCK = 50_000  # lines that are taken apart together
_NUMBER = r"[-+]?(?:\d+\.?\d*(?:[eE][-+]?\d+)?|nan|inf)"
_PAIR = re.compile(rf"(?<!\S)([\w/]+)=({_NUMBER})(?!\S)", re.IGNORECASE)
_SPEED = re.compile(rf"(?<!\S)({_NUMBER})(steps/min|samples/s)(?!\S)")
_SPEEDS = {"steps/min": "steps_per_min", "samples/s": "samples_per_sec"}
_RESUMED = re.compile(rb"\[Info\] Resumed from .* step (\d+)")


def read_guide_lines(path: Path, lines: list[bytes], order: int, points: Points, problems: list[str]) -> np.ndarray:
    """Add what `lines` say to `points`; the first has number `order`. A step that is below the last one, and a line
    that says so, is a restart. Returns the training steps, (points,), in the order of the lines."""
    times = line_times(lines)
    trained = np.array([_TRAIN in line for line in lines], bool)
    others = [(int(number), lines[number]) for number in np.flatnonzero(~trained)]
    validated = np.array([number for number, line in others if _VAL in line], np.int64)
    said = {number: int(found[1]) for number, line in others if (found := _RESUMED.search(line))}
    at, steps = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
    for mark, subset, numbered in ((_TRAIN, "train", np.flatnonzero(trained)), (_VAL, "val", validated)):
        for begin in range(0, len(numbered), _BLOCK):
            block = numbered[begin : begin + _BLOCK]
            rows = [lines[number].partition(mark)[2] for number in block]
            for chosen, table in _tables(path, rows, block, problems):
                here = table.pop("step").astype(np.int64)
                for name, values in table.items():
                    if name != "epoch":
                        house, factor = house_name(name, subset)
                        points.add(house, order + chosen, here, factor * values, times[chosen])
                if subset == "train":
                    at.append(chosen)
                    steps.append(here)
    sequence = np.argsort(np.concatenate(at), kind="stable")
    in_order, logged = np.concatenate(steps)[sequence], np.concatenate(at)[sequence]
    for place in np.flatnonzero(np.diff(in_order) < 0):
        if not any(logged[place] < number < logged[place + 1] for number in said):
            said[int(logged[place + 1]) - 1] = int(in_order[place + 1]) - 1
    for number, step in sorted(said.items()):
        points.go_back(order + number, step)
    return in_order


def _tables(
    path: Path, rows: list[bytes], at: np.ndarray, problems: list[str]
) -> list[tuple[np.ndarray, dict[str, np.ndarray]]]:
    """The numbers of the lines that have the same names, and their values by name, (lines,) each; "step" is one."""
    whole = _columns(rows)
    if whole is not None:
        return [(at, whole)]
    found: dict[tuple[str, ...], list[tuple[float, ...]]] = defaultdict(list)
    for number, row in zip(at, rows, strict=True):
        text = row.decode("utf-8", "replace")
        pairs = {name: float(value) for name, value in _PAIR.findall(text)}
        pairs |= {_SPEEDS[unit]: float(value) for value, unit in _SPEED.findall(text)}
        if not pairs.get("step", -1.0) >= 0:
            problems.append(f"{path}:{number + 1}: no step, passed over: {text[:60]!a}")
            continue
        found[tuple(pairs)].append((float(number), *pairs.values()))
    tables = [(names, np.array(several).T) for names, several in found.items()]
    return [(table[0].astype(np.int64), dict(zip(names, table[1:], strict=True))) for names, table in tables]


def _columns(rows: list[bytes]) -> dict[str, np.ndarray] | None:
    """All lines at once; None where they are not alike."""
    columns = words(rows)
    if columns is None:
        return None
    found: dict[str, np.ndarray] = {}
    for column in columns:
        first = column[0].as_py()
        if pair := _PAIR.fullmatch(first):
            name, begin, end = pair[1], len(pair[1]) + 1, None
            alike = pc.starts_with(column, f"{name}=")
        elif speed := _SPEED.fullmatch(first):
            name, begin, end = _SPEEDS[speed[2]], 0, -len(speed[2])
            alike = pc.ends_with(column, speed[2])
        else:
            continue
        values = numbers(pc.utf8_slice_codeunits(column, begin, end)) if pc.all(alike).as_py() else None
        if values is None:
            return None
        found[name] = values
    return found if "step" in found and (found["step"] >= 0).all() else None
