"""The checkpoints of one run, under the guide's names: none is lost to a crash, the best to none that is worse.

latest_full.pth     everything a resume needs          latest.pth       weights
best_model.pth      lowest val/loss                    step_XXXXX.pth   everything, the newest few
best_text_model.pth lowest val/text_loss               top_XXXXX.pth    weights, the few of lowest val/loss
best_mel_model.pth  lowest val/mel_loss                index.json       what there is, for readers

A process may be killed between any two files. Each is whole; a save's values are in the file itself, so that the next
session can put the missing names in place; and what is deleted is deleted last.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from tts_kernel.models.weights import CheckpointError, reason
from tts_kernel.training.checkpoints.background import Writer
from tts_kernel.training.checkpoints.file import flush_folder, has_links, link, read, save
from tts_kernel.training.checkpoints.index import (
    Record,
    describe,
    kind_of,
    left_over,
    read_index,
    scan,
    stamp,
    write_index,
)
from tts_kernel.training.checkpoints.retention import (
    belongs_to_top,
    by_loss,
    lowest,
    newest_first,
    outdated_steps,
    outdated_tops,
    tops,
)
from tts_kernel.training.checkpoints.room import check_run, check_save, size_of, taken

log = logging.getLogger(__name__)

FORMAT = 2  # raise it when a resume needs something that older files do not hold
BEST = {"best_model.pth": "val/loss", "best_text_model.pth": "val/text_loss", "best_mel_model.pth": "val/mel_loss"}


class CheckpointFolder:
    """Saves, keeps and finds a run's checkpoints. Making one only reads; the first save tidies up after a session that
    was killed, so only the process that saves may call what saves."""

    def __init__(self, folder: Path, keep_steps: int, keep_best: int = 0, background: bool = False) -> None:
        """`keep_steps` step files stay and `keep_best` of the lowest val/loss. `background`: a thread writes, and every
        method that saves returns when the tensors are copied; what it could not write is raised by the next call that
        saves, by `wait` and by `close`."""
        self.folder, self.keep_steps, self.keep_best = folder, keep_steps, keep_best
        self._records = scan(folder)
        for name, record in self._records.items():
            metric = BEST.get(name, "val/loss")
            if record.kind in ("best", "top") and metric not in record.metrics:
                raise CheckpointError(f"{folder / name}: holds no {metric}, so it is not a run's; move it elsewhere")
        self._number = max((record.number for record in self._records.values()), default=0)
        self._writer = Writer() if background else None
        self._tidy = False

    @property
    def latest_full(self) -> Path:
        return self.folder / "latest_full.pth"

    @property
    def best(self) -> dict[str, float]:
        """The lowest value on the disk by best file, where there is one."""
        found = {name: lowest(self._records, metric) for name, metric in BEST.items()}
        return {name: record.metrics[BEST[name]] for name, record in found.items() if record is not None}

    def begun(self) -> bool:
        """Whether there is something to resume from."""
        return self.latest_full.is_file() or bool(self.steps())

    # Saving

    def save_latest(
        self, weights: Mapping[str, Any], full: Mapping[str, Any], step: int, *, healthy: bool = True
    ) -> None:
        """`full` holds `weights` and what a resume needs beyond them. `healthy=False` marks a state from amid a loss
        spike, which `read_last_good` passes over. Raises CheckpointError, also for an earlier save."""
        self._begin("latest")

        def write(weights: dict[str, Any], full: dict[str, Any]) -> None:
            check_save(self.folder, size_of(full) + size_of(weights))
            self._write(self.latest_full, full)
            self._write(self.folder / "latest.pth", weights)
            if self.keep_steps:
                self._link(self.latest_full, self.folder / f"step_{step:05d}.pth")
            self._end(outdated_steps(self._records, self.keep_steps))

        written = {"written": self._stamp(healthy)}
        self._run("latest", write, {**weights, **written}, {**full, **written})

    def save_best(self, weights: Mapping[str, Any], metrics: Mapping[str, float], step: int | None = None) -> list[str]:
        """Save under every best name that `metrics` beats, and among the top where it belongs there; returns those
        names. Raises CheckpointError, also for an earlier save."""
        self._begin("best")
        step = int(weights["step"]) if step is None else step
        best = self.best
        names = [name for name, metric in BEST.items() if metrics.get(metric, math.inf) < best.get(name, math.inf)]
        if belongs_to_top(self._records, self.keep_best, f"top_{step:05d}.pth", metrics.get("val/loss", math.nan)):
            names.append(f"top_{step:05d}.pth")
        if not names:
            return []

        def write(content: dict[str, Any]) -> None:
            check_save(self.folder, size_of(content))
            self._write(self.folder / names[0], content)
            for name in names[1:]:
                self._link(self.folder / names[0], self.folder / name)
            self._end(outdated_tops(self._records, self.keep_best))

        self._run("best", write, {**weights, "metrics": dict(metrics), "written": self._stamp(healthy=True)})
        return names

    def wait(self) -> None:
        """Until everything is on the disk. Raises CheckpointError for what could not be written."""
        if self._writer is not None:
            self._writer.wait()

    def close(self) -> None:
        """`wait`, and end the thread; a later save starts another."""
        if self._writer is not None:
            self._writer.close()

    def check_room(self, weights_bytes: int, full_bytes: int) -> None:
        """Raise CheckpointError unless all checkpoints that the run will write fit on the disk; before training.
        `room.size_of` and `room.full_size` tell the two sizes."""
        self.tidy()
        check_run(
            self.folder,
            weights_bytes,
            full_bytes,
            keep_steps=self.keep_steps,
            keep_best=self.keep_best,
            links=has_links(self.folder),
            there=taken(self.folder / name for name in self._records),
        )

    def tidy(self) -> None:
        """After a session that was killed: remove what it had half written, and give the best their names where it
        got no further than the first. Called by the first save."""
        if self._tidy:
            return
        for path in self.folder.iterdir():
            if left_over(path.name):
                path.unlink()
            elif path.name in BEST and path.name not in self._records:
                path.replace(aside := path.with_name(f"{path.name}.damaged"))
                log.warning("%s cannot be read and was moved to %s", path, aside.name)
        for name, metric in BEST.items():
            found, own = lowest(self._records, metric), self._records.get(name)
            if found is not None and (own is None or found.metrics[metric] < own.metrics[metric]):
                self._link(self.folder / found.file, self.folder / name)
        found = lowest(self._records, "val/loss")
        if found is not None:
            name = f"top_{found.step:05d}.pth"
            if belongs_to_top(self._records, self.keep_best, name, found.metrics["val/loss"]):
                self._link(self.folder / found.file, self.folder / name)
        if self._records:
            self._end(outdated_tops(self._records, self.keep_best))
        self._tidy = True

    # Finding

    def read_latest(self) -> dict[str, Any]:
        """What to resume from: latest_full.pth, or where it is damaged or gone the newest step file that is whole.
        Raises CheckpointError where there is neither, and for a file of another format."""
        self.wait()
        try:
            return _ours(self.latest_full)
        except _ForeignError:
            raise
        except CheckpointError as error:
            damage = error
        for record in newest_first(self._scanned()):
            if record.kind == "step":
                content = self._whole(record)
                if content is not None:
                    log.warning("%s. Going on from %s, step %d, instead", damage, record.file, record.step)
                    return content
        raise CheckpointError(
            f"{damage}. There is no step file to go on from either; start a new run with best_model.pth or another "
            "checkpoint as base_checkpoint"
        ) from damage

    def read_last_good(self, before: int | None = None) -> dict[str, Any]:
        """The newest checkpoint that is whole, was healthy and is of a step below `before`, for a rollback. Raises
        CheckpointError where there is none."""
        for record in newest_first(self._scanned()):
            if record.full and record.healthy and (before is None or record.step < before):
                content = self._whole(record)
                if content is not None:
                    return content
        raise CheckpointError(f"{self.folder}: no checkpoint that is whole and was written while the loss was healthy")

    def records(self) -> list[Record]:
        """What is on the disk by index.json, newest first."""
        return read_index(self.folder)

    def top(self, count: int) -> list[Path]:
        """Up to `count` files of lowest val/loss, best first."""
        self.wait()
        ranked = tops(self._records)
        best = self._records.get("best_model.pth")
        if best is not None and best.number not in {record.number for record in ranked}:
            ranked = sorted([best, *ranked], key=by_loss)
        return [self.folder / record.file for record in ranked[:count]]

    def steps(self) -> list[Path]:
        """The step files, oldest first by the order of writing: a run that went back writes lower numbers."""
        return [self.folder / record.file for record in reversed(newest_first(self._records)) if record.kind == "step"]

    # Inside a save

    def _begin(self, kind: str) -> None:
        if self._writer is not None:
            self._writer.wait_for(kind)
        self.tidy()

    def _run(self, kind: str, write: Callable[..., None], *contents: dict[str, Any]) -> None:
        if self._writer is None:
            write(*contents)
        else:
            self._writer.submit(kind, write, *contents)

    def _stamp(self, healthy: bool) -> dict[str, Any]:
        self._number += 1
        return stamp(self._number, healthy)

    def _write(self, path: Path, content: dict[str, Any]) -> None:
        save(path, content)
        self._note(describe(path, content))

    def _link(self, source: Path, target: Path) -> None:
        link(source, target)
        self._note(_renamed(self._records[source.name], target))

    def _note(self, record: Record) -> None:
        self._records = {**self._records, record.file: record}  # a new one: the other thread may be reading the old

    def _end(self, outdated: list[Record]) -> None:
        """The last part of a save: only what is safely on the disk may replace what is not needed any more."""
        gone = {record.file for record in outdated}
        try:
            flush_folder(self.folder)
            for name in gone:
                (self.folder / name).unlink(missing_ok=True)
            self._records = {name: record for name, record in self._records.items() if name not in gone}
            write_index(self.folder, self._records)
        except OSError as error:
            raise CheckpointError(
                f"{self.folder}: the checkpoint is written, its folder could not be brought up to date "
                f"({reason(error)}); make room and resume the run"
            ) from error

    def _scanned(self) -> dict[str, Record]:
        """What is there now: another process of the run may have saved since."""
        self.wait()
        self._records = scan(self.folder)
        return self._records

    def _whole(self, record: Record) -> dict[str, Any] | None:
        try:
            return _ours(self.folder / record.file)
        except CheckpointError as error:
            log.warning("%s", error)
            return None


class _ForeignError(CheckpointError):
    """A checkpoint that is whole, of another format."""


def _ours(path: Path) -> dict[str, Any]:
    content = read(path)
    if content.get("format") != FORMAT:
        raise _ForeignError(
            f"{path}: format {content.get('format')!r}, expected {FORMAT}; it cannot be resumed exactly. "
            "Start a new run with this file as base_checkpoint"
        )
    return content


def _renamed(record: Record, path: Path) -> Record:
    kind = kind_of(path.name)
    assert kind is not None, f"{path} is no checkpoint's name"
    return replace(record, file=path.name, kind=kind)
