"""One case folder against our code: which outputs we computed, how far each lies from the record, what is allowed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tests.parity import cosyvoice2, cosyvoice2_pipeline, indextts2, melotts
from tests.parity.fill import load_case

Arrays = dict[str, np.ndarray]
Compute = Callable[[dict[str, Any], Arrays], Arrays]

FAMILIES: list[Callable[[dict[str, Any], Arrays], Compute | None]] = [
    indextts2.recognise,
    cosyvoice2.recognise,
    cosyvoice2_pipeline.recognise,
    melotts.recognise,
]


@dataclass(frozen=True)
class Row:
    """One recorded array beside ours."""

    name: str
    largest_error: float  # of |ours - recorded|; infinite if shapes differ or we computed nothing
    tolerance: float  # what is allowed where that error stands
    passed: bool
    remark: str = ""


class UnknownCaseError(ValueError):
    """A case folder that no family recognises."""


def compare_case(folder: Path) -> Iterator[Row]:
    """Rows in the order of the record, then what we computed beyond it. Raises UnknownCaseError."""
    case, arrays = load_case(folder)
    for recognise in FAMILIES:
        compute = recognise(case, arrays)
        if compute is not None:
            break
    else:
        found = sorted(name for name in arrays if name.startswith("in_"))
        raise UnknownCaseError(f"{folder}: no family knows its inputs {found or 'none'} and keys {sorted(case)}")
    ours = compute(case, arrays)
    recorded = {name: value for name, value in arrays.items() if name.startswith("out_")}
    for name, value in recorded.items():
        if name not in ours:
            yield Row(name, float("inf"), 0.0, False, "not computed")
        else:
            yield _row(name, np.asarray(ours[name]), value, case)
    for name, value in ours.items():
        if name not in recorded:  # a check without recorded numbers, such as the layout's names
            yield _row(name, np.asarray(value), np.zeros_like(value), {})


def _row(name: str, ours: np.ndarray, recorded: np.ndarray, case: dict[str, Any]) -> Row:
    if ours.shape != recorded.shape:
        return Row(name, float("inf"), 0.0, False, f"shape {list(ours.shape)}, recorded {list(recorded.shape)}")
    if recorded.size == 0:
        return Row(name, 0.0, 0.0, True, "empty")
    exact = recorded.dtype.kind in "iub" or name in case.get("exact", [])
    error = np.abs(ours.astype(np.float64) - recorded.astype(np.float64))
    absolute = case.get("atol_per_array", {}).get(name, case.get("atol", 0.0))
    absolute = case.get("atol_of", {}).get(name, absolute)
    relative = case.get("rtol_of", {}).get(name, case.get("rtol", 0.0))
    relative, absolute = case.get("tolerances", {}).get(name, (relative, absolute))
    allowed = np.zeros(error.shape) if exact else absolute + relative * np.abs(recorded, dtype=np.float64)
    with np.errstate(invalid="ignore"):
        worst = int(np.argmax(np.where(np.isnan(error), np.inf, error - allowed)))
    passed = bool((error <= allowed).all())  # False for NaN
    return Row(name, float(np.nanmax(error)), float(allowed.flat[worst]), passed)
