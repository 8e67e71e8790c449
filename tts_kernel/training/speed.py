"""Where and in which precision to compute."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Literal

import torch

DeviceName = Literal["auto", "cpu", "cuda"]
Precision = Literal["auto", "float32", "bfloat16"]
Attention = Literal["fused", "eager"]
CompileMode = Literal["off", "default", "reduce-overhead", "max-autotune"]


def choose_device(name: DeviceName) -> torch.device:
    """ "auto" is the GPU where there is one. Raises ValueError if a GPU is asked for and none is found."""
    if name == "cuda" and not torch.cuda.is_available():
        raise ValueError("device is 'cuda', but torch finds no GPU; use 'auto' or 'cpu'")
    return torch.device("cuda" if name != "cpu" and torch.cuda.is_available() else "cpu")


def autocast(device: torch.device, precision: Precision) -> Callable[[], AbstractContextManager[object]]:
    """What to compute a forward pass in. "auto" is bfloat16 on a GPU that has it, float32 elsewhere.
    Raises ValueError if bfloat16 is asked for on a GPU without it."""
    capable = device.type == "cpu" or torch.cuda.is_bf16_supported(including_emulation=False)
    if precision == "bfloat16" and not capable:
        raise ValueError(f"precision is 'bfloat16', but {torch.cuda.get_device_name(device)} lacks it; use 'float32'")
    if precision == "bfloat16" or (precision == "auto" and device.type == "cuda" and capable):
        return lambda: torch.autocast(device.type, dtype=torch.bfloat16)
    return nullcontext
