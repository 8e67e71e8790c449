"""Speaker mapping: which speakers the adversary tells apart, and whether they are the manifest's."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tts_kernel.data.manifest import Manifest
from tts_kernel.data.string_keys import string_keys
from tts_kernel.runs import write_atomically

UNKNOWN = -1  # label of a speaker outside the mapping; the speaker loss passes it over


class SpeakerMapError(ValueError):
    """A mapping that is malformed or does not match the manifest."""


@dataclass(frozen=True)
class Coverage:
    """How well a mapping matches a manifest."""

    rows: int
    mapped_rows: int
    speakers: int  # in the manifest
    mapped_speakers: int
    unmatched: list[str]  # the manifest's most frequent speakers without an id
    unused: list[str]  # names of the mapping that the manifest does not have

    @property
    def share(self) -> float:
        return self.mapped_rows / self.rows if self.rows else 0.0

    def __str__(self) -> str:
        text = (
            f"{self.mapped_rows:,} of {self.rows:,} rows ({self.share:.1%}) have a mapped speaker, "
            f"{self.mapped_speakers} of {self.speakers} speakers"
        )
        if self.unmatched:
            text += f"; first unmatched: {', '.join(self.unmatched[:5])}"
        if self.unused:
            text += f"; mapped but not in the manifest: {', '.join(self.unused[:5])}"
        return text


def map_speakers(clips: Mapping[str, int], top_k: int = 500, min_clips: int = 50) -> dict[str, int]:
    """Clips per speaker -> {name: id}: the `top_k` speakers with at least `min_clips` clips, most clips first, equal
    counts by name."""
    ranked = sorted(clips.items(), key=lambda item: (-item[1], item[0]))
    return {name: number for number, (name, count) in enumerate(ranked[:top_k]) if count >= min_clips}


def count_rows(manifest: Manifest, rows: np.ndarray | None = None) -> dict[str, int]:
    """Rows per speaker, of those rows only if they are given."""
    names, classes = manifest.categories("speaker")
    return _counts(names, classes if rows is None else classes[rows])


def count_clips(manifest: Manifest) -> dict[str, int]:
    """Distinct target clips per speaker: a clip in several pairs counts once."""
    names, classes = manifest.categories("speaker")
    _, first = np.unique(string_keys(manifest.strings("target_id")), return_index=True)
    return _counts(names, classes[first])


def _counts(names: list[str], classes: np.ndarray) -> dict[str, int]:
    counts = np.bincount(classes, minlength=len(names))
    return {name: int(count) for name, count in zip(names, counts, strict=True) if count}


def read_mapping(path: Path) -> dict[str, int]:
    """speaker_mapping.json. Raises SpeakerMapError unless it is {name: id} with ids 0 to n - 1, each once."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise SpeakerMapError(f"{path}: not found; delete the parameter to have one made from the manifest") from None
    except ValueError as error:
        raise SpeakerMapError(f"{path}: not JSON: {error}") from error
    if not isinstance(values, dict) or not values:
        raise SpeakerMapError(f"{path}: expected a JSON object {{name: id}} with at least one speaker")
    ids = sorted(values.values(), key=str)
    if any(type(number) is not int for number in ids) or ids != sorted(range(len(ids)), key=str):
        raise SpeakerMapError(f"{path}: ids are {ids[:8]}, expected 0 to {len(ids) - 1}")
    return values


def write_mapping(mapping: Mapping[str, int], path: Path) -> None:
    write_atomically(path, json.dumps(mapping, indent=1, ensure_ascii=False) + "\n")


def coverage(mapping: Mapping[str, int], rows: Mapping[str, int]) -> Coverage:
    """Match a mapping against the rows of each speaker."""
    unmatched = sorted((name for name in rows if name not in mapping), key=lambda name: (-rows[name], name))
    return Coverage(
        rows=sum(rows.values()),
        mapped_rows=sum(count for name, count in rows.items() if name in mapping),
        speakers=len(rows),
        mapped_speakers=len(rows) - len(unmatched),
        unmatched=unmatched,
        unused=[name for name in mapping if name not in rows],
    )


def check_coverage(found: Coverage, minimum: float) -> None:
    """Raise SpeakerMapError, with the numbers, if fewer rows are mapped than the share `minimum`, or to fewer than two
    speakers: without labels the adversary learns nothing, and the only sign would be an accuracy that stays at 0."""
    if found.mapped_speakers < 2 or found.share < minimum:
        raise SpeakerMapError(
            f"speaker mapping does not match the rows to train on: {found}. Expected at least 2 speakers and "
            f"{minimum:.0%} of the rows. Leave speaker_mapping empty to have one made from the manifest (with lower "
            "speaker_min_clips if its speakers have few), or lower min_speaker_coverage if this is what you mean"
        )
