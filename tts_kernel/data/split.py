"""Validation rows held out of a training manifest, the same ones however its rows are ordered.

What is held out are whole speakers, recordings or clips. A held-out clip is never trained on, in either role: a pair
whose target stays but whose prompt is held out is left out, and counted.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tts_kernel.data.manifest import Manifest, ManifestError
from tts_kernel.data.string_keys import string_keys

HoldOutBy = Literal["clip", "recording", "speaker"]
FEWEST = 64  # clips held out at least, unless that were more than a tenth
_EMILIA = r"^(?P<recording>.+)_W\d+$"  # clip W of a recording: KO_B00012_S00345_W000067


@dataclass(frozen=True)
class Split:
    """(rows,) bool each: which side a row is on."""

    train: np.ndarray
    validation: np.ndarray
    between: np.ndarray  # its target is to train on, its prompt held out


def hold_out(manifest: Manifest, share: float, by: HoldOutBy = "clip") -> Split:
    """Hold out `share` of the target clips by whole units, chosen by a key of their names. Raises ManifestError if the
    manifest does not tell the units, or has too few to leave both sides filled."""
    target, prompt = _units(manifest, "target_id", by), _units(manifest, "prompt_id", by)
    _, first = np.unique(string_keys(manifest.strings("target_id")), return_index=True)
    held = held_units(target[first], share)
    if not len(held):
        units = len(np.unique(target))
        raise ManifestError(
            [f"{manifest.path}: {units} {by}s, too few to hold out {share:.0%} by {by}; expected at least 2"]
        )
    target_held, prompt_held = np.isin(target, held), np.isin(prompt, held)
    return Split(~target_held & ~prompt_held, target_held, ~target_held & prompt_held)


def held_units(units: np.ndarray, share: float) -> np.ndarray:
    """(clips,) uint64 key of each clip's unit -> keys of the units to hold out, `share` of the clips in all; none where
    that would leave a side empty."""
    # Names are keys already: their order has nothing to do with the data's.
    names, counts = np.unique(units, return_counts=True)
    wanted = max(round(share * len(units)), min(FEWEST, len(units) // 10))
    fits = counts <= 1.5 * wanted  # a unit much larger than the share would turn the split around
    if not fits.any():
        fits = counts == counts.min()
    names, counts = names[fits], counts[fits]
    held = names[: max(int(np.searchsorted(np.cumsum(counts), wanted, side="right")), 1)]
    left = len(units) - int(np.isin(units, held).sum())
    return held if left >= len(units) - left else held[:0]


def leaks(train: Manifest, validation: Manifest, by: HoldOutBy = "clip") -> dict[str, list[str]]:
    """What was held out and is trained on nevertheless, by what it is: clip, recording or speaker -> names, sorted.
    A clip counts in either role of a training pair. Empty where there is no leak."""
    kinds: tuple[HoldOutBy, ...] = ("clip", "recording", "speaker")
    found: dict[str, list[str]] = {}
    for kind in kinds[: kinds.index(by) + 1]:
        try:
            held = _units(validation, "target_id", kind)
            trained = [np.isin(held, _units(train, role, kind)) for role in ("target_id", "prompt_id")]
        except ManifestError:
            if kind == by:
                raise
            continue  # its clips do not tell their recordings
        rows = np.flatnonzero(trained[0] | trained[1])
        if len(rows):
            found[kind] = sorted(set(_names(validation.take(rows), kind)))
    return found


def _units(manifest: Manifest, role: str, by: HoldOutBy) -> np.ndarray:
    """(rows,) uint64: key of the unit that a row's target or prompt belongs to."""
    if by == "speaker":  # prompt and target have one
        return string_keys(manifest.strings("speaker"))
    if by == "clip":
        return string_keys(manifest.strings(role))
    if "recording" in manifest and role == "target_id":
        return string_keys(_given_recordings(manifest))
    if "prompt_recording" in manifest:
        return string_keys(pc.coalesce(manifest.strings("prompt_recording"), manifest.strings("prompt_id")))
    if "recording" in manifest:  # given for targets; most prompts are a target of another row
        targets = string_keys(manifest.strings("target_id"))
        order = np.argsort(targets)
        prompts = string_keys(manifest.strings("prompt_id"))
        place = np.minimum(np.searchsorted(targets[order], prompts), len(order) - 1)
        given = string_keys(_given_recordings(manifest))[order[place]]
        unknown = targets[order[place]] != prompts
        if unknown.any():
            given[unknown] = string_keys(_told(manifest, np.flatnonzero(unknown)))
        return given
    return string_keys(_recordings(manifest, role))


def _told(manifest: Manifest, rows: np.ndarray) -> pa.ChunkedArray:
    """Recordings of prompts that are no target: by their names, where those of the targets say what the field says."""
    prompts = manifest.take(rows)
    names = recordings(prompts.strings("prompt_id"))
    if names.null_count or not recordings(manifest.strings("target_id")).equals(manifest.strings("recording")):
        row = int(np.argmin(names.is_valid().to_numpy()))
        clip = prompts.strings("prompt_id")[row].as_py()
        raise ManifestError(
            [
                f"{manifest.path}:{manifest.line(rows[row])}: prompt_id {clip!r} is no target, so nothing tells its "
                "recording; give the pairs a field 'prompt_recording', or split by speaker or clip"
            ]
        )
    return names


def _given_recordings(manifest: Manifest) -> pa.ChunkedArray:
    """A clip without a recording is one of its own."""
    return pc.coalesce(manifest.strings("recording"), manifest.strings("target_id"))


def recordings(clips: pa.ChunkedArray) -> pa.ChunkedArray:
    """The recording that a clip's name tells, by Emilia's way of naming; null where it tells none."""
    return pc.struct_field(pc.extract_regex(clips, _EMILIA), "recording")


def _recordings(manifest: Manifest, role: str) -> pa.ChunkedArray:
    names = recordings(manifest.strings(role))
    if names.null_count:
        row = int(np.argmin(names.is_valid().to_numpy()))
        clip = manifest.strings(role)[row].as_py()
        raise ManifestError(
            [
                f"{manifest.path}:{manifest.line(row)}: {role} {clip!r} does not tell its "
                "recording; give the pairs a field 'recording', name clips like KO_B00012_S00345_W000067, or split by "
                "speaker or clip"
            ]
        )
    return names


def _names(manifest: Manifest, by: HoldOutBy) -> list[str]:
    if by == "recording":
        given = "recording" in manifest
        return (_given_recordings(manifest) if given else _recordings(manifest, "target_id")).to_pylist()
    return manifest.strings("target_id" if by == "clip" else by).to_pylist()
