"""Which checkpoints stay, decided from their records alone."""

from __future__ import annotations

import math
from collections.abc import Mapping

from tts_kernel.training.checkpoints.index import Record

Records = Mapping[str, Record]  # by file name


def newest_first(records: Records) -> list[Record]:
    """By the order of writing; latest_full.pth before a step file of the same bytes."""

    def written(record: Record) -> tuple[int, bool, int]:
        return record.number, record.kind == "latest_full", record.step

    return sorted(records.values(), key=written, reverse=True)


def outdated_steps(records: Records, keep: int) -> list[Record]:
    """All step files but the newest `keep`, and but the two newest healthy ones: of a file only the losses after it
    tell whether it is good, so the newest alone is none to go back to. With `keep` 0 none is outdated: the run has
    written none."""
    steps = [record for record in newest_first(records) if record.kind == "step"]
    kept = steps[:keep] + [record for record in steps if record.healthy][:2]
    return [record for record in steps if record not in kept] if keep else []


def tops(records: Records) -> list[Record]:
    """Lowest val/loss first; of equals the older."""
    return sorted((record for record in records.values() if record.kind == "top"), key=by_loss)


def outdated_tops(records: Records, keep: int) -> list[Record]:
    return tops(records)[keep:] if keep else []


def belongs_to_top(records: Records, keep: int, name: str, loss: float) -> bool:
    """Whether a checkpoint of this name and val/loss is to be among the `keep` best. A step that is trained again after
    a rollback has the name of its first time: the better one keeps it."""
    if not keep or not math.isfinite(loss):
        return False
    ranked = tops(records)
    same = next((record for record in ranked if record.file == name), None)
    if same is not None:
        return loss < same.metrics["val/loss"]
    return len(ranked) < keep or loss < ranked[keep - 1].metrics["val/loss"]


def lowest(records: Records, metric: str) -> Record | None:
    """The record of the lowest value, of equals the older; None where no file has one."""
    known = [record for record in records.values() if not math.isnan(record.metrics.get(metric, math.nan))]
    return min(known, key=lambda record: (record.metrics[metric], record.number), default=None)


def by_loss(record: Record) -> tuple[float, int]:
    return record.metrics["val/loss"], record.number
