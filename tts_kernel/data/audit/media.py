"""What the opened files tell: sounds against the limits and their mels, arrays against the manifest."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tts_kernel.data.audit.findings import LISTED, Case, Details, Finding, in_pairs
from tts_kernel.data.audit.rows import Rows
from tts_kernel.data.audit.settings import AuditSettings
from tts_kernel.data.features import Features

MEL_SECONDS = 256 / 22_050  # per frame: audio.spectrogram.indextts2_mel
CODES_PER_SECOND = 25.0  # of the families' codecs, where nothing measured says otherwise
DURATION_SLACK, DURATION_SHARE = 0.2, 0.03  # seconds, share: padding of codecs and of frames stays below
_BAD_SOUND = {
    "missing": "audio_missing",
    "unreadable": "audio_unreadable",
    "truncated": "audio_truncated",
    "not finite": "audio_not_finite",
    "silent": "audio_silent",
}
_BAD_ARRAY = {
    "missing": "feature_missing",
    "unreadable": "feature_unreadable",
    "not finite": "feature_not_finite",
}


def manifest_seconds(rows: Rows) -> tuple[np.ndarray, str]:
    """(clips,) duration of every clip by its manifest, NaN where unknown, and what it was taken from."""
    first = rows.first
    if "duration" in rows:
        values = rows.values("duration", first)
        if pa.types.is_floating(values.type) or pa.types.is_integer(values.type):
            return values.cast(pa.float64()).fill_null(np.nan).to_numpy(), "the field duration"
    mels = rows.numbers("target_mel_len")[first].astype(np.float64)
    codes = rows.numbers("target_code_len")[first].astype(np.float64)
    seconds = np.where(mels > 0, mels * MEL_SECONDS, np.nan)
    both = (mels > 0) & (codes > 0)
    per_second = float(np.median(codes[both] / seconds[both])) if both.any() else CODES_PER_SECOND
    source = "mel lengths" if both.any() else f"code lengths at {CODES_PER_SECOND:.0f} a second"
    return np.where(mels > 0, seconds, codes / per_second), source


def calibrated(seconds: np.ndarray, source: str, sounds: Opened) -> tuple[np.ndarray, str]:
    """The same, scaled so that they agree with the sounds that were opened where their source is a frame rate that
    nothing in the manifest tells."""
    if not source.startswith("code"):
        return seconds, source
    clips, measured = clip_numbers(sounds), sounds["duration"]
    known = (clips >= 0) & (sounds["status"] == "ok")
    if not known.any():
        return seconds, source
    factor = float(np.median(measured[known] / seconds[clips[known]]))
    return (
        seconds * factor,
        f"code lengths at {CODES_PER_SECOND / factor:.1f} a second, as in {int(known.sum())} sounds",
    )


@dataclass(frozen=True)
class Opened:
    """The table of `files.listen_to_all` or `files.open_all`, with what findings about it need."""

    rows: Rows
    table: pa.Table
    sampled: bool

    def __getitem__(self, name: str) -> np.ndarray:
        return self.table.column(name).to_numpy()

    @cached_property
    def of_target(self) -> np.ndarray:
        """(files,) bool: named by a target, not by a prompt alone."""
        return pc.starts_with(self.table.column("column"), "target_").to_numpy()

    def finding(self, kind: str, where: np.ndarray, details: Details | None = None) -> list[Finding]:
        """The finding that the files `where` (files,) bool make."""
        members = np.flatnonzero(where)
        if not len(members):
            return []
        listed = members[:LISTED]
        chosen = self.table.take(pa.array(listed))
        ids = self._clip_ids(chosen)
        texts = [""] * len(ids) if details is None else list(details(listed))
        cases = zip(ids, ids, self.rows.places(chosen.column("row").to_numpy()), texts, strict=True)
        return [Finding(kind, len(members), len(self.table), tuple(Case(*case) for case in cases), self.sampled)]

    def _clip_ids(self, chosen: pa.Table) -> list[str]:
        """The clip of each file: the target or the prompt of its row, whichever its path names."""
        places, back = np.unique(chosen.column("row").to_numpy(), return_inverse=True)
        targets, prompts = (self.rows.values(name, places).take(pa.array(back)) for name in ("target_id", "prompt_id"))
        return [
            target if column.startswith("target_") or (target in path and prompt not in path) else prompt
            for column, path, target, prompt in zip(
                chosen.column("column").to_pylist(),
                chosen.column("path").to_pylist(),
                targets.to_pylist(),
                prompts.to_pylist(),
                strict=True,
            )
        ]

    def about(self, text: str, *names: str) -> Details:
        """Details that fill `text` with values of these columns."""

        def filled(members: np.ndarray) -> Iterable[str]:
            chosen = self.table.select(names).take(pa.array(members)).to_pydict()
            return (text.format(*values) for values in zip(*chosen.values(), strict=True))

        return filled

    def missing_prompts(self, chosen: np.ndarray) -> list[Finding]:
        """The pairs among the rows `chosen` whose prompt has lost a file that no target names."""
        gone = self.table.filter(pa.array((self["status"] == "missing") & ~self.of_target))
        lost: dict[int, str] = {}
        for column in gone.column("column").unique().to_pylist():
            paths = self.rows.values(column, chosen)
            for place in np.flatnonzero(pc.is_in(paths, value_set=gone.column("path").combine_chunks()).to_numpy()):
                lost.setdefault(int(chosen[place]), f"no {paths[int(place)].as_py()}")
        members = np.array(sorted(lost), dtype=np.int64)
        return in_pairs(
            "prompt_missing",
            self.rows,
            members,
            len(chosen),
            lambda listed: (lost[int(row)] for row in listed),
            sampled=self.sampled,
        )


def check_sounds(sounds: Opened, chosen: np.ndarray, settings: AuditSettings, seconds: np.ndarray) -> list[Finding]:
    """Audio files of the rows `chosen`. `seconds`: (clips,) what the manifest says, NaN where it says nothing."""
    status, duration, rate = sounds["status"], sounds["duration"], sounds["sample_rate"]
    fine = status == "ok"
    findings = sounds.missing_prompts(chosen)
    for name, kind in _BAD_SOUND.items():
        where = (status == name) & (sounds.of_target | (name != "missing"))
        findings += sounds.finding(kind, where, sounds.about("{}: {}", "path", "detail"))
    low = rate < settings.min_sample_rate
    silence = np.maximum(sounds["lead"], sounds["tail"]) > settings.max_silence
    for kind, where, text, *names in (
        ("audio_short", duration < settings.min_duration, "{:.2f} s", "duration"),
        ("audio_long", duration > settings.max_duration, "{:.1f} s", "duration"),
        ("audio_rate_low", low, "{:,} Hz", "sample_rate"),
        ("audio_rates", ~low & (rate != _most_frequent(rate[fine])), "{:,} Hz", "sample_rate"),
        ("audio_channels", sounds["channels"] > 1, "{} channels", "channels"),
        ("audio_quiet", sounds["level"] < settings.min_level, "{:.1f} dB", "level"),
        ("audio_clipped", sounds["clipping"] > settings.max_clipping, "{:.2%} of the samples", "clipping"),
        ("audio_silence", silence, "{:.1f} s before, {:.1f} s after", "lead", "tail"),
    ):
        findings += sounds.finding(kind, fine & where, sounds.about(text, *names))
    return findings + _other_durations(sounds, fine, seconds) + _copies(sounds, fine)


def check_arrays(arrays: Opened, chosen: np.ndarray, features: Features, vocabulary: int) -> list[Finding]:
    """Feature files of the rows `chosen`. `vocabulary`: token ids lie below; 0 if there is no tokenizer."""
    columns = arrays.table.column("column").combine_chunks().dictionary_encode()
    names = [re.sub("^(target|prompt)_|_path$", "", name) for name in columns.dictionary.to_pylist()]
    kinds = np.array(names, dtype=object)[columns.indices.to_numpy()]
    status, width = arrays["status"], arrays["width"]
    absent, odd_width = np.zeros(len(kinds), dtype=bool), np.zeros(len(kinds), dtype=bool)
    cases = []
    for kind in dict.fromkeys(kinds):
        same, whole = kinds == kind, (kinds == kind) & (status == "ok")
        path = arrays.table.column("path")[int(np.argmax(same))].as_py()
        folder = path.rpartition("/")[0]
        if (status[same] == "missing").all() and not _has_any(features, folder):
            absent |= same
            cases.append(Case(kind, detail=f"{same.sum():,} files such as {path}"))
        odd_width |= whole & (width != _most_frequent(width[whole]))
    findings = []
    if cases:
        findings.append(Finding("feature_absent", int(absent.sum()), len(kinds), tuple(cases), arrays.sampled))
    arrays = Opened(arrays.rows, arrays.table.filter(pa.array(~absent)), arrays.sampled)
    status, odd_width, kinds = status[~absent], odd_width[~absent], kinds[~absent]
    findings += arrays.missing_prompts(chosen)
    for name, found in _BAD_ARRAY.items():
        where = (status == name) & (arrays.of_target | (name != "missing"))
        findings += arrays.finding(found, where, arrays.about("{}: {}", "path", "detail"))
    fine, expected = status == "ok", arrays["length"]
    other_length = fine & (expected >= 0) & (arrays["frames"] != expected)
    is_id = np.isin(kinds, ["text_ids", "codes"])
    beyond = (kinds == "text_ids") & (arrays["highest"] >= vocabulary) & (vocabulary > 0)
    outside = fine & is_id & (beyond | (arrays["lowest"] < 0))
    lengths = arrays.about("{}: {} frames, the manifest says {}", "path", "frames", "length")
    findings += arrays.finding("feature_length", other_length, lengths)
    findings += arrays.finding("feature_width", odd_width, arrays.about("{}: {} wide", "path", "width"))
    ids = arrays.about("{}: {} to {}", "path", "lowest", "highest")
    return findings + arrays.finding("feature_ids", outside, ids)


def check_shards(features: Features) -> list[Finding]:
    """Shards of packed features that were left out when the folder was opened."""
    cases = tuple(Case("", detail=problem) for problem in features.problems)
    return [Finding("shard_damaged", len(cases), 0, cases[:LISTED])] if cases else []


def _has_any(features: Features, folder: str) -> bool:
    """Whether a kind of features has been made at all, packed or as files."""
    return folder in features.kinds or any((features.root / folder).glob("*.npy"))


def clip_numbers(opened: Opened) -> np.ndarray:
    """(files,) number of the clip whose file each is, -1 for a prompt that is no target."""
    row = opened["row"]
    return np.where(opened.of_target, opened.rows.clip[row], opened.rows.prompt[row])


def _other_durations(sounds: Opened, fine: np.ndarray, seconds: np.ndarray) -> list[Finding]:
    """Sounds longer or shorter than their clip's mel, codes or duration field says."""
    clips, duration = clip_numbers(sounds), sounds["duration"]
    expected = np.where(clips >= 0, seconds[clips], np.nan)
    usable = fine & np.isfinite(expected) & (expected > 0)
    if not usable.any():
        return []
    # A constant factor is another frame rate, not another recording.
    expected = expected * np.median(duration[usable] / expected[usable])
    far = usable & (np.abs(duration - expected) > np.maximum(DURATION_SLACK, DURATION_SHARE * expected))

    def what(listed: np.ndarray) -> Iterable[str]:
        return (f"{duration[at]:.2f} s of sound for {expected[at]:.2f} s of features" for at in listed)

    return sounds.finding("audio_length", far, what)


