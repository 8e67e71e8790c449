"""A diagnosis and a choice as plain text, for a notebook, a log and a terminal."""

from __future__ import annotations

from tts_kernel.recovery.choice import Choice, Weighed
from tts_kernel.recovery.diagnosis import Diagnosis
from tts_kernel.recovery.options import Option


def survivors(diagnosis: Diagnosis) -> str:
    """Plain text: step, file, state, loss and how far it is above the best."""
    if not diagnosis.survivors:
        return "no checkpoint is left"
    lines = [f"{'step':>9}  {'file':<22} {'state':<10} {'loss':>7}  {'above best':>10}  why"]
    for one in diagnosis.survivors:
        step = "?" if one.step is None else f"{one.step:,}"
        loss = "?" if one.loss is None else f"{one.loss:.3f}"
        above = "?" if one.above_best is None else f"{one.above_best:+.3f}"
        lines.append(f"{step:>9}  {one.path.name:<22} {one.state:<10} {loss:>7}  {above:>10}  {one.why}")
    return "\n".join(lines)


def findings(diagnosis: Diagnosis) -> str:
    """Plain text, a finding a line, the worst first."""
    order = ("bad", "warning", "note", "good")
    found = sorted(diagnosis.findings, key=lambda one: order.index(one.severity))
    return (
        "\n".join(f"{one.severity:<8} {one.says} (rule of thumb {one.confidence:.2f})" for one in found)
        or "nothing found"
    )


def ways_out(choice: Choice) -> str:
    """Plain text, the best first, with the reasons for its figures."""
    lines = []
    for row in choice.weighed:
        option = row.option
        lines.append(f"{row.score:.2f}  {option.title}")
        if option.impossible:
            lines.append(f"      not possible: {option.impossible}")
            continue
        lines.append(f"      chance {row.chance:.0%} ({option.success.source}: {option.success.says}); {_time(row)}")
        if option.loss:
            lines.append(f"      final loss {option.loss.low:.3g} to {option.loss.high:.3g}: {option.loss_says}")
        lines += [f"      {_leg(option)}", *(f"      + {text}" for text in option.pros)]
        lines += [f"      - {text}" for text in option.cons]
    return "\n".join(lines)


def _time(row: Weighed) -> str:
    if row.hours is None:
        return "time unknown (no throughput was logged)"
    text = f"{row.hours:.3g} h expected"
    if row.option.hours is not None:
        text += f" ({row.option.hours.low:.3g} to {row.option.hours.high:.3g} h if nothing goes wrong)"
    if row.hours_failure is not None and row.hours_success is not None:
        text += f", {row.hours_success:.3g} h if it works, {row.hours_failure:.3g} h if not"
    return text + ("" if row.fits else "; more than the hours at hand")


def _leg(option: Option) -> str:
    return "; ".join(
        f"{leg.name}: {leg.steps:,} steps at {leg.rate:.3g} x the rate, warm-up {leg.warmup:,}, clip {leg.grad_clip:g}"
        + (f", batches x {leg.batch}" if leg.batch != 1 else "")
        for leg in option.legs
    )
