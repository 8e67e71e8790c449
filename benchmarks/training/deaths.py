"""What SIGKILL costs a run; benchmarks/training/kills.py does the killing."""

from __future__ import annotations

import re
import subprocess
import sys

from benchmarks.data.measure import ROOT, Figures, measure
from benchmarks.data.result import Result
from benchmarks.training.sizes import Sizes

ENOUGH = 200  # kills at random moments that the target speaks of

TITLE = "Kills"
METHOD = """SIGKILL, then a look whether the run goes on from its newest checkpoint and has its best: a real run of a
tiny model killed at {kills} random moments, one after the other; and a session of a few saves killed before its first
file operation, before its second, and so on until it lives."""


def killed(kind: str, kills: int) -> Figures:
    """How many kills there were, and how many of them lost something: the first one that does is the last."""
    command = [sys.executable, "-m", "benchmarks.training.kills", "--run", kind, "--kills", str(kills)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    found = re.search(r"(\d+) kills", done.stdout)
    if found is None:
        raise RuntimeError(f"{' '.join(command[1:])} said {done.stdout[-200:]!r} and {done.stderr[-200:]!r}")
    return {"kills": int(found[1]), "lost": done.returncode}


def run(sizes: Sizes) -> list[Result]:
    return [
        _result(
            what, measure(killed, 1, kind=kind, kills=sizes.kills), judged=kind != "trainer" or sizes.kills >= ENOUGH
        )
        for kind, what in (("trainer", "at random moments"), ("operations", "before each file operation"))
    ]


def _result(what: str, found: Figures, judged: bool) -> Result:
    lost = found["lost"]
    ours = f"{lost:.0f} lost of {found['kills']:.0f}"
    return Result(what, ours=ours, target="0 lost", met=not lost if judged or lost else None)
