"""Weights that anyone can regenerate from a parameter's name and shape.

A parity case stores no weights: it stores the names and shapes of the reference model's state dict,
the inputs and the outputs. Fill the model under test by the same rule, run the same inputs, compare.

The stream is numpy's legacy RandomState, whose output is frozen across numpy versions.
"""

from __future__ import annotations

import json
import math
import zlib
from pathlib import Path

import numpy as np


def tensor(name: str, shape: tuple[int, ...], dtype: str = "float32") -> np.ndarray:
    """The value of the parameter or buffer `name`.

    Rule, in this order:
      integer or bool dtype          -> zeros
      last part is `running_var`     -> uniform in [0.5, 1.5)
      last part is `weight_g`        -> uniform in [0.5, 1.5)
      0-d or 1-d and last part is `weight`, `gamma` or `alpha` -> 1 + 0.1 * normal
      0-d or 1-d                     -> 0.1 * normal
      otherwise                      -> normal / sqrt(fan_in), fan_in = product of all but the first dimension
    Names that contain "embedding" or "emb." fall under the same rule; nothing is special-cased by system.
    """
    rng = np.random.RandomState(zlib.crc32(name.encode("utf-8")))
    last = name.rsplit(".", 1)[-1]
    if not dtype.startswith("float") and not dtype.startswith("bfloat"):
        return np.zeros(shape, dtype=dtype)
    if last in ("running_var", "weight_g", "original0"):
        value = rng.uniform(0.5, 1.5, size=shape)
    elif len(shape) <= 1:
        normal = 0.1 * rng.standard_normal(shape)
        value = 1.0 + normal if last in ("weight", "gamma", "alpha") else normal
    else:
        fan_in = math.prod(shape[1:])
        value = rng.standard_normal(shape) / math.sqrt(fan_in)
    return np.asarray(value, dtype="float32")


def spec(state_dict) -> list[list]:
    """[[name, shape, dtype], ...] of a torch state dict, in its own order."""
    return [[k, list(v.shape), str(v.dtype).removeprefix("torch.")] for k, v in state_dict.items()]


def fill(module, names: dict[str, str] | None = None) -> None:
    """Overwrite every parameter and buffer of `module` in place.

    `names` maps this module's own names to the reference's names where the two differ; the value is drawn
    from the reference's name.
    """
    import torch

    with torch.no_grad():
        for own, value in module.state_dict(keep_vars=True).items():
            reference = (names or {}).get(own, own)
            kind = str(value.dtype).removeprefix("torch.")
            value.copy_(torch.from_numpy(tensor(reference, tuple(value.shape), kind)).to(value.dtype))


def save_case(folder: str | Path, meta: dict, **arrays) -> None:
    """Write `case.json` and `io.npz` (inputs named in_*, outputs named out_*)."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "case.json").write_text(json.dumps(meta, indent=1, ensure_ascii=False) + "\n")
    np.savez_compressed(folder / "io.npz", **{k: np.asarray(v) for k, v in arrays.items()})


def load_case(folder: str | Path) -> tuple[dict, dict[str, np.ndarray]]:
    folder = Path(folder)
    return json.loads((folder / "case.json").read_text()), dict(np.load(folder / "io.npz", allow_pickle=False))
