"""Checkpoints under the guide's names: written whole or not at all, the best never replaced by a worse one.

latest_full.pth     everything a resume needs          latest.pth       weights
best_model.pth      lowest val/loss                    step_XXXXX.pth   everything, the newest few
best_text_model.pth lowest val/text_loss               config.yaml      the model's sizes and the run's settings
best_mel_model.pth  lowest val/mel_loss
"""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tts_kernel.models.weights import CheckpointError, read_checkpoint, reason

FORMAT = 1  # raise it when a resume needs something that older files do not hold
BEST = {"best_model.pth": "val/loss", "best_text_model.pth": "val/text_loss", "best_mel_model.pth": "val/mel_loss"}


def save(path: Path, content: Mapping[str, Any]) -> None:
    """Write beside `path`, flush to the disk, rename. Raises CheckpointError when the disk is full or the folder not
    writable; what was there before is then untouched."""
    scratch = path.with_name(f".{path.name}.part")
    try:
        with scratch.open("wb") as file:
            torch.save(dict(content), file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(scratch, path)
    except (OSError, RuntimeError) as error:  # torch wraps a failed write into a RuntimeError
        scratch.unlink(missing_ok=True)
        raise _unwritable(path, error) from error


def _unwritable(path: Path, error: Exception) -> CheckpointError:
    free = shutil.disk_usage(path.parent).free
    return CheckpointError(
        f"{path}: could not be written ({reason(error)}); {free / 1e6:,.0f} MB are free. "
        "The checkpoints that were there are untouched; make room and resume the run"
    )


def random_state() -> dict[str, Any]:
    """The generators of Python, numpy and torch as tensors and plain values, which a checkpoint can hold safely."""
    version, words, gauss = random.getstate()
    kind, keys, position, has_gauss, cached = np.random.get_state()
    state: dict[str, Any] = {
        "python": [version, list(words), gauss],
        "numpy": [str(kind), torch.from_numpy(np.asarray(keys, dtype=np.int64)), position, has_gauss, cached],
        "torch": torch.get_rng_state(),
    }
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state_all()
    return state


def set_random_state(state: Mapping[str, Any]) -> None:
    version, words, gauss = state["python"]
    random.setstate((version, tuple(words), gauss))
    kind, keys, position, has_gauss, cached = state["numpy"]
    np.random.set_state((kind, keys.numpy().astype(np.uint32), position, has_gauss, cached))
    torch.set_rng_state(state["torch"])
    if "cuda" in state and torch.cuda.device_count() == len(state["cuda"]):
        torch.cuda.set_rng_state_all(state["cuda"])


class CheckpointFolder:
    """The checkpoints of one run. Best values are read from the files themselves, so that a run that was killed
    between two saves, or resumed from an older one, still knows what it has to beat."""

    def __init__(self, folder: Path, keep_steps: int) -> None:
        self.folder, self.keep_steps = folder, keep_steps
        self.best: dict[str, float] = {}
        for name, metric in BEST.items():
            if (folder / name).is_file():
                found = read_checkpoint(folder / name).get("metrics", {})
                if metric not in found:
                    raise CheckpointError(
                        f"{folder / name}: holds no {metric}, so it is not a run's; move it elsewhere"
                    )
                self.best[name] = float(found[metric])

    @property
    def latest_full(self) -> Path:
        return self.folder / "latest_full.pth"

    def save_latest(self, weights: Mapping[str, Any], full: Mapping[str, Any], step: int) -> None:
        """`full` holds `weights` and what a resume needs beyond them. The step file is one more name for the same
        bytes, where the file system has hard links."""
        save(self.latest_full, full)
        save(self.folder / "latest.pth", weights)
        if self.keep_steps:
            target = self.folder / f"step_{step:05d}.pth"
            scratch = target.with_name(f".{target.name}.part")
            scratch.unlink(missing_ok=True)
            try:
                try:
                    os.link(self.latest_full, scratch)
                except OSError:
                    shutil.copyfile(self.latest_full, scratch)
                os.replace(scratch, target)
            except OSError as error:
                scratch.unlink(missing_ok=True)
                raise _unwritable(target, error) from error
            for old in self.steps()[: -self.keep_steps]:
                old.unlink()

    def save_best(self, weights: Mapping[str, Any], metrics: Mapping[str, float]) -> list[str]:
        """Save under every best name that `metrics` beats; returns those names."""
        beaten = [
            name for name, metric in BEST.items() if metric in metrics and metrics[metric] < self.best.get(name, np.inf)
        ]
        for name in beaten:
            save(self.folder / name, {**weights, "metrics": dict(metrics)})
            self.best[name] = metrics[BEST[name]]
        return beaten

    def steps(self) -> list[Path]:
        """step_<number>.pth, oldest first by the time they were written: a run that went back writes lower numbers."""
        numbers = {path: path.stem.removeprefix("step_") for path in self.folder.glob("step_*.pth")}
        own = {path: int(text) for path, text in numbers.items() if text.isdecimal()}
        return sorted(own, key=lambda path: (path.stat().st_mtime_ns, own[path]))

    def read_latest(self) -> dict[str, Any]:
        """What to resume from. Raises CheckpointError for a file of another format."""
        # Not mapped: the file is replaced while the run goes on.
        content = read_checkpoint(self.latest_full, mmap=False)
        if content.get("format") != FORMAT:
            raise CheckpointError(
                f"{self.latest_full}: format {content.get('format')!r}, expected {FORMAT}; it cannot be resumed "
                "exactly. Start a new run with this file as base_checkpoint"
            )
        return content
