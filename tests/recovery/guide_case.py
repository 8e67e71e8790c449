"""The guide's case (SYSTEMS.md, section 2) as data: a log in the format of its trainer, with exactly its facts.

tests/fixtures/recovery/guide_case/train.log.gz is what `write_log` writes. The checkpoints are made when they are asked
for: the guide's keys around a model of a few values.
"""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import torch

FOLDER = Path(__file__).resolve().parent.parent / "fixtures" / "recovery" / "guide_case"
LOG = FOLDER / "train.log.gz"

RATE, BATCH, PAIRS = 2.0e-5, 4, 5_483_856
BEST_STEP, BEST = 298_800, 0.9358
RISING, RUINED, LAST = 351_000, (436_000, 437_000, 438_000), 438_000
EVERY = 100  # steps
TURN = 312_000  # where the loss begins to rise
STEPS_PER_MINUTE = 375.0


def trend(steps: np.ndarray) -> np.ndarray:
    """(points,) text_loss without its noise: a fall that slows down, then a rise; about 2.1
    at 351,000, of which a quarter to a half coming back leaves the guide's 1.5 to 1.8."""
    fall = 0.965 + 3.6 * np.exp(-steps / 40_000) + 0.6 * np.exp(-steps / 120_000) - 0.02 * steps / LAST
    rise = np.clip(steps - TURN, 0, None) / (LAST - TURN)
    return fall + 3.4 * rise


def write_log(path: Path, seed: int = 0) -> None:
    """The whole log; one value is made the lowest, which the guide remembers as its best."""
    random = np.random.default_rng(seed)
    steps = np.arange(EVERY, LAST + 1, EVERY)
    text = np.maximum(trend(steps) + 0.035 * random.standard_normal(len(steps)), BEST + 0.002)
    text[steps == BEST_STEP] = BEST
    mel = 2.1 + text + 0.08 * random.standard_normal(len(steps))
    speed = STEPS_PER_MINUTE * np.clip(1 + 0.08 * random.standard_normal(len(steps)), 0.6, 1.3)
    lines = [
        f"[Train] epoch=1 step={step} text_loss={text_loss:.4f} mel_loss={mel_loss:.4f} lr={RATE:.2e} | "
        f"{per_minute:.1f}steps/min {BATCH * per_minute / 60:.1f}samples/s {60 / per_minute:.2f}s/step"
        for step, text_loss, mel_loss, per_minute in zip(steps, text, mel, speed, strict=True)
    ]
    with gzip.GzipFile(path, "wb", mtime=0) as file:
        file.write(("\n".join(lines) + "\n").encode())


def make_case(folder: Path) -> Path:
    """A run folder as the guide's trainer leaves one: its log and the checkpoints that are left."""
    folder.mkdir(parents=True)
    (folder / "train.log").write_bytes(gzip.decompress(LOG.read_bytes()))
    for step in (RISING, *RUINED):
        torch.save(checkpoint(step), folder / f"step_{step}.pth")
    torch.save(checkpoint(LAST), folder / "latest_full.pth")
    torch.save({key: checkpoint(LAST)[key] for key in ("model", "step", "epoch")}, folder / "latest.pth")
    return folder


def checkpoint(step: int) -> dict[str, object]:
    weights = torch.nn.Linear(3, 2)
    optimizer = torch.optim.AdamW(weights.parameters(), lr=RATE)
    return {
        "model": weights.state_dict(),
        "optimizer": optimizer.state_dict(),
        "optimizer_type": "adamw",
        "scheduler": None,
        "scaler": None,
        "epoch": 0,
        "step": step,
        "manifests": {"train": [{"path": "gpt_pairs_train_mel.jsonl", "count": PAIRS, "languages": ["ko"]}]},
    }


if __name__ == "__main__":
    FOLDER.mkdir(parents=True, exist_ok=True)
    write_log(LOG)
