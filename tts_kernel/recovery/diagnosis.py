"""What happened to a run, what is left of it, and what is known about it; from its files alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from tts_kernel.recovery import causes, findings
from tts_kernel.recovery.adversary import adversary
from tts_kernel.recovery.course import LEAST, Course, read_course
from tts_kernel.recovery.events import find_events
from tts_kernel.recovery.evidence import Evidence, Finding
from tts_kernel.recovery.facts import RunFacts, checkpoint_folder, read_facts, run_folder
from tts_kernel.recovery.history import History, read_history
from tts_kernel.recovery.survivors import Survivor, find_survivors
from tts_kernel.recovery.text_logs import find_text_logs
from tts_kernel.runs import Run
from tts_kernel.training.launch import find
from tts_kernel.training.launch.hold import in_use

TRAINING = ("train/text_loss", "train/loss", "train/mel_loss", "train/gpt_loss")
VALIDATION = ("val/text_loss", "val/loss", "val/mel_loss", "val/gpt_loss")
QUESTIONS: tuple[Callable[[Evidence], Finding | None], ...] = (
    findings.alive,
    findings.too_little,
    findings.unread,
    findings.vanished,
    findings.best,
    findings.divergence,
    findings.spikes,
    findings.plateau,
    causes.over_fitting,
    causes.rate_too_high,
    causes.clipping,
    causes.precision,
    causes.scaler,
    causes.validation_missing,
    findings.resume_jumps,
    findings.data_jumps,
    adversary,
)
_NOT_JUDGED = ("speaker_loss",)  # of the adversary; it is meant to rise


@dataclass(frozen=True)
class Diagnosis:
    """Of one run."""

    history: History
    metric: str  # that `course` is of; empty where no loss was logged
    course: Course
    facts: RunFacts
    survivors: tuple[Survivor, ...]
    findings: tuple[Finding, ...]
    alive: bool  # a live process still writes this run

    def finding(self, name: str) -> Finding | None:
        return next((one for one in self.findings if one.name == name), None)


def diagnose(
    path: Path | str, *, metric: str = "", checkpoints: Path | None = None, given: Mapping[str, Any] | None = None
) -> Diagnosis:
    """Of a run folder or what else `read_history` reads. `metric` is the loss to judge by, empty for the one that went
    wrong, else the first that was logged; `checkpoints` the folder of checkpoints, if it is not the run's; `given`
    facts that the files do not know. Never fails for what it finds."""
    history = read_history(path)
    checkpoints = checkpoint_folder(history.path) if checkpoints is None else checkpoints
    facts = read_facts(history, given, checkpoints=checkpoints)
    metric, course = _judged(history, metric, facts)
    held = next((name for name in _held(history, metric) if len(history[name].finite())), "")
    validation = _course(history, held, facts) if held and held != metric else course if held else None
    survivors = find_survivors(checkpoints, course)
    alive = is_alive(history.path)
    evidence = Evidence(history, metric, course, held, validation, facts, survivors, alive)
    found = tuple(answer for ask in QUESTIONS if (answer := ask(evidence)) is not None)
    return Diagnosis(history, metric, course, facts, survivors, found, alive)


def is_alive(path: Path) -> bool:
    """Whether a process writes the run: of ours, one that holds its folder; of others, one of this machine that has its
    log open for writing."""
    run = Run(run_folder(path))
    if (run.folder / "settings.json").is_file():
        return bool(in_use(run)) or find(run) is not None
    written = {str(file.resolve()) for file in (*find_events(path), *find_text_logs(path))}
    return bool(written) and any(_writes(process, written) for process in psutil.process_iter())


def _writes(process: psutil.Process, files: set[str]) -> bool:
    try:
        return any(opened.path in files and opened.mode not in ("r", "rb") for opened in process.open_files())
    except (psutil.Error, OSError):  # gone, or one that is not ours to ask
        return False


def _judged(history: History, asked: str, facts: RunFacts) -> tuple[str, Course]:
    """The metric that was asked for; else of the training losses, then the validation's, the first that went wrong,
    else the first. A loss of a few points or one that vanished is judged where there is no other."""
    if asked:
        return asked, _course(history, asked, facts)
    names = [name for name in (*TRAINING, *VALIDATION, *history.metrics) if name in history and _is_loss(name)]
    names = sorted(dict.fromkeys(names), key=lambda name: _poor(history, name))
    courses = {name: _course(history, name, facts) for name in names if not _poor(history, name)}
    wrong = next((name for name, course in courses.items() if course.onset is not None), None)
    chosen = wrong or next(iter(names), "")
    return chosen, courses[chosen] if chosen in courses else _course(history, chosen, facts)


def _poor(history: History, name: str) -> bool:
    series = history[name].finite()
    return len(series) < LEAST or series.steps[-1] < 0.9 * history.step


def _is_loss(name: str) -> bool:
    last = name.rpartition("/")[2]
    return "loss" in last and not last.startswith(_NOT_JUDGED)


def _held(history: History, metric: str) -> list[str]:
    """Losses of the validation, the metric's own first."""
    own = f"val/{metric.rpartition('/')[2]}"
    others = [name for name in history.metrics if name.startswith("val/") and _is_loss(name)]
    return [name for name in dict.fromkeys((own, *VALIDATION, *others)) if name in history]


def _course(history: History, metric: str, facts: RunFacts) -> Course:
    return read_course(history[metric], resumes=history.resumes, warmup=facts.warmup_steps or 0)
