"""Where and in which precision to compute, and what makes it fast: each is a switch of its own."""

from __future__ import annotations

import logging
import os
import shutil
import struct
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from tts_kernel.runs import cache_folder

log = logging.getLogger(__name__)

DeviceName = Literal["auto", "cpu", "cuda"]
Precision = Literal["auto", "float32", "bfloat16"]
ScaledPrecision = Literal["auto", "float32", "bfloat16", "float16"]  # float16 only where losses are scaled
Attention = Literal["fused", "eager"]
CompileMode = Literal["off", "default", "reduce-overhead", "max-autotune"]


@dataclass(frozen=True)
class SpeedSettings:
    """What may change the speed of a step, and its rounding, but not what it computes."""

    precision: ScaledPrecision = "auto"
    attention: Attention = "fused"  # eager: torch's plain products and softmax, in every attention of every model
    tf32: bool = True  # float32 products and convolutions on tensor cores, with 10 bits of mantissa
    cudnn_benchmark: bool = True  # try convolution algorithms, once for each shape
    compile: CompileMode = "off"
    gradient_checkpointing: bool = False  # compute activations again instead of keeping them


def choose_device(name: DeviceName) -> torch.device:
    """ "auto" is the GPU where there is one. Raises ValueError if a GPU is asked for and none is found."""
    if name == "cuda" and not torch.cuda.is_available():
        raise ValueError("device is 'cuda', but torch finds no GPU; use 'auto' or 'cpu'")
    return torch.device("cuda" if name != "cpu" and torch.cuda.is_available() else "cpu")


def autocast(device: torch.device, precision: ScaledPrecision) -> Callable[[], AbstractContextManager[object]]:
    """What to compute a forward pass in. "auto" is bfloat16 on a GPU that has it, float32 elsewhere.
    Raises ValueError if bfloat16 is asked for on a GPU without it."""
    if precision == "float16":
        return lambda: torch.autocast(device.type, dtype=torch.float16)
    capable = device.type == "cpu" or torch.cuda.is_bf16_supported(including_emulation=False)
    if precision == "bfloat16" and not capable:
        raise ValueError(f"precision is 'bfloat16', but {torch.cuda.get_device_name(device)} lacks it; use 'float32'")
    if precision == "bfloat16" or (precision == "auto" and device.type == "cuda" and capable):
        return lambda: torch.autocast(device.type, dtype=torch.bfloat16)
    return nullcontext


@contextmanager
def switched(settings: SpeedSettings, device: torch.device) -> Iterator[None]:
    """Attention kernels, TF32 and cuDNN's benchmark as the settings say, and as they were afterwards. The last two are
    touched on a GPU only: on a CPU the first of them could round products as well."""
    # set_float32_matmul_precision and not the fp32_precision attributes: torch refuses to read the one after the other
    # was set, and its compiler reads the former.
    matmul = torch.get_float32_matmul_precision()
    convolutions, benchmark = torch.backends.cudnn.allow_tf32, torch.backends.cudnn.benchmark
    with sdpa_kernel(SDPBackend.MATH) if settings.attention == "eager" else nullcontext():
        try:
            if device.type == "cuda":
                torch.set_float32_matmul_precision("high" if settings.tf32 else "highest")
                torch.backends.cudnn.allow_tf32 = settings.tf32
                torch.backends.cudnn.benchmark = settings.cudnn_benchmark
            yield
        finally:
            if device.type == "cuda":
                torch.set_float32_matmul_precision(matmul)
                torch.backends.cudnn.allow_tf32 = convolutions
                torch.backends.cudnn.benchmark = benchmark


def compile_parts(parts: Sequence[nn.Module], mode: CompileMode, device: torch.device) -> CompileMode:
    """Compile each part in place on its next call, and return the mode that holds. Give the repeated blocks of a
    network, which share one graph, rather than the whole. Shapes are dynamic, so that lengths do not compile anew; the
    names in a state dict stay. Compiled code is kept in the cache folder, or where TORCHINDUCTOR_CACHE_DIR says.

    Without a compiler the parts stay as they are, and on a CPU, which has no CUDA graphs, "reduce-overhead" is
    "default": a warning says so."""
    if mode == "off":
        return "off"
    cache = Path(os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(cache_folder() / "compiled")))  # read on import
    missing = missing_compiler(device)
    if missing:
        log.warning("compile is %r, but %s: computing without. Install it, or set compile to 'off'", mode, missing)
        return "off"
    if mode == "reduce-overhead" and device.type == "cpu":
        log.warning("compile is 'reduce-overhead', which means CUDA graphs: on a CPU it computes as 'default'")
        mode = "default"
    _drop_torn_libraries(cache)
    for part in parts:
        part.compile(mode=mode, dynamic=True)
    return mode


def missing_compiler(device: torch.device) -> str:
    """What torch.compile needs on this device and does not find; empty if all is there."""
    if device.type == "cuda":
        from torch.utils._triton import has_triton

        named = [os.environ["CC"]] if "CC" in os.environ else ["gcc", "clang"]
        if not any(map(shutil.which, named)):
            return f"Triton finds no C compiler ({', '.join(named)})"
        return "" if has_triton() else "Triton is missing or does not know this GPU"
    from torch._inductor.cpp_builder import get_cpp_compiler
    from torch._inductor.exc import InvalidCxxCompiler

    try:
        get_cpp_compiler()
    except InvalidCxxCompiler:
        return f"no C++ compiler is found (looked for {os.environ.get('CXX', 'g++')})"
    return ""


def _drop_torn_libraries(folder: Path) -> None:
    """Remove shared libraries that a process killed in its linker left incomplete: every later run would fail on them.
    An ELF file ends with its table of sections, whose place and size stand in its header."""
    for path in folder.glob("*/*.so"):
        with path.open("rb") as file:
            header = file.read(64)
        if header[:4] not in (b"\x7fELF", b""):
            continue  # another system's format
        whole = len(header) == 64
        if whole:
            table, entry_size, entries = struct.unpack_from("=40xQ10xHH", header)
            whole = path.stat().st_size >= table + entry_size * entries
        if not whole:
            log.warning("%s is incomplete, left by a process that was killed: compiled again", path)
            path.unlink()
