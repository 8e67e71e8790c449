"""Lines of CosyVoice's train.log.

2025-01-31 09:26:53,589 DEBUG TRAIN Batch 0/8 loss 0.512345 acc 0.123456 lr 0.00001000 grad_norm 1.234567 rank 0
2025-01-31 09:27:53,589 INFO Epoch 0 Step 31 on_batch_end True CV rank 0
2025-01-31 09:28:53,589 INFO Epoch 0 Step 31 CV info lr 1e-05 0 rank loss_3.21 acc_0.45

The training lines name epoch and batch, not the step: an update has as many batches as gradients are accumulated over,
and an epoch's end tells the step that is next. Their loss is what the gradient is taken of, the batch's loss divided by
that number; it is brought back to that of validation. Source: FunAudioLLM/CosyVoice, cosyvoice/utils/executor.py and
train_utils.py.
"""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.compute as pc

from tts_kernel.recovery.history import Points
from tts_kernel.recovery.names import house_name
from tts_kernel.recovery.text_logs import line_times, numbers, words

_MARK = b"TRAIN Batch "
_TRAINED = re.compile(r"TRAIN Batch (\d+)/(\d+) +(.*?) +rank (\d+)")
_ACCUMULATED = re.compile(rb"using accumulate grad, new batch size is (\d+) times")
_VALIDATES = re.compile(rb"Epoch (\d+) Step (\d+) on_batch_end (True|False) CV")
_VALIDATED = re.compile(rb"Epoch \d+ Step \d+ CV info lr \S+ (.*)")
_VALUE = re.compile(r"(?<!\S)([A-Za-z]\w*?)_(-?(?:\d[\d.]*(?:e[-+]?\d+)?|nan|inf))(?!\S)")


@dataclass(frozen=True)
class _Batches:
    """The training lines of process 0. All arrays are (lines,)."""

    at: np.ndarray  # number of the line
    epochs: np.ndarray
    batches: np.ndarray  # of the epoch, counted from 1
    values: dict[str, np.ndarray]
    there: dict[str, np.ndarray]  # whether a line has a value, of names that not all have


def read_cosyvoice_lines(path: Path, lines: list[bytes], order: int, points: Points, problems: list[str]) -> np.ndarray:
    """Add what `lines` say to `points`; the first has number `order`. An epoch that is not above the last one is a
    restart from where that epoch began. Returns the training steps, (points,), in the order of the lines."""
    times = line_times(lines)
    trained = [_MARK in line for line in lines]
    logged = _batches(path, lines, np.flatnonzero(trained), problems)
    others = np.flatnonzero(~np.array(trained, bool)).tolist()
    told = [int(found[1]) for number in others if (found := _ACCUMULATED.search(lines[number]))]
    accumulated = told[0] if told else 1
    marks = [(number, found) for number in others if (found := _VALIDATES.search(lines[number]))]
    ends = [(number, int(found[1]), int(found[2]) - 1) for number, found in marks if found[3] == b"True"]
    steps = np.zeros(0, np.int64)
    if len(logged.at):
        steps = _steps(path, logged, accumulated, ends, order, points, problems)
        for name, values in logged.values.items():
            kept = logged.there.get(name, np.ones(len(steps), bool))
            if name == "grad_norm":  # known with an update's last batch
                kept = kept & (logged.batches % accumulated == 0)
            at, of, values = logged.at[kept], steps[kept], values[kept]
            begins = np.flatnonzero(np.diff(of, prepend=of[:1] - 1))  # of the lines of one update
            means = np.add.reduceat(values, begins) / np.diff(begins, append=len(of)) if len(of) else values
            factor = float(accumulated) if name == "loss" else 1.0
            house = house_name(name, "train")[0]
            points.add(house, order + at[begins], of[begins], factor * means, times[at[begins]])
    _add_validation(lines, marks, order, times, points)
    return steps


