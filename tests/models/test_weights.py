from __future__ import annotations

import io
import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from tts_kernel.models.weights import (
    CheckpointError,
    LoadReport,
    copy_state,
    plain_names,
    read_checkpoint,
    state_of,
)

STATE = {"a.weight": torch.arange(6.0).reshape(2, 3), "a.bias": torch.ones(2)}


class Evil:
    """Runs a command where it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.path),)


def as_bytes(legacy: bool) -> bytes:
    buffer = io.BytesIO()
    torch.save({"model": STATE, "step": 3}, buffer, _use_new_zipfile_serialization=not legacy)
    return buffer.getvalue()


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
@pytest.mark.parametrize("mmap", [False, True])
def test_both_formats_of_torch_are_read(tmp_path: Path, legacy: bool, mmap: bool) -> None:
    path = tmp_path / "gpt.pth"
    path.write_bytes(as_bytes(legacy))
    content = read_checkpoint(path, mmap)
    assert content["step"] == 3
    assert torch.equal(content["model"]["a.weight"], STATE["a.weight"])


def test_safetensors_are_read(tmp_path: Path) -> None:
    save_file(STATE, tmp_path / "gpt.safetensors")
    assert torch.equal(read_checkpoint(tmp_path / "gpt.safetensors")["a.weight"], STATE["a.weight"])


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
def test_a_file_cut_anywhere_is_a_checkpoint_error_that_names_it(tmp_path: Path, legacy: bool) -> None:
    path, content = tmp_path / "gpt.pth", as_bytes(legacy)
    lengths = [*range(0, len(content), 1 if legacy else 37), len(content) - 1]
    for length in lengths:
        path.write_bytes(content[:length])
        with pytest.raises(CheckpointError, match=r"gpt\.pth"):
            read_checkpoint(path)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_bytes_that_were_never_a_checkpoint_are_refused(tmp_path: Path) -> None:
    path, random = tmp_path / "gpt.pth", np.random.default_rng(0)
    for content in (b"not a checkpoint\n", b"<html></html>", b"\x80", *(random.bytes(300) for _ in range(200))):
        path.write_bytes(content)
        with pytest.raises(CheckpointError, match=r"gpt\.pth"):
            read_checkpoint(path)


@pytest.mark.parametrize("cut", [0, 5, 60])
def test_damaged_safetensors_are_refused(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "gpt.safetensors"
    save_file(STATE, path)
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(CheckpointError, match=r"gpt\.safetensors"):
        read_checkpoint(path)


def test_a_missing_file_and_a_folder_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="does not exist"):
        read_checkpoint(tmp_path / "gpt.pth")
    with pytest.raises(CheckpointError, match="is a folder"):
        read_checkpoint(tmp_path)


@pytest.mark.parametrize("kind", ["zip", "legacy", "plain pickle"])
def test_code_in_a_checkpoint_is_refused_and_not_run(tmp_path: Path, kind: str) -> None:
    path, trace = tmp_path / "gpt.pth", tmp_path / "it_ran"
    content = {"model": STATE, "more": Evil(trace)}
    if kind == "plain pickle":
        path.write_bytes(pickle.dumps({"more": Evil(trace)}, protocol=2))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=kind == "zip")
    with pytest.raises(CheckpointError, match="could run code") as caught:
        read_checkpoint(path)
    assert "mkdir" in str(caught.value)
    assert not trace.exists()
    torch.load(path, weights_only=False) if kind != "plain pickle" else pickle.loads(path.read_bytes())
    assert trace.exists(), "the file was harmless, so the test above proves nothing"


def test_anything_but_a_dictionary_is_refused(tmp_path: Path) -> None:
    torch.save([torch.ones(2)], tmp_path / "gpt.pth")
    with pytest.raises(CheckpointError, match="holds a list, expected a dictionary"):
        read_checkpoint(tmp_path / "gpt.pth")


@pytest.mark.parametrize("wrapped", [{"model": STATE, "step": 1}, {"state_dict": STATE}, {**STATE, "epoch": 2}])
def test_the_state_is_found_wherever_it_lies(wrapped: dict[str, Any]) -> None:
    assert state_of(wrapped, "x").keys() == STATE.keys()


def test_a_checkpoint_without_tensors_names_its_keys() -> None:
    with pytest.raises(CheckpointError, match=r"x: no tensors found; its keys are \['epoch', 'model'\]"):
        state_of({"model": 1, "epoch": 2}, "x")


def test_wrappers_leave_no_trace_in_names() -> None:
    wrapped = [
        "_orig_mod.a.weight",
        "module._orig_mod.b",
        "module.c",
        "base_model.model.d.base_layer.weight",
        "e.module.f",
    ]
    plain = ["a.weight", "b", "c", "d.weight", "e.module.f"]
    assert list(plain_names(dict.fromkeys(wrapped, torch.ones(1)))) == plain


def test_what_does_not_fit_is_named_and_nothing_is_copied() -> None:
    model = nn.ModuleDict({"a": nn.Linear(3, 2), "b": nn.Linear(2, 2)})
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state = {
        "a.weight": torch.zeros(2, 3),
        "a.bias": torch.zeros(5),
        "c.weight": torch.zeros(1),
        "b.bias": torch.zeros(2),
    }
    report = LoadReport()
    with pytest.raises(CheckpointError) as caught:
        copy_state(model, state, (), report, "gpt.pth")
    for part in ("b.weight", "c.weight", "a.bias: file [5], model [2]", "gpt.pth"):
        assert part in str(caught.value)
    assert (report.missing, report.unexpected) == (["b.weight"], ["c.weight"])
    assert report.mis_shaped == ["a.bias: file [5], model [2]"]
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_only_names_that_may_be_fresh_are_forgiven() -> None:
    model = nn.ModuleDict({"a": nn.Linear(3, 2), "b": nn.Linear(2, 2)})
    report = copy_state(model, STATE, ["b."], LoadReport(), "gpt.pth")
    assert (report.loaded, report.reinitialised) == (2, ["b.weight", "b.bias"])
    assert torch.equal(model["a"].weight, STATE["a.weight"])
    with pytest.raises(CheckpointError, match=r"b\.weight"):
        copy_state(model, STATE, (), LoadReport(), "gpt.pth")
