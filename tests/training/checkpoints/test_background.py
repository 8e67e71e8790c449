from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader

from tts_kernel.models.weights import CheckpointError
from tts_kernel.training.checkpoints.background import Staging, Writer
from tts_kernel.training.checkpoints.file import save
from tts_kernel.training.checkpoints.room import tensors_of


def addresses(content: Any) -> list[int]:
    return [tensor.data_ptr() for tensor in tensors_of(content)]


class Held:
    """A job that goes on until it is let go, and keeps what it was given."""

    def __init__(self, fails: Exception | None = None) -> None:
        self.begun, self.free, self.seen, self.fails = threading.Event(), threading.Event(), [], fails

    def __call__(self, *contents: Any) -> None:
        self.begun.set()
        assert self.free.wait(60)
        if self.fails is not None:
            raise self.fails
        self.seen.extend(content["a"].clone() for content in contents)


# The copy


def test_a_copy_does_not_follow_the_state() -> None:
    state = {"a": torch.ones(3), "b": [torch.zeros(2), {"c": (torch.arange(3), 7)}], "d": "text", "e": [1, 2]}
    copy = Staging().snapshot(state)
    state["a"].add_(1)
    state["b"][0].add_(1)
    state["e"].append(3)
    assert copy["a"].tolist() == [1, 1, 1]
    assert copy["b"][0].tolist() == [0, 0]
    assert copy["b"][1]["c"][0].tolist() == [0, 1, 2]
    assert (copy["b"][1]["c"][1], copy["d"], copy["e"]) == (7, "text", [1, 2])


@pytest.mark.parametrize(
    "tensor",
    [
        torch.randn(4, 3).T,
        torch.randn(10)[3:8:2],
        torch.randn(3, dtype=torch.bfloat16),
        torch.tensor(3),
        torch.empty(0, 4),
        torch.tensor([True, False]),
        torch.randn(2, dtype=torch.complex64).conj(),
        torch.eye(3).to_sparse(),
        nn.Parameter(torch.randn(2)),
    ],
    ids=["transposed", "strided", "bfloat16", "number", "empty", "bool", "conjugate", "sparse", "parameter"],
)
def test_a_copy_equals_its_tensor(tensor: torch.Tensor) -> None:
    copy = Staging().snapshot(tensor)
    expected, found = (value.detach().to_dense() if value.is_sparse else value.detach() for value in (tensor, copy))
    assert torch.equal(found, expected)
    assert (copy.dtype, copy.requires_grad) == (tensor.dtype, False)


def test_what_is_shared_is_copied_once_and_stays_shared(tmp_path: Path) -> None:
    table = torch.randn(500, 4)
    weights = {"model": OrderedDict(embedding=table, head=table.view(4, 500), part=table[:10])}
    state = (weights, {**weights, "optimizer": {"m": torch.randn(500, 4)}})
    copy = Staging().snapshot(state)
    shared = addresses(copy)[:6]
    assert len(set(shared)) == 1
    assert shared[0] != table.data_ptr()
    save(tmp_path / "copy.pth", copy[0])
    save(tmp_path / "own.pth", weights)
    sizes = [(tmp_path / name).stat().st_size for name in ("copy.pth", "own.pth")]
    assert sizes[0] < sizes[1] + 100, "shared memory is written once"


def test_a_state_dict_stays_one() -> None:
    state = nn.BatchNorm1d(2).state_dict()
    copy = Staging().snapshot(state)
    assert type(copy) is OrderedDict
    assert copy._metadata == state._metadata
    nn.BatchNorm1d(2).load_state_dict(copy)


def test_buffers_are_used_again_and_those_not_needed_are_given_back() -> None:
    staging = Staging()
    first = addresses(staging.snapshot({"a": torch.ones(1000), "b": torch.ones(1000), "c": torch.ones(7)}))
    second = addresses(staging.snapshot({"x": torch.zeros(7), "y": torch.zeros(1000), "z": torch.zeros(1000)}))
    assert sorted(first) == sorted(second)
    staging.snapshot({"a": torch.ones(7)})
    assert sum(buffer.numel() for buffers in staging._free.values() for buffer in buffers) == 28


# The thread


def test_training_goes_on_while_a_save_is_written() -> None:
    writer, job, state = Writer(), Held(), {"a": torch.ones(3)}
    writer.submit("latest", job, state)
    state["a"].zero_()
    job.free.set()
    writer.close()
    assert [value.tolist() for value in job.seen] == [[1, 1, 1]]


