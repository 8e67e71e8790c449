"""The clips of which the files are opened: all, or so many drawn by a seed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tts_kernel.data.audit import media
from tts_kernel.data.audit.corpus import Corpus
from tts_kernel.data.audit.files import listen_to_all, named_files, open_all
from tts_kernel.data.audit.rows import Rows
from tts_kernel.data.audit.settings import AuditSettings


@dataclass(frozen=True)
class Sample:
    """Some clips, the rows that have them as target, and what was opened of their files: None where the settings said
    no, or the manifests name no file."""

    clips: np.ndarray  # numbers, ascending
    rows: np.ndarray  # ascending
    is_part: bool  # not all clips
    sounds: media.Opened | None
    arrays: media.Opened | None


def choose(rows: Rows, clips: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Numbers of so many clips, 0 for all, and of the rows that have them as target; ascending. The same seed draws
    the same clips."""
    every = len(rows.clips)
    if not clips or clips >= every:
        return np.arange(every), np.arange(len(rows))
    drawn = np.zeros(every, dtype=bool)
    drawn[np.random.default_rng(seed).choice(every, clips, replace=False)] = True
    return np.flatnonzero(drawn), np.flatnonzero(drawn[rows.clip])


def open_sample(corpus: Corpus, settings: AuditSettings) -> Sample:
    """Open the audio and the features of the clips that `choose` draws."""
    rows = corpus.rows
    clips, chosen = choose(rows, settings.sample, settings.seed)
    is_part = len(clips) < len(rows.clips)
    opened: list[media.Opened | None] = []
    for audio, wanted, work in (
        (True, settings.check_audio, listen_to_all),
        (False, settings.check_features, open_all),
    ):
        files = named_files(rows, chosen, audio=audio) if wanted else ()
        if not len(files):
            opened.append(None)
            continue
        table = work(corpus.root, files, settings.workers, outside=settings.allow_outside_paths)
        opened.append(media.Opened(rows, table, is_part))
    return Sample(clips, chosen, is_part, *opened)
