"""The page that CosyVoice2's benchmarks share, docs/benchmarks/cosyvoice2.md: each writes a section of its own."""

from __future__ import annotations

import os
import platform
import re
import statistics
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from benchmarks.data.measure import ROOT
from benchmarks.data.report import processor

PAGE = ROOT / "docs" / "benchmarks" / "cosyvoice2.md"


def section(title: str, method: str, lines: Sequence[str]) -> str:
    """Markdown: how it was measured, on what and when, then the table's lines."""
    machine = f"{processor()}, {os.cpu_count()} cores, Python {platform.python_version()}"
    measured = f"{datetime.now(UTC):%Y-%m-%d}, {machine}; load average {os.getloadavg()[0]:.1f}."
    return "\n".join([f"## {title}", "", method, "", measured, "", *lines, ""])


def put(path: Path, title: str, text: str) -> None:
    """Replace the section of this title in a page, or add it at the end."""
    page = path.read_text(encoding="utf-8") if path.exists() else "# CosyVoice2, measured\n"
    pattern = re.compile(rf"^## {re.escape(title)}\n.*?(?=^## |\Z)", re.DOTALL | re.MULTILINE)
    page = pattern.sub(lambda _: text + "\n", page) if pattern.search(page) else f"{page.rstrip()}\n\n{text}"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(page.rstrip() + "\n", encoding="utf-8")


def spread(values: Sequence[float], unit: str = "", digits: int = 2) -> str:
    """Median, and the range in which nine of ten values lie."""
    low, high = (sorted(values)[round(share * (len(values) - 1))] for share in (0.05, 0.95))
    median = statistics.median(values)
    return f"{median:.{digits}f}{unit} ({low:.{digits}f} to {high:.{digits}f})"
