"""How long a history of half a million steps takes to be read, and then to be drawn.

python -m benchmarks.history [STEPS] writes one history of every kind to a temporary folder and prints a table of
seconds, the best of three each: reading a file that the system has in its cache, `curves.draw_training` and its PNG.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from torch.utils.tensorboard import SummaryWriter

from tts_kernel.recovery.course import read_course
from tts_kernel.recovery.history import History, read_history
from tts_kernel.widgets.curves import draw_training
from tts_kernel.widgets.figures import png

ALLOWED = {"read": 3.0, "plot": 1.0}  # seconds
REPEATS = 3


def losses(steps: int) -> np.ndarray:
    """(steps,): a loss that falls, with the noise of a batch."""
    return 1 + 3 * np.exp(-np.arange(steps) / steps * 5) + 0.1 * np.random.default_rng(0).standard_normal(steps)


def run_folder(path: Path, text: np.ndarray, gaps: bool = False) -> None:
    """Four metrics a step; with `gaps` one value in a hundred is null."""
    with (path / "metrics.jsonl").open("w", encoding="utf-8") as file:
        for step, value in enumerate(text, start=1):
            norm = None if gaps and step % 100 == 0 else round(2 * value, 6)
            line = {"step": step, "time": 1.7e9 + step / 2, "train/text_loss": round(value, 6), "train/lr": 2e-5}
            file.write(json.dumps({**line, "train/mel_loss": round(value + 1, 6), "train/grad_norm": norm}) + "\n")


def run_folder_with_gaps(path: Path, text: np.ndarray) -> None:
    run_folder(path, text, gaps=True)


def event_files(path: Path, text: np.ndarray) -> None:
    """One metric, in three sessions."""
    for number, part in enumerate(np.array_split(np.arange(1, len(text) + 1), 3)):
        with SummaryWriter(str(path), filename_suffix=f".{number}") as writer:
            for step in part:
                writer.add_scalar("train/text_loss", text[step - 1], int(step))


def guides_log(path: Path, text: np.ndarray) -> None:
    with (path / "train.log").open("w", encoding="utf-8") as file:
        for step, value in enumerate(text, start=1):
            file.write(
                f"[Train] epoch=1 step={step} text_loss={value:.4f} mel_loss={value + 1:.4f} mel_top1={value / 9:.4f} "
                f"lr=2.00e-05 | 115.4steps/min 7.7samples/s 0.52s/step | grad_norm={value:.2f} (clipped 0.50)\n"
            )


def cosyvoices_log(path: Path, text: np.ndarray) -> None:
    """Twenty epochs, with a batch for each update."""
    length = -(-len(text) // 20)
    with (path / "train.log").open("w", encoding="utf-8") as file:
        for step, value in enumerate(text):
            epoch, batch = divmod(step, length)
            file.write(
                f"2025-01-31 09:{step // 60 % 60:02d}:{step % 60:02d},589 DEBUG TRAIN Batch {epoch}/{batch + 1} "
                f"loss {value:.6f} acc {value / 9:.6f} lr 0.00001000 grad_norm {2 * value:.6f} rank 0\n"
            )


def wide_table(path: Path, text: np.ndarray) -> None:
    with (path / "metrics.csv").open("w", encoding="utf-8") as file:
        file.write("step,time,train/text_loss,train/mel_loss,train/lr\n")
        file.writelines(f"{step},{step / 2},{value:.6f},{value + 1:.6f},2e-05\n" for step, value in enumerate(text, 1))


def long_table(path: Path, text: np.ndarray) -> None:
    with (path / "metrics.csv").open("w", encoding="utf-8") as file:
        file.write("step,metric,value\n")
        file.writelines(f"{step},train/text_loss,{value:.6f}\n" for step, value in enumerate(text, 1))


KINDS: tuple[Callable[[Path, np.ndarray], None], ...] = (
    run_folder,
    run_folder_with_gaps,
    event_files,
    guides_log,
    cosyvoices_log,
    wide_table,
    long_table,
)


def seconds(what: Callable[[], object]) -> float:
    """The least of a few times: what else the machine does can only add to them."""
    taken = []
    for _ in range(REPEATS):
        begun = time.perf_counter()
        what()
        taken.append(time.perf_counter() - begun)
    return min(taken)


def measure(write: Callable[[Path, np.ndarray], None], steps: int) -> tuple[int, float, float, float]:
    """Points that were read; seconds to read them, to draw them, to find the course of one metric."""
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder), losses(steps))
        history: History = read_history(folder)
        metric = next(iter(history.metrics))
        return (
            sum(map(len, history.metrics.values())),
            seconds(lambda: read_history(folder)),
            seconds(lambda: png(draw_training(history))),
            seconds(lambda: read_course(history[metric])),
        )


def main(steps: int = 500_000) -> None:
    print(f"| {steps:,} steps | points | read, s | plot, s | course, s |\n|---|---|---|---|---|")
    late = []
    for write in KINDS:
        points, read, plot, course = measure(write, steps)
        print(
            f"| {write.__name__.replace('_', ' ')} | {points:,} | {read:.2f} | {plot:.2f} | {course:.2f} |", flush=True
        )
        late += [write.__name__] * (read > ALLOWED["read"] or plot > ALLOWED["plot"])
    sys.exit(f"longer than {ALLOWED}: {', '.join(late)}" if late else 0)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
