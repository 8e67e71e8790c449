from __future__ import annotations

from pathlib import Path

from tts_kernel.recovery.history import History, read_history

ACCUMULATE = "2025-01-31 09:00:00,000 INFO using accumulate grad, new batch size is 2 times larger than before"


def batch(epoch: int, number: int, loss: float, *, seconds: int = 0, rank: int = 0, grad_norm: float = 0.0) -> str:
    """Its loss as CosyVoice logs it: divided by the accumulation of 2."""
    return (
        f"2025-01-31 09:00:{seconds:02d},000 DEBUG TRAIN Batch {epoch}/{number} loss {loss / 2:.6f} acc 0.250000 "
        f"lr 0.00001000 grad_norm {grad_norm:.6f} rank {rank}"
    )


def validation(epoch: int, step: int, loss: float, *, end: bool = True) -> list[str]:
    return [
        f"2025-01-31 09:01:00,000 INFO Epoch {epoch} Step {step} on_batch_end {end} CV rank 0",
        "2025-01-31 09:01:00,500 DEBUG CV Batch 0/1 loss 9.000000 acc 0.100000  rank 0",
        f"2025-01-31 09:01:01,000 INFO Epoch {epoch} Step {step} CV info lr 1e-05 0 rank loss_{loss} acc_0.5",
    ]


def epoch(number: int, losses: list[float], step: int) -> list[str]:
    batches = [
        batch(number, place, loss, seconds=place, grad_norm=1.5 if place % 2 == 0 else 0.0)
        for place, loss in enumerate(losses, start=1)
    ]
    return [*batches, *validation(number, step + 1, 3.25)]


def read(tmp_path: Path, *lines: str) -> History:
    (tmp_path / "train.log").write_text("".join(line + "\n" for line in lines), encoding="utf-8")
    return read_history(tmp_path)


def points(history: History, metric: str) -> list[tuple[int, float]]:
    return list(zip(history[metric].steps.tolist(), history[metric].values.tolist(), strict=True))


def test_batches_become_updates_with_the_loss_of_a_batch(tmp_path: Path) -> None:
    history = read(tmp_path, ACCUMULATE, *epoch(0, [4.0, 2.0, 3.0, 1.0], 2), *epoch(1, [2.0, 2.0, 1.0, 1.0], 4))
    assert points(history, "train/loss") == [(1, 3.0), (2, 2.0), (3, 2.0), (4, 1.0)]
    assert points(history, "train/acc") == [(step, 0.25) for step in range(1, 5)]
    assert points(history, "train/lr") == [(step, 1e-5) for step in range(1, 5)]
    assert points(history, "train/grad_norm") == [(step, 1.5) for step in range(1, 5)]
    assert points(history, "val/loss") == [(2, 3.25), (4, 3.25)]
    assert points(history, "val/acc") == [(2, 0.5), (4, 0.5)]
    assert (history.resumes, history.problems) == ((), [])


def test_an_epoch_that_is_begun_again_takes_back_what_it_repeats(tmp_path: Path) -> None:
    first, second = epoch(0, [4.0] * 4, 2), epoch(1, [2.0] * 4, 4)
    history = read(tmp_path, ACCUMULATE, *first, *second[:3], *epoch(1, [1.0] * 4, 4))
    assert points(history, "train/loss") == [(1, 4.0), (2, 4.0), (3, 1.0), (4, 1.0)]
    assert history.resumes == (2,)


def test_a_log_that_begins_later_counts_from_what_it_says(tmp_path: Path) -> None:
    assert read(tmp_path, ACCUMULATE, *epoch(7, [1.0] * 4, 100))["train/loss"].steps.tolist() == [99, 100]
    without_end = read(tmp_path, ACCUMULATE, *epoch(7, [1.0] * 4, 100)[:4])
    assert without_end["train/loss"].steps.tolist() == [1, 2]
    assert "does not say at which step" in without_end.problems[0]


def test_lines_of_other_processes_are_counted(tmp_path: Path) -> None:
    lines = [batch(0, number, 2.0, rank=rank) for number in range(1, 5) for rank in (0, 1)]
    history = read(tmp_path, ACCUMULATE, *lines)
    assert points(history, "train/loss") == [(1, 2.0), (2, 2.0)]
    assert "4 lines of other processes" in history.problems[0]


def test_lines_that_are_not_alike_are_read_one_by_one(tmp_path: Path) -> None:
    other = "x DEBUG TRAIN Batch 0/3 loss 1.000000 extra 5.0 lr 0.00001000 grad_norm 0.000000 rank 0"
    broken = "x DEBUG TRAIN Batch 0/4 loss oops rank 0"
    history = read(tmp_path, ACCUMULATE, batch(0, 1, 4.0), batch(0, 2, 4.0), other, broken)
    assert points(history, "train/loss") == [(1, 4.0), (2, 2.0)]
    assert points(history, "train/extra") == [(2, 5.0)]
    assert len(history.problems) == 1


def test_a_validation_between_two_epochs_has_its_own_step(tmp_path: Path) -> None:
    lines = [batch(0, number, 2.0) for number in range(1, 5)]
    history = read(tmp_path, ACCUMULATE, *lines[:2], *validation(0, 1, 3.0, end=False), *lines[2:])
    assert points(history, "val/loss") == [(1, 3.0)]
