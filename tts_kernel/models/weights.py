"""Reading checkpoints without running code in them, and loading state dicts with a report of every name."""

from __future__ import annotations

import pickle
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn


class CheckpointError(ValueError):
    """A checkpoint that is missing, unreadable, unsafe or of another architecture."""


def read_checkpoint(path: Path, mmap: bool = True) -> dict[str, Any]:
    """A .pth, .pt or .safetensors file as a dictionary on the CPU; tensors and plain values only, never code.
    Raises CheckpointError saying what the file is instead. `mmap` leaves tensors on disk until they are used."""
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "does not exist"
        raise CheckpointError(f"{path}: {what}; expected a checkpoint file (.pth, .pt or .safetensors)")
    if path.suffix == ".safetensors":
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            return load_file(path)
        except SafetensorError as error:
            raise CheckpointError(f"{path}: not a readable safetensors file ({error}); copy it again") from error
    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True, mmap=mmap and zipfile.is_zipfile(path))
    except pickle.UnpicklingError as error:
        if "GLOBAL" in str(error):
            raise CheckpointError(
                f"{path}: holds Python objects, which could run code, and is not loaded ({reason(error)}). "
                "Export its state dict as plain tensors where you trust the file"
            ) from error
        raise CheckpointError(f"{path}: not a readable checkpoint ({reason(error)}); copy it again") from error
    except Exception as error:  # damaged bytes are instructions to the unpickler: it stumbles in any way there is
        raise CheckpointError(
            f"{path}: truncated or damaged ({path.stat().st_size:,} bytes: {reason(error)}); "
            "copy it again or take an older checkpoint"
        ) from error
    if not isinstance(loaded, dict):
        raise CheckpointError(f"{path}: holds a {type(loaded).__name__}, expected a dictionary of tensors")
    return loaded


def reason(error: Exception) -> str:
    """One line of an error's message, without torch's advice to load the file with its code; its type where the
    message is empty."""
    lines = [line.strip() for line in str(error).splitlines() if "weights_only" not in line]
    return next(filter(None, lines), type(error).__name__)


def state_of(checkpoint: dict[str, Any], where: str) -> dict[str, Tensor]:
    """The state dict inside a checkpoint: under "model" or "state_dict", or the dictionary itself."""
    for key in ("model", "state_dict"):
        if isinstance(checkpoint.get(key), dict):
            checkpoint = checkpoint[key]
            break
    state = {name: value for name, value in checkpoint.items() if isinstance(value, Tensor)}
    if not state:
        raise CheckpointError(f"{where}: no tensors found; its keys are {sorted(map(str, checkpoint))[:8]}")
    return state


def plain_names(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Names without what wrappers add: DataParallel's `module.`, torch.compile's `_orig_mod.`, peft's
    `base_model.model.` and `.base_layer`."""

    def plain(name: str) -> str:
        name = name.replace("_orig_mod.", "").replace(".base_layer.", ".")
        return name.removeprefix("module.").removeprefix("base_model.model.")

    return {plain(name): value for name, value in state.items()}


@dataclass
class LoadReport:
    """What happened to every name of a checkpoint and of a model."""

    loaded: int = 0  # tensors copied
    reinitialised: list[str] = field(default_factory=list)  # the model's, by a rule of the family
    extended: list[str] = field(default_factory=list)  # grown to a larger vocabulary
    dropped: list[str] = field(default_factory=list)  # the file's: aliases, parts this model does not have
    unmerged: list[str] = field(default_factory=list)  # the file's LoRA weights, left out
    missing: list[str] = field(default_factory=list)  # in the model, not in the file
    unexpected: list[str] = field(default_factory=list)  # in the file, not in the model
    mis_shaped: list[str] = field(default_factory=list)  # "name: file [..], model [..]"

    @property
    def fits(self) -> bool:
        return not (self.missing or self.unexpected or self.mis_shaped)

    def __str__(self) -> str:
        parts = [f"{self.loaded} tensors loaded"]
        titles = {name: name.replace("_", "-") for name in ("reinitialised", "extended", "dropped", "missing")}
        titles |= {"unexpected": "unexpected", "mis_shaped": "mis-shaped"}
        titles["unmerged"] = "LoRA weights left out (merge them first, else what they learned is lost)"
        for attribute, title in titles.items():
            names = getattr(self, attribute)
            if names:
                more = f" and {len(names) - 4} more" if len(names) > 4 else ""
                parts.append(f"{len(names)} {title}: {', '.join(names[:4])}{more}")
        return "; ".join(parts)


def copy_state(
    model: nn.Module, state: dict[str, Tensor], may_reinitialise: Iterable[str], report: LoadReport, where: str
) -> LoadReport:
    """Copy `state` into `model` strictly. Names that start with one of `may_reinitialise` may be missing or
    mis-shaped: they keep the model's fresh values. Nothing is copied unless everything else fits (CheckpointError)."""
    own = model.state_dict()
    allowed = tuple(may_reinitialise)
    fitting: dict[str, Tensor] = {}
    for name, value in own.items():
        given = state.get(name)
        if given is not None and given.shape == value.shape:
            fitting[name] = given
        elif allowed and name.startswith(allowed):
            report.reinitialised.append(name)
        elif given is None:
            report.missing.append(name)
        else:
            report.mis_shaped.append(f"{name}: file {list(given.shape)}, model {list(value.shape)}")
    report.unexpected = [name for name in state if name not in own]
    report.loaded = len(fitting)
    if not report.fits:
        raise CheckpointError(
            f"{where}: does not fit this model ({len(fitting)} of {len(own)} tensors do). {report}. "
            "Check that model_config belongs to this checkpoint"
        )
    model.load_state_dict(fitting, strict=False)
    return report
