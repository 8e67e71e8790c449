"""One run of an Aim repository, of ours or of any trainer.

Aim is asked in a process of its own: it keeps the databases open that it has read, and may wait for one that is
locked. The runs' names are in a plain SQLite file beside them.
"""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
import tempfile
from pathlib import Path
from urllib.parse import quote

import numpy as np

from tts_kernel.recovery.history import History, Points
from tts_kernel.recovery.names import house_name
from tts_kernel.training import aim_process

PATIENCE = 120.0  # seconds that reading may take


def read_aim(path: Path) -> History:
    """`path` is a repository's folder, its .aim, or .aim/NAME with the name or the hash of a run; without it the newest
    is read."""
    repository, wanted = path, ""
    if path.name == ".aim":
        repository = path.parent
    elif path.parent.name == ".aim":
        repository, wanted = path.parent.parent, path.name
    problems: list[str] = []
    chosen = _choose(repository, wanted, problems)
    if chosen is None:
        return History(path, {}, problems=problems)
    run_hash, name = chosen
    shown = repository / ".aim" / name
    if not aim_process.installed():
        problems.append(f"{shown}: Aim is not installed, so it cannot be read; install tts_kernel[aim]")
        return History(shown, {}, problems=problems)
    with tempfile.TemporaryDirectory() as folder:
        copied = Path(folder) / "run.npz"
        command = [sys.executable, "-m", __name__, str(repository), run_hash, str(copied)]
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=PATIENCE)
        except subprocess.TimeoutExpired:
            problems.append(f"{shown}: not read within {PATIENCE:.0f} s; another process may hold its databases")
            return History(shown, {}, problems=problems)
        if done.returncode or not copied.is_file():
            said = [line for line in done.stderr.splitlines() if line.strip()]
            problems.append(f"{shown}: cannot be read ({said[-1] if said else f'exit status {done.returncode}'})")
            return History(shown, {}, problems=problems)
        return _history(shown, copied, problems)


def _choose(repository: Path, wanted: str, problems: list[str]) -> tuple[str, str] | None:
    """Hash and name of the run that is meant."""
    database = repository / ".aim" / "run_metadata.sqlite"
    try:
        with sqlite3.connect(f"file:{quote(str(database))}?mode=ro", uri=True) as opened:
            rows = opened.execute("SELECT hash, name FROM run ORDER BY created_at, id").fetchall()
    except sqlite3.Error as error:
        problems.append(f"{database}: cannot be read ({error}); expected an Aim repository")
        return None
    runs = [(run_hash, name or run_hash) for run_hash, name in rows]
    found = [run for run in runs if wanted in ("", *run)]
    names = ", ".join(f"{name} ({run_hash})" for run_hash, name in runs[-10:])
    if not found:
        problems.append(f"{repository / '.aim'}: found runs {names or 'none'}; expected {wanted or 'at least one'}")
        return None
    if len(found) > 1:
        problems.append(
            f"{repository / '.aim'}: several runs, the newest is read ({found[-1][1]}); put .aim/ and one of these in "
            f"its place for another: {names}"
        )
    return found[-1]


def _history(path: Path, copied: Path, problems: list[str]) -> History:
    points = Points()
    with np.load(copied, allow_pickle=False) as arrays:
        for number, (name, subset) in enumerate(json.loads(str(arrays["names"]))):
            house, factor = house_name(name, subset)
            steps, values, times = arrays[f"steps_{number}"], arrays[f"values_{number}"], arrays[f"times_{number}"]
            points.add(house, np.arange(len(steps)), steps.astype(np.int64), factor * values, times)
    return points.history(path, problems)


# What the other process does


def copy_run(repository: Path, run_hash: str, target: Path) -> None:
    """Write an .npz with `names`, the JSON of [name, subset] pairs, and steps_N, values_N and times_N of each. The
    run's own trees are read, not Aim's index of all runs, which a run that crashed is not part of."""
    from aim.sdk.repo import Repo

    opened = Repo(str(repository))
    facts = opened.request_tree("meta", run_hash, read_only=True).subtree("meta")
    series = opened.request_tree("seqs", run_hash, read_only=True).subtree("seqs")
    contexts, names, arrays = facts.get("contexts", {}), list[tuple[str, str]](), dict[str, np.ndarray]()
    for context, traces in facts.subtree(("chunks", run_hash)).get("traces", {}).items():
        for name, trace in traces.items():
            if trace.get("dtype") not in ("float", "float64", "int", "number"):
                continue
            newer = trace.get("version", 1) == 2
            columns = series.subtree((*(("v2",) if newer else ()), "chunks", run_hash, context, name))
            values = dict(columns.subtree("val").items())
            steps = dict(columns.subtree("step").items()) if newer else {key: key for key in values}
            times = dict(columns.subtree("time").items())
            keys = sorted(values, key=steps.__getitem__)
            number = len(names)
            arrays[f"steps_{number}"] = np.array([steps[key] for key in keys], np.int64)
            arrays[f"values_{number}"] = np.array([values[key] for key in keys], np.float64)
            arrays[f"times_{number}"] = np.array([times.get(key, np.nan) for key in keys], np.float64)
            names.append((name, str((contexts.get(context) or {}).get("subset", ""))))
    np.savez(target, names=json.dumps(names), **arrays)  # type: ignore[arg-type]


if __name__ == "__main__":
    copy_run(Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3]))
