"""The rows a run trains and validates on: opened, checked and accounted for before a step is spent on them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tts_kernel.data.batch import PairDataset, missing_features
from tts_kernel.data.manifest import Manifest, ManifestError, read_manifest
from tts_kernel.data.ordering import MEL_MANIFEST, available_prefix
from tts_kernel.data.speakers import (
    Coverage,
    check_coverage,
    count_clips,
    count_rows,
    coverage,
    map_speakers,
    read_mapping,
)
from tts_kernel.data.split import hold_out, leaks
from tts_kernel.models.indextts2.config import GPTConfig
from tts_kernel.recipes.indextts2.settings import STAGES, Settings
from tts_kernel.runs import Run, project_path, write_atomically


@dataclass(frozen=True)
class Corpus:
    """The rows to train and validate on, and what was left out of the manifest."""

    train: Manifest
    validation: Manifest
    train_rows: np.ndarray  # of `train`, in its order
    available: int  # of `train_rows`, from the head
    validation_rows: np.ndarray
    mapping: dict[str, int]  # speaker -> class; empty without an adversary
    coverage: Coverage | None  # of `train` by `mapping`
    dropped: dict[str, int]  # reason -> rows of `train`


def open_corpus(settings: Settings, config: GPTConfig, run: Run) -> Corpus:
    """Read and check both manifests before a step is spent on them. Raises ManifestError, SpeakerMapError."""
    root = project_path(settings.data)
    if settings.train_manifest == MEL_MANIFEST and not (root / MEL_MANIFEST).exists():
        raise ManifestError(
            [
                f"{root / MEL_MANIFEST}: not found; it is made, with the mels that are missing, by "
                f"python -m tts_kernel.data.extract {root}"
            ]
        )
    train = read_manifest(root / settings.train_manifest, allow_outside=settings.allow_outside_paths)
    stage = STAGES[settings.stage]
    by_mel = reads_mel(settings)
    available = available_prefix(train) if by_mel else len(train)
    if available == 0:
        raise ManifestError(
            [f"{train.path}: no row has a mel; run python -m tts_kernel.data.extract {root} and start again"]
        )
    usable = np.ones(len(train), dtype=bool)
    dropped: dict[str, int] = {}
    too_long = overlong_rows(train, config)
    if too_long.any() and not settings.drop_too_long:
        raise ManifestError(_explain_overlong(train, too_long, config))
    dropped["longer than the model's tables"] = int(too_long.sum())
    usable &= ~too_long
    if settings.validation_share:
        split = hold_out(train, settings.validation_share, settings.validation_by)
        dropped["held out for validation"] = int((split.validation & usable).sum())
        dropped["their prompt is held out"] = int((split.between & usable).sum())
        in_reach = np.arange(len(train)) < available
        validation, validation_rows = train, np.flatnonzero(split.validation & usable & in_reach)
        validation_rows = _same_as_before(train, validation_rows, run)
        usable &= split.train
    else:
        validation = read_manifest(root / settings.validation_manifest, allow_outside=settings.allow_outside_paths)
        fits = ~overlong_rows(validation, config)
        fits &= validation.has("target_mel_path") if by_mel else True
        validation_rows = np.flatnonzero(fits)
        dropped["validation rows too long or without a mel"] = len(validation) - len(validation_rows)
    rows = np.flatnonzero(usable)
    trained = train.select(["target_id", "prompt_id"]).take(rows)  # of millions of rows only what is compared
    shared = {} if validation is train else leaks(trained, validation.take(validation_rows))
    if shared:
        clips = shared["clip"]
        raise ManifestError(
            [
                f"{validation.path}: {len(clips)} of its target clips are trained on, such as {clips[0]!r}; validation "
                "would measure what was learned by heart. Remove them from one side, or set validation_share"
            ]
        )
    available_rows = int((rows < available).sum())
    if not available_rows or not len(validation_rows):
        raise ManifestError(
            [
                f"{train.path}: {available_rows} rows to train on and {len(validation_rows)} to validate on; "
                f"expected some of both. Left out: {dropped}"
            ]
        )
    mapping: dict[str, int] = {}
    found: Coverage | None = None
    if stage.adversary:
        mapping, found = _speaker_mapping(settings, train, rows[:available_rows])
    left_out = {reason: count for reason, count in dropped.items() if count}
    return Corpus(train, validation, rows, available_rows, validation_rows, mapping, found, left_out)


def reads_mel(settings: Settings) -> bool:
    """Whether emotion vectors are computed from mels, so that only rows that have one can be used."""
    computed = STAGES[settings.stage].adversary or settings.conditions == "computed"
    return computed and settings.emotion_input == "mel"


def overlong_rows(manifest: Manifest, config: GPTConfig) -> np.ndarray:
    """(rows,) bool: text or codes longer than the model's position tables."""
    return (manifest.numbers("target_text_len") > config.max_text_tokens) | (
        manifest.numbers("target_code_len") > config.max_mel_tokens
    )


def _explain_overlong(manifest: Manifest, too_long: np.ndarray, config: GPTConfig) -> list[str]:
    text, codes = manifest.numbers("target_text_len"), manifest.numbers("target_code_len")
    return [
        f"{manifest.path}:{manifest.line(row)}: {text[row]} text tokens and {codes[row]} codes; the model takes "
        f"at most {config.max_text_tokens} and {config.max_mel_tokens}. Remove the row or set drop_too_long"
        for row in np.flatnonzero(too_long)
    ]


def _same_as_before(manifest: Manifest, rows: np.ndarray, run: Run) -> np.ndarray:
    """The validation rows that the run began with, so that its losses and probes stay comparable when more mels
    arrive; kept in validation_pairs.txt."""
    path = run.folder / "validation_pairs.txt"
    ids = np.array(manifest.take(rows).strings("id").to_pylist())
    if path.exists():
        return rows[np.isin(ids, path.read_text(encoding="utf-8").splitlines())]
    write_atomically(path, "".join(f"{name}\n" for name in ids))
    return rows


def _speaker_mapping(settings: Settings, train: Manifest, rows: np.ndarray) -> tuple[dict[str, int], Coverage]:
    """The mapping, and how it matches the rows that will be trained on. A mapping from a file must match enough of
    them; one made from the manifest itself covers what its two limits let it."""
    minimum = settings.min_speaker_coverage
    if settings.speaker_mapping:
        mapping = read_mapping(project_path(settings.speaker_mapping))
    else:
        mapping = map_speakers(count_clips(train), settings.speaker_top_k, settings.speaker_min_clips)
        minimum = 0.0
    found = coverage(mapping, count_rows(train, rows))
    check_coverage(found, minimum)
    return mapping, found


def check_files(data: PairDataset, rows: np.ndarray, at_most: int = 20_000) -> None:
    """Look for the files of `rows`, of an even sample of them where there are very many. Raises ManifestError."""
    absent = [name for name in data.columns() if name not in data.manifest]
    if absent:
        raise ManifestError([f"{data.manifest.path}: no row has the field {name!r}" for name in absent])
    problems = [
        f"{data.manifest.path}:{data.manifest.line(row)}: no {name}, which this training reads"
        for name in data.columns()
        for row in rows[~data.manifest.has(name)[rows]]
    ]
    if len(rows) > at_most:
        rows = rows[np.linspace(0, len(rows) - 1, at_most).astype(int)]
    problems += missing_features(data, rows)
    if problems:
        raise ManifestError(problems)
