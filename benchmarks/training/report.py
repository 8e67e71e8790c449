"""The measured pieces as a page: machine, versions, what was met and what was not, a table per piece with its date."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

from benchmarks.data.report import COLUMNS, memory_gb, processor, row
from benchmarks.data.result import Result
from tts_kernel.runs import write_atomically

LIBRARIES = ("torch", "transformers", "accelerate", "numpy")


@dataclass(frozen=True)
class Piece:
    """One subject's measurement."""

    name: str
    title: str
    method: str
    date: str  # UTC
    machine: str
    minutes: float
    load: float  # the machine's load average of a minute before it began
    results: list[Result]

    def save(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(folder / f"{self.name}.json", json.dumps(asdict(self), indent=1, ensure_ascii=False) + "\n")

    @staticmethod
    def read(path: Path) -> Piece:
        values = json.loads(path.read_text(encoding="utf-8"))
        return Piece(**{**values, "results": [Result(**result) for result in values["results"]]})


def machine() -> str:
    names = ", ".join(f"{name} {version(name)}" for name in LIBRARIES)
    return (
        f"{processor()}, {os.cpu_count()} cores, {memory_gb():.0f} GB, {platform.system()} {platform.release()}; "
        f"Python {platform.python_version()}, {names}"
    )


def render(pieces: Sequence[Piece]) -> str:
    """Markdown."""
    results = [(piece, result) for piece in pieces for result in piece.results]
    judged = [result.met for _, result in results if result.met is not None]
    short = [(piece, result) for piece, result in results if result.met is False]
    unjudged = [(piece, result) for piece, result in results if result.met is None and result.verdict]
    machines = list(dict.fromkeys(piece.machine for piece in pieces))
    lines = [
        "# Training, measured",
        "",
        "Made by `make bench-training`: what the engine does beside a plain loop, measured in the same run on the same "
        "machine. A piece that is measured alone (`python -m benchmarks.training --only ...`) takes its place here, "
        "the others stay.",
        "",
        f"**{sum(judged)} of {len(judged)} targets met.**" + (" Short:" if short else ""),
        *([""] if short or unjudged else []),
        *(f"- {of.title}, {result.what}: {result.ratio or result.ours} ({result.target})" for of, result in short),
        *(f"- not judged: {piece.title}, {result.what}: {result.verdict}" for piece, result in unjudged),
    ]
    if len(machines) == 1:
        lines += ["", f"Machine: {machines[0]}."]
    for piece in pieces:
        where = "" if len(machines) == 1 else f" on {piece.machine}"
        lines += ["", f"## {piece.title}", "", " ".join(piece.method.split()), ""]
        lines += [
            f"Measured {piece.date} UTC{where} in {piece.minutes:.1f} minutes, after a load of {piece.load:.1f}.",
            "",
        ]
        lines += [row(COLUMNS), row(["---", *["---:"] * 4, "---"])]
        lines += [
            row((result.what, result.plain, result.ours, result.ratio, result.target, result.verdict))
            for result in piece.results
        ]
    return "\n".join(lines) + "\n"
