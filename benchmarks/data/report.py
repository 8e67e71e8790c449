"""The measured lines as a page: machine, versions, date, what was met and what was not, a table per subject."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from benchmarks.data.generate import ROWS
from benchmarks.data.result import Result, Sizes

LIBRARIES = ("numpy", "pyarrow", "torch", "soundfile", "soxr")
COLUMNS = ("what", "plain way", "ours", "ratio", "target", "result")


@dataclass(frozen=True)
class Section:
    title: str
    method: str
    results: Sequence[Result]
    seconds: float = 0.0  # that it took to measure


def render(sections: Sequence[Section], sizes: Sizes, load: tuple[float, float]) -> str:
    """Markdown. `load` is the machine's load average of a minute before and after."""
    judged = [result for section in sections for result in section.results if result.met is not None]
    short = [(section, result) for section in sections for result in section.results if result.met is False]
    unjudged = [
        (section, result) for section in sections for result in section.results if result.met is None and result.verdict
    ]
    lines = [
        "# The data layer, measured",
        "",
        "Made by `make bench-data`: every target beside the plain way, measured in the same run on the same machine. "
        f"Each figure is the median of up to {sizes.repeats} runs (fewer where one takes long), each in a process of "
        "its own. Memory is that process's peak of resident pages, mapped files included.",
        "",
        f"**{sum(result.met is True for result in judged)} of {len(judged)} targets met.**"
        + (" Short:" if short else ""),
        *([""] if short or unjudged else []),
        *(
            f"- {section.title}, {result.what}: {result.ratio or result.ours} ({result.target})"
            for section, result in short
        ),
        *(f"- not judged: {section.title}, {result.what}: {result.verdict}" for section, result in unjudged),
        "",
        *_machine(sizes, sections, load),
    ]
    for section in sections:
        lines += ["", f"## {section.title}", "", " ".join(section.method.split()), ""]
        lines += [row(COLUMNS), row(["---", *["---:"] * 4, "---"])]
        lines += [
            row((result.what, result.plain, result.ours, result.ratio, result.target, result.verdict))
            for result in section.results
        ]
    return "\n".join(lines) + "\n"


def row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _machine(sizes: Sizes, sections: Sequence[Section], load: tuple[float, float]) -> list[str]:
    names = ", ".join(f"{name} {version(name)}" for name in LIBRARIES)
    return [
        "| | |",
        "| --- | --- |",
        f"| date | {datetime.now(UTC):%Y-%m-%d %H:%M} UTC |",
        f"| machine | {processor()}, {os.cpu_count()} cores, {memory_gb():.0f} GB, {platform.system()} "
        f"{platform.release()} |",
        f"| versions | Python {platform.python_version()}, {names} |",
        f"| sizes | {sizes.rows:,} rows{'' if sizes.rows >= ROWS else f' (the guide has {ROWS:,})'}, {sizes.mels:,} "
        f"mels, {sizes.clips:,} clips in the feature store |",
        f"| took | {sum(section.seconds for section in sections) / 60:.1f} minutes; load average {load[0]:.1f} before, "
        f"{load[1]:.1f} after |",
    ]


def processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def memory_gb() -> float:
    import psutil

    return psutil.virtual_memory().total / 1e9
