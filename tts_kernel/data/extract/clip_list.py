"""The clips of an extraction job as columns: read from a manifest, checked, and handed out slice by slice."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tts_kernel.data.extract.clip_work import ABSENT, FAILURES, MISSING, readable
from tts_kernel.data.features.shard_format import member_name
from tts_kernel.data.manifest import Manifest, ManifestError

LOOKS = 16  # threads that ask for files: on a network folder each answer takes a while
_ODD = r"[\x00-\x1f\\:]|^\s*$|^/|//|/$|(^|/)\.\.?(/|$)"  # looked at closely: most names are plain


def targets(manifest: Manifest) -> pa.Table:
    """clip and audio of a pair manifest's targets, each once. Raises ManifestError where audio is not named."""
    named = manifest.has("target_audio_path")
    if not named.all():
        first = manifest.line(int(np.argmin(named)))
        raise ManifestError(
            [f"{manifest.path}:{first}: no target_audio_path, in {(~named).sum()} rows; expected it in every row"]
        )
    ids = manifest.strings("target_id").combine_chunks()
    ids = ids if pa.types.is_dictionary(ids.type) else ids.dictionary_encode()
    first_rows = np.zeros(len(ids.dictionary), dtype=np.int64)
    backwards = ids.indices.to_numpy()[::-1]
    first_rows[backwards] = np.arange(len(ids))[::-1]  # the last assignment holds: the first row of each target
    audio = manifest.select(["target_audio_path"]).take(first_rows).strings("target_audio_path")
    return pa.table({"clip": ids.dictionary, "audio": audio})


def listed(clips: pa.Table | Iterable[tuple[str, Path]]) -> pa.Table:
    """row, clip, audio, each clip once, from a table with the columns clip and audio or from (clip, audio path) pairs.

    Paths that are not valid Unicode make the audio column binary.
    Raises UnsafePathError if a clip's name would leave a folder, ValueError if it is not written the shortest way, or
    if a table lacks a column or has nulls."""
    if isinstance(clips, pa.Table):
        lacking = {"clip", "audio"} - set(clips.column_names)
        if lacking:
            raise ValueError(f"the table of clips has no column {sorted(lacking)}, found {clips.column_names}")
        table = pa.table({name: clips.column(name) for name in ("clip", "audio")})
    else:
        pairs = list(clips)
        names, paths = [name for name, _ in pairs], [os.fspath(path) for _, path in pairs]
        try:
            audio = pa.array(paths, pa.large_string())
        except UnicodeEncodeError:
            audio = pa.array([os.fsencode(path) for path in paths], pa.large_binary())
        table = pa.table({"clip": pa.array(names, pa.large_string()), "audio": audio})
    nulls = {name: table.column(name).null_count for name in table.column_names}
    if any(nulls.values()):
        raise ValueError(f"the table of clips has nulls ({nulls}); give every clip a name and an audio path")
    clip = table.column("clip").cast(pa.large_string())
    for name in clip.filter(pc.match_substring_regex(clip, _ODD)).to_pylist():
        member_name(name, "kind")
    codes = clip.combine_chunks().dictionary_encode().indices.to_numpy()
    first = np.ones(len(codes), dtype=bool) if len(codes) == 0 else _first_of_each(codes)
    return table.set_column(0, "clip", clip).add_column(0, "row", pa.array(np.arange(len(table)))).filter(first)


def _first_of_each(codes: np.ndarray) -> np.ndarray:
    """(n,) codes that count up in order of appearance -> (n,) whether it appears for the first time."""
    return np.diff(np.maximum.accumulate(codes), prepend=-1) > 0


class Supply:
    """Hands out clips whose audio is there, in their order; looks for files no further than it is asked to."""

    def __init__(self, clips: pa.Table, audio_root: Path) -> None:
        """`clips`: row, clip, audio and whatever else goes with them."""
        self.clips, self.audio_root = clips, audio_root
        self.missing = FAILURES.empty_table()
        self._next = 0  # row of `clips`
        self._threads = ThreadPoolExecutor(LOOKS)

    @property
    def left(self) -> int:
        """Clips that were not looked at."""
        return len(self.clips) - self._next

    def take(self, at_most: int) -> pa.Table | None:
        """The next clips with audio, up to this many; None if there are no more."""
        found = np.zeros(0, dtype=np.int64)
        while len(found) < at_most and self.left:
            rows = np.arange(self._next, min(self._next + at_most - len(found), len(self.clips)))
            self._next += len(rows)
            part = self.clips.take(rows)
            paths = part.column("audio").to_pylist()
            there = np.fromiter(self._there(paths), dtype=bool, count=len(paths))
            self._note(part.filter(~there))
            found = np.concatenate([found, rows[there]])
        return self.clips.take(found) if len(found) else None  # a copy: a view would travel with all clips

    def _there(self, paths: Sequence[str | bytes]) -> Iterator[bool]:
        share = -(-len(paths) // LOOKS)
        parts = [paths[start : start + share] for start in range(0, len(paths), share)]
        for answers in self._threads.map(self._exist, parts):
            yield from answers

    def _exist(self, paths: Sequence[str | bytes]) -> list[bool]:
        root = os.fspath(self.audio_root)
        return [_exists(os.path.join(root, os.fsdecode(path))) for path in paths]

    def _note(self, gone: pa.Table) -> None:
        if len(gone) == 0:
            return
        audio = gone.column("audio")
        if pa.types.is_large_binary(audio.type):
            audio = pa.array([readable(path) for path in audio.to_pylist()], pa.large_string())
        said = [pa.repeat(text, len(gone)) for text in (MISSING, ABSENT)]
        added = pa.table([gone.column("row"), gone.column("clip"), audio, *said], FAILURES.names).cast(FAILURES)
        self.missing = pa.concat_tables([self.missing, added])


def _exists(path: str) -> bool:
    """Whether there is something; what it is, a worker finds out."""
    try:
        os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except (OSError, ValueError):  # symbolic links in a circle, no permission, a name that no file can have
        pass
    return True
