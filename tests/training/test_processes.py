"""Two processes train what one would have trained: same batches, same curve, same weights within float tolerance."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import asdict, replace
from typing import Any

import pytest
import torch

from tests.house.project import ROOT
from tests.tiny_voice import CONFIG, Bench
from tests.training.loop import logged
from tts_kernel.runs import write_yaml
from tts_kernel.training.processes import Processes, check_processes

# Three updates an epoch, of 10, 10 and 4 pairs: shares of 3 + 2, and of 2 + 2. Every metric at every step.
UNEVEN: dict[str, Any] = {"epochs": 2, "validate_every": 2, "save_every": 3, "grl_schedule": "constant"}


@pytest.fixture
def calm(bench: Bench) -> Bench:
    """Without dropout, which no two numbers of processes share."""
    config = replace(CONFIG.reading("mel"), dropout=0.0)
    write_yaml(bench.base.parent / "config.yaml", {"gpt": config.to_mapping()})
    return bench


def train_together(bench: Bench, world: int, name: str = "run", **changes: Any) -> subprocess.CompletedProcess[str]:
    """By `world` processes that torchrun starts, as a user would type it."""
    settings = {"recipe": "indextts2", **asdict(bench.settings(run_name=name, processes=world, **changes))}
    write_yaml(bench.folder / "settings.yaml", settings)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(world)]
    return subprocess.run(
        [*command, "-m", "tts_kernel.train", str(bench.folder / "settings.yaml")],
        cwd=ROOT,
        env=os.environ | {"TTS_KERNEL_RUNS": str(bench.folder / "runs"), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=200,
    )


def assert_alike(bench: Bench, name: str, other: str) -> None:
    """Curves and weights within float tolerance."""
    ours, expected = logged(bench, name), logged(bench, other)
    assert ours.keys() == expected.keys()
    for metric, values in expected.items():
        found = {step: ours[metric].get(step) for step in values}  # a stop may have validated once more
        assert found == pytest.approx(values, rel=2e-4, abs=2e-5), metric
    weights, wanted = bench.saved(name)["model"], bench.saved(other)["model"]
    assert weights.keys() == wanted.keys()
    for key, value in wanted.items():
        torch.testing.assert_close(weights[key], value, atol=5e-4, rtol=1e-3, msg=key)


def test_two_processes_train_as_one_and_one_goes_on_where_two_stopped(calm: Bench) -> None:
    calm.train("alone", **UNEVEN)
    done = train_together(calm, 2, "both", **UNEVEN, max_steps=3)
    assert done.returncode == 0, done.stderr
    assert calm.saved("both")["step"] == 3
    assert len(calm.saved("both")["random"]) == 2
    assert calm.train("both", **UNEVEN).status == "finished"
    assert_alike(calm, "both", "alone")
    assert len(calm.run("both").series("train/lr")[0]) == 6, "logged by one of them alone"


def test_a_process_without_a_row_keeps_the_other_company(calm: Bench) -> None:
    """Batches of 23 and 1: the second has a row for one process only."""
    sizes = {"batch_size": 23, "grad_accumulation": 1, "epochs": 1, "grl_schedule": "constant"}
    calm.train("alone", **sizes)
    done = train_together(calm, 2, "both", **sizes)
    assert done.returncode == 0, done.stderr
    assert_alike(calm, "both", "alone")


def test_sharded_states_train_as_whole_ones_and_resume_whole(calm: Bench) -> None:
    sharded: dict[str, Any] = {**UNEVEN, "fsdp": True}
    calm.train("alone", **UNEVEN)
    for stop in (3, 0):
        done = train_together(calm, 2, "sharded", **sharded, max_steps=stop)
        assert done.returncode == 0, done.stderr
    assert_alike(calm, "sharded", "alone")
    assert calm.train("sharded", **UNEVEN).step == 6, "one process can go on with it"


def test_more_processes_than_gpus_are_refused_before_anything_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    check_processes(2, "auto")
    check_processes(9, "cpu")
    with pytest.raises(ValueError, match="processes is 3, but torch finds 2 GPUs"):
        check_processes(3, "auto")


def test_alone_nothing_is_wrapped_gathered_or_sharded() -> None:
    alone, layer = Processes(torch.device("cpu")), torch.nn.Linear(2, 2)
    assert alone.main
    assert (alone.rank, alone.world) == (0, 1)
    assert alone.wrap(layer) is layer
    assert alone.gather("x") == ["x"]
    values = torch.tensor([1.0, 2.0])
    assert torch.equal(alone.total(values), values)
    state = layer.state_dict()
    assert alone.whole(state) is state