def _copies(sounds: Opened, fine: np.ndarray) -> list[Finding]:
    """Files with the same samples: again in one split, or one in each."""
    members = np.flatnonzero(fine)
    if not len(members):
        return []
    digests = sounds.table.column("digest").combine_chunks().dictionary_encode().indices.to_numpy()[members]
    split = sounds.rows.split_of(sounds["row"][members])
    order = np.lexsort((split, digests))
    digests, split, members = digests[order], split[order], members[order]
    same = np.concatenate(([False], digests[1:] == digests[:-1]))
    leak = same & np.concatenate(([False], split[1:] != split[:-1]))
    original = members[np.maximum.accumulate(np.where(same, 0, np.arange(len(members))))]
    of = dict(zip(members[same].tolist(), original[same].tolist(), strict=True))

    def what(listed: np.ndarray) -> Iterable[str]:
        originals = sounds.table.column("path").take(pa.array([of[int(at)] for at in listed]))
        return (f"the same samples as {path}" for path in originals.to_pylist())

    findings = []
    for kind, which in (("audio_repeated", same & ~leak), ("leak_audio", leak)):
        where = np.zeros(len(sounds.table), dtype=bool)
        where[members[which]] = True
        findings += sounds.finding(kind, where, what)
    return findings


def _most_frequent(values: np.ndarray) -> float:
    distinct, times = np.unique(values, return_counts=True)
    return float(distinct[times.argmax()]) if len(distinct) else 0.0
