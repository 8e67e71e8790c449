"""outcome.json: how a session ended, said by the session for those who start, follow or only find it.

The first word counts: a failure after the end changes nothing. Of several processes each that fails keeps its own
error, and outcome.json is put together from them, the first one first.
"""

from __future__ import annotations

import json
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, fields
from typing import Any

from tts_kernel.runs import Run, write_atomically
from tts_kernel.training.outcome import Outcome, RunInterrupted, TrainingError

OUTCOME = "outcome.json"
_FAILURES = ".failure-{}.json"


@contextmanager
def kept(run: Run, rank: int = 0) -> Iterator[None]:
    """However what is inside is left but by a return: it is written down, then raised again."""
    try:
        yield
    except RunInterrupted as stopped:
        _write(run, {"status": "stopped", "error": str(stopped), "kind": type(stopped).__name__})
        raise
    except BaseException as error:
        keep_failure(run, rank, type(error).__name__, error_text(error))
        raise


def keep(run: Run, outcome: Outcome) -> None:
    """The session trained to its end."""
    _write(run, asdict(outcome))


def keep_failure(run: Run, rank: int, kind: str, error: str, when: float | None = None) -> None:
    """One process failed, at `when` (seconds since the epoch), which is now if not given."""
    own = {"rank": rank, "time": time.time() if when is None else when, "kind": kind, "error": error}
    write_atomically(run.folder / _FAILURES.format(rank), json.dumps(own, ensure_ascii=False) + "\n")
    failures = [json.loads(path.read_text(encoding="utf-8")) for path in run.folder.glob(_FAILURES.format("*"))]
    first, *later = sorted(failures, key=lambda failure: failure["time"])
    text = [f"process {first['rank']}: {first['error']}" if later or first["rank"] else first["error"]]
    text += [f"process {other['rank']}, then: {other['error'].strip().splitlines()[-1][:300]}" for other in later]
    _write(run, {"status": "failed", "error": "\n".join(text), "kind": first["kind"], "rank": first["rank"]})


def failed_ranks(run: Run) -> set[int]:
    return {int(path.stem.rpartition("-")[2]) for path in run.folder.glob(_FAILURES.format("*"))}


def clear(run: Run) -> None:
    """Before a session: nothing is left of how an earlier one ended, or was asked to."""
    for path in (run.folder / OUTCOME, run.folder / "stop", *run.folder.glob(_FAILURES.format("*"))):
        path.unlink(missing_ok=True)


def status(run: Run) -> str:
    """Of the session that ended last; empty if it left no outcome.json."""
    return str(_read(run).get("status", ""))


def outcome(run: Run) -> Outcome | None:
    """What the session left; None if it died without a word. Raises RunInterrupted if it was stopped and TrainingError
    with its own words if it failed."""
    known = _read(run)
    if not known:
        return None
    if known["status"] == "stopped":
        raise RunInterrupted(known["error"])
    if known["status"] == "failed":
        kind = "" if known["kind"] == TrainingError.__name__ else f"{known['kind']}: "
        raise TrainingError(kind + known["error"])
    return Outcome(**{item.name: known[item.name] for item in fields(Outcome)})


def error_text(error: BaseException) -> str:
    """The message where our own code raised it for a person to read, else the whole traceback."""
    raised_in = [frame.f_globals.get("__name__", "") for frame, _ in traceback.walk_tb(error.__traceback__)][-1:]
    ours = [name for name in (type(error).__module__, *raised_in) if name.startswith("tts_kernel.")]
    if ours and isinstance(error, ValueError | RuntimeError):
        return str(error)
    return "".join(traceback.format_exception(error)).rstrip()


def _read(run: Run) -> dict[str, Any]:
    try:
        return json.loads((run.folder / OUTCOME).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}


def _write(run: Run, ending: dict[str, Any]) -> None:
    before = status(run)
    if before in ("", "failed") and (ending["status"] == "failed" or not before):
        write_atomically(run.folder / OUTCOME, json.dumps(ending, indent=1, ensure_ascii=False) + "\n")
