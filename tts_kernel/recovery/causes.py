"""Why a run went wrong, as far as its history tells; None where it does not.

Over-fitting and a rate that is too high look alike in the loss of a validation. They differ in the training loss, which
over-fitting lowers, and in how often the data have been seen.
"""

from __future__ import annotations

import numpy as np

from tts_kernel.recovery.evidence import Evidence, Facts, Finding

_CLIPPED = 0.9  # of the updates: clipping is then the rule, and the rate is not what is set
_SCALER_FALL = 256  # between the highest loss scale and the last: eight halvings
_ONE_EPOCH = 1.0


def over_fitting(of: Evidence) -> Finding | None:
    """Validation rises, training does not, and data are seen again: only then it is."""
    held, epochs = of.validation, of.epochs
    train = of.course if of.metric.startswith("train/") else None
    if held is None or held.onset is None or (train is not None and train.onset is not None):
        return None
    facts: Facts = {"onset": held.onset.step, "first": held.onset.first, "last": held.onset.last}
    says = (
        f"{of.held} rises for good from about step {held.onset.step:,} (between {held.onset.first:,} and "
        f"{held.onset.last:,}) while training does not"
    )
    if epochs is not None:
        facts["epochs"] = round(epochs, 3)
    if epochs is not None and epochs < _ONE_EPOCH:
        says += f"; but only {epochs:.2f} epochs were seen, so this is no over-fitting: check the validation data"
        return Finding("validation rises", says, 0.6, facts, "warning")
    says += f", after {epochs:.1f} epochs" if epochs is not None else ""
    sure = held.onset.confidence * (0.95 if epochs is not None else 0.8)
    return Finding("over-fitting", f"{says}: it over-fits; stop at the best validation", sure, facts, "bad")


def rate_too_high(of: Evidence) -> Finding | None:
    """The training loss itself rises for good, which over-fitting does not do."""
    onset = of.course.onset
    if onset is None or not of.metric.startswith("train/"):
        return None
    rate, batch, epochs = of.facts.learning_rate, of.facts.batch_size, of.epochs
    facts: Facts = {"onset": onset.step}
    sure = 0.7 * onset.confidence
    reason = "the training loss itself rises"
    if epochs is not None:
        facts["epochs"] = round(epochs, 3)
        if epochs < _ONE_EPOCH:
            reason += f", and after {epochs:.2f} epochs no pair has been seen twice, so it is not over-fitting"
            sure += 0.15
    if rate is not None:
        facts["learning_rate"] = rate
    if batch is not None:
        facts["batch_size"] = batch
    clipped = _clipped(of)
    if clipped is not None and clipped > _CLIPPED:
        reason += f", with {clipped:.0%} of the gradients clipped"
        sure += 0.05
    if _lost_before(of, onset.last):
        reason += ", though values that were not finite came first and may be the cause"
        sure -= 0.3
    named = f"the learning rate {rate:.3g}" if rate is not None else "the learning rate"
    batches = f" for batches of {batch}" if batch is not None else ""
    says = f"{reason}: {named} is too high{batches}"
    return Finding("rate too high", says, float(np.clip(sure, 0.3, 0.95)), facts, "bad")


def clipping(of: Evidence) -> Finding | None:
    share = _clipped(of)
    if share is None or share <= _CLIPPED:
        return None
    facts: Facts = {"share": share}
    limit = of.facts.grad_clip
    if limit is not None:
        facts["grad_clip"] = limit
    norms = of.history["train/grad_norm"].finite().values
    usual = ""
    if len(norms):
        facts["median_norm"] = float(np.median(norms))
        usual = f" (the usual norm is {np.median(norms):.3g}" + (f", the limit {limit:g})" if limit else ")")
    says = (
        f"{share:.0%} of the updates had their gradient clipped{usual}: all steps are equally long, whatever they met"
    )
    return Finding("clipping", says, 0.9, facts, "warning")


def precision(of: Evidence) -> Finding | None:
    """Losses or gradients that are not finite, and updates that were skipped for them."""
    lost = {name: int((~np.isfinite(series.values)).sum()) for name, series in of.history.metrics.items()}
    lost = {name: count for name, count in lost.items() if count and name.startswith(("train/", "val/"))}
    skipped = of.history["train/skipped"].finite()
    skips = int((skipped.values > 0).sum())
    if not lost and not skips:
        return None
    facts: Facts = {**lost}
    parts = []
    if lost:
        name = max(lost, key=lambda one: lost[one])
        series = of.history[name]
        first = int(series.steps[~np.isfinite(series.values)][0])
        facts["first"] = first
        parts.append(f"{lost[name]:,} of {len(series):,} values of {name} are not finite, from step {first:,} on")
    if skips:
        facts["skipped"] = skips
        parts.append(f"updates were skipped at {skips:,} logged points")
    says = "; ".join(parts) + ": precision was lost (float16 or a rate too high); use bfloat16 or float32"
    ends = of.metric in lost and not np.isfinite(of.history[of.metric].values[-1])
    return Finding("precision", says, 0.95 if ends else 0.7, facts, "bad" if ends else "warning")


def scaler(of: Evidence) -> Finding | None:
    """float16's loss scale, halved again and again."""
    series = next((of.history[name].finite() for name in of.history.metrics if _is_scale(name)), None)
    if series is None or not len(series) or series.values[-1] <= 0:
        return None
    top, last = float(series.values.max()), float(series.values[-1])
    if top / last < _SCALER_FALL and last >= 1:
        return None
    says = f"the loss scale fell from {top:,.0f} to {last:,.3g}: gradients overflow float16; use bfloat16 or float32"
    return Finding("scaler collapse", says, 0.85, {"highest": top, "last": last}, "bad")


def validation_missing(of: Evidence) -> Finding | None:
    if of.held or of.history.step < 0:
        return None
    says = (
        f"no validation was recorded in {of.history.step:,} steps: nothing tells over-fitting from learning, and no "
        "checkpoint could be kept for being the best"
    )
    return Finding("validation missing", says, 0.99, {"steps": of.history.step}, "warning")


def _clipped(of: Evidence) -> float | None:
    """The share of updates whose gradient was clipped: as logged, else by norms and limit."""
    clipped = of.history["train/clipped"].finite().values
    if len(clipped):
        return float(clipped.mean())
    norms = of.history["train/grad_norm"].finite().values
    if len(norms) and of.facts.grad_clip:
        return float((norms > of.facts.grad_clip).mean())
    return None


def _lost_before(of: Evidence, step: int) -> bool:
    series = of.history[of.metric]
    return bool((~np.isfinite(series.values) & (series.steps < step)).any())


def _is_scale(metric: str) -> bool:
    return metric.rpartition("/")[2].lower() in ("scale", "loss_scale", "grad_scale", "scaler", "scaler_scale")