def test_a_save_waits_for_the_last_of_its_kind_and_for_no_other() -> None:
    writer, first, best, second = Writer(), Held(), Held(), Held()
    writer.submit("latest", first, {"a": torch.ones(1)})
    writer.submit("best", best, {"a": torch.ones(1)})
    waiting = threading.Thread(target=writer.submit, args=("latest", second, {"a": torch.zeros(1)}))
    waiting.start()
    time.sleep(0.05)
    assert waiting.is_alive()
    assert not best.begun.is_set(), "one after the other"
    best.free.set()
    second.free.set()
    first.free.set()
    waiting.join(60)
    writer.close()
    assert first.seen[0].tolist() == [1], "its memory was not written over"
    assert second.seen[0].tolist() == [0]


@pytest.mark.parametrize("where", ["submit", "wait_for", "wait", "close"])
def test_what_a_save_raised_is_raised_once_where_it_can_be_heard(where: str) -> None:
    writer, job, state = Writer(), Held(CheckpointError("no room")), {"a": torch.ones(1)}
    job.free.set()
    writer.submit("latest", job, state)
    writer._pending["latest"].exception()
    asked = {
        "submit": lambda: writer.submit("best", Held(), state),
        "wait_for": lambda: writer.wait_for("best"),
        "wait": writer.wait,
        "close": writer.close,
    }
    with pytest.raises(CheckpointError, match="no room"):
        asked[where]()
    writer.wait()
    writer.close()


def test_an_error_of_another_kind_becomes_a_checkpoint_error() -> None:
    writer, job = Writer(), Held(KeyError("lost"))
    job.free.set()
    writer.submit("latest", job, {})
    with pytest.raises(CheckpointError, match=r"not written: KeyError\('lost'\)"):
        writer.wait()


def test_after_a_failure_the_next_save_is_written() -> None:
    writer, bad, good = Writer(), Held(CheckpointError("no room")), Held()
    writer.submit("latest", bad, {})
    writer.submit("best", good, {"a": torch.ones(1)})
    bad.free.set()
    good.free.set()
    with pytest.raises(CheckpointError, match="no room"):
        writer.wait()
    writer.close()
    assert len(good.seen) == 1


def test_a_closed_writer_can_be_used_again() -> None:
    writer = Writer()
    before = set(threading.enumerate())
    for _ in range(2):
        job = Held()
        job.free.set()
        writer.submit("latest", job, {"a": torch.ones(1)})
        writer.close()
        assert len(job.seen) == 1
        assert set(threading.enumerate()) <= before


def test_loader_processes_can_be_forked_while_a_save_is_written() -> None:
    writer, job = Writer(), Held()
    writer.submit("latest", job, {"a": torch.ones(1)})
    assert job.begun.wait(60)
    loader = DataLoader(list(range(8)), batch_size=2, num_workers=2, multiprocessing_context="fork")  # type: ignore[arg-type]
    assert [batch.tolist() for batch in loader] == [[0, 1], [2, 3], [4, 5], [6, 7]]
    job.free.set()
    writer.close()


def test_an_interpreter_that_ends_writes_what_was_asked_for(tmp_path: Path) -> None:
    script = f"""
import time, torch
from pathlib import Path
from tts_kernel.training.checkpoints.background import Writer
from tts_kernel.training.checkpoints.file import save
from tts_kernel.training.checkpoints.room import tensors_of
def job(content):
    time.sleep(0.3)
    save(Path({str(tmp_path)!r}) / "a.pth", content)
Writer().submit("latest", job, {{"a": torch.ones(3)}})
raise SystemExit(3)
"""
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 3
    assert torch.load(tmp_path / "a.pth", weights_only=True)["a"].tolist() == [1, 1, 1]


@pytest.mark.gpu
def test_a_gpus_state_is_copied_into_pinned_memory() -> None:
    state = {"a": torch.arange(1000.0, device="cuda"), "b": torch.arange(1000.0)}
    copy = Staging().snapshot(state)
    state["a"].zero_()
    assert (copy["a"].device.type, copy["a"].is_pinned(), copy["b"].is_pinned()) == ("cpu", True, False)
    assert torch.equal(copy["a"], torch.arange(1000.0))
