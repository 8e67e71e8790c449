"""One decision from its settings: diagnose, weigh, choose, carry out. The notebook and its panel are skins of it."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace

from tts_kernel.recipes.indextts2.damaged import Damage, damage_demo
from tts_kernel.recovery.choice import Choice, Weighed, choose
from tts_kernel.recovery.damaged import Damaged, open_damaged
from tts_kernel.recovery.journal import By, Journal
from tts_kernel.recovery.options import Option, make_options
from tts_kernel.recovery.phases import Ending, Plan, Watch, carry_out, make_plan, moved_to
from tts_kernel.recovery.settings import Settings
from tts_kernel.runs import Run

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
        """By the settings, or by an earlier session of this decision; None for a report. Raises ChoiceError where it
        cannot be carried out."""
        if self.settings.decision == "report":
            return None
        if self.journal.decided:
            return next(one for one in self.choice.weighed if one.option.name == self.journal.decided)
        if self.settings.decision == "auto":
            return self.choice.recommended
        return self.choice.named(self.settings.decision)

    def weighed_by(self, **weights: float) -> Decision:
        """The same ways out by other weights. Raises ChoiceError."""
        settings = replace(self.settings, **weights)  # type: ignore[arg-type]
        return replace(self, settings=settings, choice=_choose(self.options, settings, self.damaged))

    def plan(self, chosen: Weighed) -> Plan:
        restart = next(one for one in self.options if one.name == "restart")
        return make_plan(chosen.option, restart, self.damaged, self.settings, self.run.name, self.journal)

    def carry_out(self, watch: Watch | None = None) -> Ending | None:
        """What was chosen, from wherever it stands; None for a report and for a dry run, which only lists its steps."""
        chosen = self.chosen
        if chosen is None:
            log.info("decision report: nothing is carried out")
            return None
        plan = self.plan(chosen)
        if self.settings.dry_run:
            log.info("dry run of %s, nothing is done:\n  %s", chosen.option.name, "\n  ".join(plan.lines()))
            return None
        return carry_out(plan, self.damaged, self.settings, self.journal, self.by, watch)


def decide(settings: Settings, run: Run) -> Decision:
    """Diagnose the run and weigh the ways out. Without `damaged_run` the demo's is trained first. What is known goes
    into decision.json, as long as nothing was chosen. Raises SettingsError, ChoiceError and JournalError."""
    settings.wishes()  # which may contradict each other: before the demo's run is trained
    journal = Journal(run)
    if not settings.damaged_run:
        damage = Damage(settings.demo_damage, settings.demo_steps)
        name = f"{run.name}-damaged"
        if moved_to(journal) is None:
            damage_demo(name, damage, settings.device, settings.seed)
        settings = replace(settings, damaged_run=name)
    damaged = open_damaged(settings, moved_to(journal))
    diagnosis = damaged.diagnosis
    options = make_options(
        diagnosis, no_restart=damaged.no_restart, foreign=not damaged.ours, phase_1_steps=settings.phase_1_steps
    )
    course = diagnosis.course
    choice = _choose(options, settings, damaged)
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
    by: By = "recommendation" if settings.decision == "auto" else "parameters"
    return Decision(settings, run, damaged, options, choice, journal, by)


def _choose(options: tuple[Option, ...], settings: Settings, damaged: Damaged) -> Choice:
    course = damaged.diagnosis.course
    level = float(course.trend[-1]) if len(course.trend) else None
    return choose(options, settings.wishes(), level, course.best.value if course.best else None)
