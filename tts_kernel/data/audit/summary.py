"""What there is at all: counts, hours, languages, speakers, and the distributions that the figures show."""

from __future__ import annotations

from typing import Any

import numpy as np

from tts_kernel.data.audit.media import Opened
from tts_kernel.data.audit.rows import Rows
from tts_kernel.data.audit.text import Tempo, by_language

BARS = 40
RANKS = 400  # points of the curve of clips per speaker


def describe_clips(rows: Rows, seconds: np.ndarray, source: str) -> dict[str, Any]:
    """`seconds`: (clips,) duration by the manifest, NaN where unknown; `source`: what it was taken from."""
    known = seconds[np.isfinite(seconds)]
    every = np.arange(len(rows.clips))
    languages = {
        name: {"clips": len(places), "hours": _hours(seconds[places])}
        for name, places in by_language(rows, every).items()
    }
    return {
        "pairs": {split.name: len(split.manifest) for split in rows.splits},
        "clips": len(rows.clips),
        "hours": _hours(seconds),
        "hours_from": source,
        "languages": dict(sorted(languages.items(), key=lambda item: -item[1]["clips"])),
        "speakers": _speakers(rows, seconds),
        "durations": histogram(known),
        "mels": int(rows.has("target_mel_path").sum()),
    }


def _speakers(rows: Rows, seconds: np.ndarray) -> dict[str, Any]:
    names, speaker = rows.categories("speaker")
    speaker = speaker[rows.first]
    clips = np.bincount(speaker, minlength=len(names))
    hours = np.bincount(speaker, weights=np.nan_to_num(seconds), minlength=len(names)) / 3600
    order = np.argsort(-clips, kind="stable")
    ranks = np.unique(np.geomspace(1, len(names), RANKS).astype(int)) if names else np.empty(0, int)
    return {
        "count": len(names),
        "clips_each": [int(value) for value in np.percentile(clips, [0, 50, 100])] if names else [0, 0, 0],
        "most": [
            {"name": names[at], "clips": int(clips[at]), "hours": round(float(hours[at]), 4)} for at in order[:20]
        ],
        "ranks": {"rank": ranks.tolist(), "clips": clips[order[ranks - 1]].tolist()},
    }


def describe_tempo(rows: Rows, tempo: Tempo) -> dict[str, Any]:
    """Per language the median and the distribution of text per second."""
    edges = _edges(tempo.rate)
    return {
        "unit": tempo.unit,
        "edges": edges.round(4).tolist(),
        "languages": {
            name: {
                "median": round(float(np.median(tempo.rate[places])), 2),
                "clips": np.histogram(tempo.rate[places].clip(max=edges[-1]), edges)[0].tolist(),
            }
            for name, places in by_language(rows, tempo.clips).items()
        },
    }


def describe_sounds(sounds: Opened) -> dict[str, Any]:
    """Sample rates and channels, each with its number of files, and the median level."""
    fine = sounds["status"] == "ok"
    counted = {name: np.unique(sounds[name][fine], return_counts=True) for name in ("sample_rate", "channels")}
    counts = {
        name: {str(value): int(count) for value, count in zip(*pair, strict=True)} for name, pair in counted.items()
    }
    level = round(float(np.median(sounds["level"][fine])), 1) if fine.any() else None
    return {"whole": int(fine.sum()), **counts, "level": level}


def in_words(summary: dict[str, Any]) -> list[str]:
    """The summary of a report, a line for each subject."""
    pairs = ", ".join(f"{count:,} in {split}" for split, count in summary["pairs"].items())
    languages = (
        f"{name or 'none given'} {facts['clips']:,} clips {facts['hours']:.2f} h"
        for name, facts in summary["languages"].items()
    )
    fewest, median, most = summary["speakers"]["clips_each"]
    sample, sounds = summary["sample"], summary.get("sounds")
    tempo = summary["tempo"]
    rates = (f"{name or 'none given'} {facts['median']:.1f}" for name, facts in tempo["languages"].items())
    lines = [
        f"pairs: {pairs}; {summary['mels']:,} of them have a mel",
        f"clips: {summary['clips']:,}, {summary['hours']:.2f} hours by {summary['hours_from']}",
        f"languages: {'; '.join(languages)}",
        f"speakers: {summary['speakers']['count']:,}, with {fewest:,} to {most:,} clips each, median {median:,}",
        f"speaker mapping: {summary['mapping'] or 'none'}",
        f"opened: {sample['clips']:,} of {sample['of']:,} clips, {sample['audio_files']:,} audio files, "
        f"{sample['feature_files']:,} feature files",
        f"text: {summary['text_from'] or 'not at hand'}; median {tempo['unit']} per second {', '.join(rates)}",
    ]
    if sounds and not sounds["whole"]:
        lines.insert(-1, "audio: no file could be read")
    elif sounds:
        heard = ", ".join(f"{count:,} at {int(rate):,} Hz" for rate, count in sounds["sample_rate"].items())
        lines.insert(-1, f"audio: {heard}; median level {sounds['level']} dB")
    if summary["unknown_tokens"]:
        shares = ", ".join(f"{name or 'none given'} {share:.2%}" for name, share in summary["unknown_tokens"].items())
        lines.append(f"unknown tokens: {shares}")
    return lines


def histogram(values: np.ndarray) -> dict[str, list[float]]:
    """Clips between edges."""
    edges = _edges(values)
    return {"edges": edges.round(6).tolist(), "clips": np.histogram(values.clip(max=edges[-1]), edges)[0].tolist()}


def _edges(values: np.ndarray) -> np.ndarray:
    """From 0 to somewhat above nearly all of the values; the last bar takes the rest."""
    top = float(np.percentile(values, 99)) if len(values) else 1.0
    return np.linspace(0, max(top, 1e-6) * 1.3, BARS + 1)


def _hours(seconds: np.ndarray) -> float:
    return round(float(np.nansum(seconds)) / 3600, 4)