def _steps(
    path: Path,
    logged: _Batches,
    accumulated: int,
    ends: list[tuple[int, int, int]],
    order: int,
    points: Points,
    problems: list[str],
) -> np.ndarray:
    """(lines,): the update, counted from 1, that each batch is part of. `ends` are line, epoch and updates so far."""
    again = (np.diff(logged.epochs) != 0) | (np.diff(logged.batches) <= 0)
    begins = np.concatenate([[0], np.flatnonzero(again) + 1])
    steps = np.zeros(len(logged.at), np.int64)
    bases: dict[int, int] = {}  # updates before each epoch
    reached, last = 0, -1
    for begin, end in zip(begins, np.append(begins[1:], len(steps)), strict=True):
        epoch, updates = int(logged.epochs[begin]), int(logged.batches[end - 1]) // accumulated
        until = logged.at[end] if end < len(steps) else np.inf
        said = [step for line, of, step in ends if of == epoch and logged.at[end - 1] < line < until]
        if epoch in bases:
            base = bases[epoch]
        elif epoch == last + 1:
            base = reached
        elif said:
            base = said[0] - updates
        else:
            base = reached
            problems.append(
                f"{path}:{logged.at[begin] + 1}: begins with epoch {epoch} and does not say at which step; steps are "
                f"counted from {base}"
            )
        if epoch <= last:
            points.go_back(order + int(logged.at[begin]) - 1, base)
        steps[begin:end] = base + (logged.batches[begin:end] - 1) // accumulated + 1
        bases[epoch], last = base, epoch
        reached = said[0] if said else base + updates
    return steps


def _batches(path: Path, lines: list[bytes], at: np.ndarray, problems: list[str]) -> _Batches:
    """Of the lines with numbers `at`."""
    rows = [lines[number][lines[number].index(_MARK) :].rstrip() for number in at]
    found, there = (_columns(rows) if rows else {}), dict[str, np.ndarray]()
    if found is None:
        found, there = _one_by_one(path, rows, at, problems)
    if not found:
        nothing = np.zeros(0, np.int64)
        return _Batches(nothing, nothing, nothing, {}, {})
    first = found.pop("rank") == 0
    if not first.all():
        problems.append(f"{path}: {int((~first).sum()):,} lines of other processes than the first not read")
    at = found.pop("line", at).astype(np.int64)[first]
    epochs, batches = (found.pop(name).astype(np.int64)[first] for name in ("epoch", "batch"))
    values, there = ({name: column[first] for name, column in table.items()} for table in (found, there))
    return _Batches(at, epochs, batches, values, there)


def _columns(rows: list[bytes]) -> dict[str, np.ndarray] | None:
    """All lines at once; None where they are not alike."""
    columns = words(rows)
    if columns is None or len(columns) < 5 or len(columns) % 2 == 0:
        return None
    found: dict[str, np.ndarray] = {}
    for name, texts in zip(columns[3::2], columns[4::2], strict=True):
        values = numbers(texts)
        if values is None or not pc.all(pc.equal(name, name[0])).as_py():
            return None
        found[name[0].as_py()] = values
    places = pc.split_pattern(columns[2], "/").combine_chunks()
    if "rank" not in found or not pc.all(pc.equal(pc.list_value_length(places), 2)).as_py():
        return None
    both = numbers(places.flatten())
    return None if both is None else {**found, "epoch": both[::2], "batch": both[1::2]}


def _one_by_one(
    path: Path, rows: list[bytes], at: np.ndarray, problems: list[str]
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Values by name, and whether a line has one."""
    records: list[dict[str, float]] = []
    for number, row in zip(at, rows, strict=True):
        text = row.decode("utf-8", "replace")
        try:
            (epoch, batch, pairs, rank) = _TRAINED.fullmatch(text).groups()  # type: ignore[union-attr]
            names, values = pairs.split()[::2], map(float, pairs.split()[1::2])
            known = dict(zip(names, values, strict=True))
        except (AttributeError, ValueError):
            problems.append(f"{path}:{number + 1}: not understood, passed over: {text[:60]!a}")
            continue
        records.append({**known, "epoch": float(epoch), "batch": float(batch), "rank": float(rank), "line": number})
    seen = dict.fromkeys(name for record in records for name in record)
    found = {name: np.array([record.get(name, np.nan) for record in records], np.float64) for name in seen}
    return found, {name: np.array([name in record for record in records]) for name in seen}


def _add_validation(
    lines: list[bytes], marks: list[tuple[int, re.Match[bytes]]], order: int, times: np.ndarray, points: Points
) -> None:
    """The means that follow each line of `marks`; at an epoch's end that line names the step that is next."""
    rows: dict[str, list[tuple[float, ...]]] = defaultdict(list)
    ends = [*(number for number, _ in marks), len(lines)][1:] if marks else []
    for (number, mark), until in zip(marks, ends, strict=True):
        for line in range(number, until):
            if b" CV info " in lines[line] and (found := _VALIDATED.search(lines[line])):
                step = int(mark[2]) - (mark[3] == b"True")
                for name, value in _VALUE.findall(found[1].decode("utf-8", "replace")):
                    rows[name].append((line, step, float(value), times[line]))
    for name, several in rows.items():
        at, steps, values, when = np.array(several, np.float64).T
        points.add(house_name(name, "val")[0], order + at.astype(np.int64), steps.astype(np.int64), values, when)
