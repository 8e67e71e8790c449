"""What a history says of how its run went; None where it has nothing to say."""

from __future__ import annotations

from tts_kernel.recovery.course import LEAST
from tts_kernel.recovery.evidence import Evidence, Facts, Finding

_VANISHED = 0.05  # of the run without a value


def alive(of: Evidence) -> Finding | None:
    if not of.alive:
        return None
    says = f"a live process still writes this run, which stood at step {of.history.step:,}: report it, do not touch it"
    return Finding("alive", says, 0.99, {"step": of.history.step}, "warning")


def too_little(of: Evidence) -> Finding | None:
    """Nothing can be said of a course of a few points."""
    count, lost = len(of.course.series), of.course.lost
    if count >= LEAST:
        return None
    if not of.metric or not count + lost:
        others = ", ".join(list(of.history.metrics)[:8]) or "nothing"
        says = f"no values of {of.metric or 'a loss'} were logged; there is {others}"
    elif not count:
        says = f"none of the {lost:,} values of {of.metric} is finite"
    else:
        says = f"{of.metric} has {count:,} finite points, too few for a judgement (at least {LEAST})"
    return Finding("too little history", says, 0.99, {"points": count, "not_finite": lost}, "warning")


def unread(of: Evidence) -> Finding | None:
    problems = [*of.history.problems, *of.facts.problems]
    if not problems:
        return None
    says = f"{len(problems):,} places could not be read, the first: {problems[0]}"
    return Finding("not readable", says, 0.99, {"problems": len(problems)}, "note")


def vanished(of: Evidence) -> Finding | None:
    """A metric that is not logged any more while others are."""
    series = of.history[of.metric]
    if not len(series) or of.history.step - series.steps[-1] <= _VANISHED * max(of.history.step - series.steps[0], 1):
        return None
    last = int(series.steps[-1])
    says = (
        f"{of.metric} was last logged at step {last:,}, others up to {of.history.step:,}: what follows is true up to "
        f"step {last:,} only"
    )
    return Finding("metric vanished", says, 0.99, {"last": last, "step": of.history.step}, "warning")


def best(of: Evidence) -> Finding | None:
    """Where the loss was lowest, and whether a checkpoint of it is left."""
    found = of.course.best
    if found is None:
        return None
    facts: Facts = {"step": found.step, "value": found.value}
    facts |= {"first": found.first, "last": found.last}
    facts |= {"luckiest_step": found.luckiest_step, "luckiest": found.luckiest}
    where = (
        f"the best {of.metric} is {found.value:.4g} at step {found.step:,} (steps {found.first:,} to {found.last:,} "
        f"cannot be told apart; the luckiest point is {found.luckiest:.4g} at {found.luckiest_step:,})"
    )
    kept = [one for one in of.survivors if one.state == "healthy" and one.step is not None]
    inside = [one for one in kept if one.step is not None and found.first <= one.step <= found.last]
    if inside:
        nearest = min(inside, key=lambda one: abs((one.step or 0) - found.step))
        facts["checkpoint"] = nearest.path.name
        return Finding("best kept", f"{where}, and {nearest.path.name} is a checkpoint of it", 0.95, facts, "good")
    alike = [one for one in kept if one.above_best is not None and one.above_best <= of.course.noise]
    if alike and of.course.onset is None:
        nearest = min(alike, key=lambda one: one.above_best or 0.0)
        facts["checkpoint"] = nearest.path.name
        says = f"{where}; {nearest.path.name} of step {nearest.step:,} is less than one point's noise above it"
        return Finding("best kept", says, 0.85, facts, "good")
    left = [one for one in of.survivors if one.step is not None and one.state not in ("unreadable", "ruined")]
    left = left or [one for one in of.survivors if one.step is not None]
    nearest_step = min((one.step or 0 for one in left), key=lambda step: abs(step - found.step), default=None)
    if nearest_step is not None:
        facts["nearest"] = nearest_step
    rest = "no checkpoint is left" if nearest_step is None else f"the nearest one left is of step {nearest_step:,}"
    return Finding("best lost", f"{where}, and its checkpoint is lost: {rest}", 0.95, facts, "bad")


def divergence(of: Evidence) -> Finding | None:
    """A rise that lasts."""
    onset = of.course.onset
    if onset is None:
        return None
    level = float(of.course.trend[-1]) if len(of.course.trend) else float("nan")
    facts: Facts = {"step": onset.step, "first": onset.first, "last": onset.last, "level": level}
    says = (
        f"{of.metric} rises for good from about step {onset.step:,} (between {onset.first:,} and {onset.last:,}) and "
        f"stood at {level:.4g} in the end"
    )
    return Finding("divergence", says, onset.confidence, facts, "bad")


def spikes(of: Evidence) -> Finding | None:
    """Rises that the run came back from by itself."""
    if not of.course.spikes:
        return None
    worst = max(of.course.spikes, key=lambda one: one.height)
    says = (
        f"{len(of.course.spikes)} spikes that the run recovered from, the highest by {worst.height:.3g} from step "
        f"{worst.first:,} to {worst.last:,}: no reason to go back"
    )
    facts = {"count": len(of.course.spikes), "first": worst.first, "last": worst.last, "height": worst.height}
    return Finding("spikes recovered", says, 0.9, facts, "note")


def plateau(of: Evidence) -> Finding | None:
    start = of.course.plateau_from
    if start is None:
        return None
    end = of.course.onset.first if of.course.onset else int(of.course.series.steps[-1])
    says = f"{of.metric} has not moved by more than its noise from step {start:,} to {end:,}"
    if of.course.onset is None:
        says += "; more of the same will not lower it"
    return Finding("plateau", says, 0.8, {"from": start, "to": end}, "note")


def resume_jumps(of: Evidence) -> Finding | None:
    """The level changes where the run was resumed: what it went on with was not what it had."""
    found = [jump for jump in of.course.jumps if jump.at_resume]
    if not found:
        return None
    worst = max(found, key=lambda one: abs(one.height))
    says = (
        f"{of.metric} jumps by {worst.height:+.3g} at step {worst.step:,}, where the run was resumed ({len(found)} of "
        "them): an artefact of resuming (optimiser state, order of the data or learning rate not restored)"
    )
    facts = {"count": len(found), "step": worst.step, "height": worst.height, "resumes": len(of.history.resumes)}
    return Finding("resume jumps", says, 0.85, facts, "warning")


def data_jumps(of: Evidence) -> Finding | None:
    """The level changes from one point to the next, without a resume."""
    found = [jump for jump in of.course.jumps if not jump.at_resume]
    if not found:
        return None
    worst = max(found, key=lambda one: abs(one.height))
    length = of.facts.steps_per_epoch
    apart = [abs(jump.step / length - round(jump.step / length)) for jump in found] if length else []
    at_epochs = bool(apart) and all(jump.step > 0.5 * (length or 0) for jump in found) and max(apart) < 0.02
    cause = "where an epoch begins" if at_epochs else "without a resume: other data or another setting"
    says = f"{of.metric} jumps by {worst.height:+.3g} at step {worst.step:,} ({len(found)} such jumps), {cause}"
    facts: Facts = {"count": len(found), "step": worst.step, "height": worst.height}
    return Finding("data jumps", says, 0.6, facts, "note")
