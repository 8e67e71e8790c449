"""One decision from its settings: diagnose, weigh, choose, carry out. The notebook and its panel are skins of it."""

from __future__ import annotations

import fcntl
import logging
from dataclasses import dataclass, replace

from tts_kernel.data.features.folder_lock import locked
from tts_kernel.recipes.indextts2.damaged import Damage, damage_demo
from tts_kernel.recovery.choice import Choice, Weighed, choose
from tts_kernel.recovery.damaged import Damaged, open_damaged
from tts_kernel.recovery.journal import By, Journal, JournalError
from tts_kernel.recovery.options import Option, make_options
from tts_kernel.recovery.phases import Ending, Verdict, Watch, Work, carry_out, moved_to
from tts_kernel.recovery.plan import Plan, make_plan
from tts_kernel.recovery.settings import Settings
from tts_kernel.runs import Run, RunError

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Decision:
    """What is known and what is advised; nothing has been carried out."""

    settings: Settings  # with the demo's run where none was named
    run: Run  # of the decision itself
    damaged: Damaged
    options: tuple[Option, ...]
    choice: Choice
    journal: Journal
    by: By

    @property
    def chosen(self) -> Weighed | None:
        """By the settings; None for a report. Raises ChoiceError where it cannot be carried out."""
        if self.settings.decision == "report":
            return None
        if self.settings.decision == "auto":
            return self.choice.recommended
        return self.choice.named(self.settings.decision)

    @property
    def recommended(self) -> str:
        """The name of the best way out, "nothing" where none can be carried out."""
        first = self.choice.weighed[0].option
        return "nothing" if first.impossible else first.name

    @property
    def verdict(self) -> Verdict | None:
        """On phase 1, once it has been judged."""
        kept = self.journal.state("judgement").get("verdict")
        return Verdict.from_mapping(kept) if kept else None

    def weighed_by(self, **weights: float) -> Decision:
        """The same ways out by other weights. Raises ChoiceError."""
        settings = replace(self.settings, **weights)  # type: ignore[arg-type]
        return replace(self, settings=settings, choice=_choose(self.options, settings, self.damaged))

    def plan(self) -> Plan | None:
        """What an earlier session of this decision has begun, else what is chosen now; None for a report. Raises
        JournalError where another way than the one begun is asked for."""
        if self.journal.decided:
            asked = self.settings.decision
            if asked not in ("auto", "report") and not (asked == "continue" and self.journal.decided == "lower rate"):
                self.journal.check(asked)
            return Plan.from_mapping(self.journal.content["plan"], self.damaged.recipe)
        chosen = self.chosen
        if chosen is None:
            return None
        restart = next(one for one in self.options if one.name == "restart")
        return make_plan(chosen.option, restart, self.damaged, self.settings, self.run.name)

    def carry_out(self, watch: Watch | None = None) -> Ending | None:
        """What was chosen, from wherever it stands; None for a report and for a dry run, which only lists its steps.
        Raises RunError while another process carries it out."""
        plan = None if self.settings.decision == "report" else self.plan()
        if plan is None:
            log.info("decision report: nothing is carried out")
            return None
        if self.settings.dry_run:
            log.info("dry run of %s, nothing is done:\n  %s", plan.option, "\n  ".join(plan.lines()))
            return None
        with locked(self.run.folder / ".deciding", fcntl.LOCK_EX) as (_, free):
            if not free:
                raise RunError(f"{self.run.folder}: this decision is being carried out already")
            if not self.journal.decided:
                self.journal.know(weighed=self.choice)
            damaged, recipe = self.damaged.folder, self.damaged.recipe
            work = Work(plan, damaged, recipe, self.settings, self.journal)
            return carry_out(replace(work, watch=watch) if watch else work, self.by)


def decide(settings: Settings, run: Run) -> Decision:
    """Diagnose the run and weigh the ways out. Without `damaged_run` the demo's is trained first. What is known goes
    into decision.json, as long as nothing was chosen. Raises SettingsError, ChoiceError, JournalError, and RunError for
    a folder that is no decision's."""
    settings.wishes()  # which may contradict each other: before the demo's run is trained
    if (run.folder / "metrics.jsonl").exists():
        raise RunError(f"run_name {run.name}: a training run is there, no decision; choose another run_name")
    journal = Journal(run)
    asked = settings
    if settings.damaged_run:
        asked = replace(settings, demo_max_steps=0)  # the user's own run is trained to its end
    else:
        asked = replace(settings, damaged_run=f"{run.name}-damaged")
        if moved_to(journal) is None:
            damage_demo(asked.damaged_run, Damage(settings.demo_damage, settings.demo_steps), settings.device)
    damaged = open_damaged(asked, moved_to(journal))
    before = journal.content.get("known", {}).get("run")
    if before not in (None, str(damaged.folder)):
        raise JournalError(f"{journal.path}: is about {before}, now {damaged.folder} is asked; choose another run_name")
    diagnosis = damaged.diagnosis
    options = make_options(
        diagnosis, no_restart=damaged.no_restart, foreign=not damaged.ours, phase_1_steps=asked.phase_1_steps
    )
    course = diagnosis.course
    choice = _choose(options, asked, damaged)
    if not journal.decided:
        journal.know(
            known={
                "run": str(damaged.folder),
                "metric": diagnosis.metric,
                "best": course.best,
                "onset": course.onset,
                "shape": course.shape,
                "facts": diagnosis.facts,
                "checkpoints": diagnosis.survivors,
                "findings": diagnosis.findings,
            },
            weighed=choice,
        )
    by: By = "recommendation" if asked.decision == "auto" else "parameters"
    return Decision(asked, run, damaged, options, choice, journal, by)


def _choose(options: tuple[Option, ...], settings: Settings, damaged: Damaged) -> Choice:
    course = damaged.diagnosis.course
    level = float(course.trend[-1]) if len(course.trend) else None
    return choose(options, settings.wishes(), level, course.best.value if course.best else None)
