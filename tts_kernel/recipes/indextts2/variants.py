"""The switches that make training faster, what the practitioners' guide claims for each, and the variants of an
ablation: the plain configuration, each switch alone, one after the other, all together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from tts_kernel.training.speed import CompileMode, missing_compiler

# The plain loop: nothing switched on. Names of the recipe's Settings.
PLAIN: dict[str, Any] = {
    "optimizer": "adamw",
    "fused_optimizer": False,
    "learning_rate": 2.0e-4,
    "length_buckets": False,
    "attention": "eager",
    "tf32": False,
    "cudnn_benchmark": False,
    "compile": "off",
    "precision": "float32",
    "gradient_checkpointing": False,
    "num_workers": 0,
    "pin_memory": False,
}


@dataclass(frozen=True)
class Switch:
    """One thing to turn on."""

    name: str
    changes: dict[str, Any]  # of the recipe's Settings
    claimed: str = ""  # by the guide, for this switch alone, on an RTX 4090
    claimed_together: str = ""  # by the guide, with all switches before it
    alone: bool = False  # left out of "all together": it trades speed for memory, or is another's alternative


@dataclass(frozen=True)
class Variant:
    name: str
    changes: dict[str, Any]  # of the recipe's Settings, on top of PLAIN
    kind: str  # plain, alone, cumulative or all
    claimed: str = ""
    why_not: str = ""  # why it cannot be measured here; empty where it can


def guide_switches(compile_mode: CompileMode, num_workers: int) -> list[Switch]:
    """In the guide's order (SYSTEMS.md, section 3)."""
    loading = {"num_workers": num_workers, "persistent_workers": True, "prefetch_factor": 2, "pin_memory": True}
    mode = "reduce-overhead" if compile_mode == "off" else compile_mode
    return [
        Switch("Prodigy", {"optimizer": "prodigy", "learning_rate": 1.0}, "1.10-1.15", "1.12"),
        Switch("torch.compile", {"compile": mode}, "1.15-1.30", "1.40"),
        Switch("fused attention", {"attention": "fused"}, "2-4 of attention", "1.96"),
        Switch("cuDNN benchmark", {"cudnn_benchmark": True}, "1.05-1.10"),
        Switch("TF32", {"tf32": True}, "1.20-1.30", "2.35"),
        Switch("DataLoader", loading, "1.20-1.30", "2.4"),
        Switch("bf16 autocast", {"precision": "bfloat16"}, "stability"),
    ]


def our_switches() -> list[Switch]:
    """Beyond the guide."""
    return [
        Switch("length buckets", {"length_buckets": True}),
        Switch("fused AdamW", {"fused_optimizer": True}),
        Switch("gradient checkpointing", {"gradient_checkpointing": True}, alone=True),
        Switch("schedule-free", {"optimizer": "schedulefree", "schedule": "constant"}, alone=True),
    ]


def claims() -> list[tuple[str, str, str]]:
    """Switch, what the guide claims for it alone, and with all before it; in its order."""
    return [(each.name, each.claimed, each.claimed_together) for each in guide_switches("off", 0)]


def why_not(switch: Switch, device: torch.device, compile_mode: CompileMode) -> str:
    """Why a switch has nothing to act on here; empty where it can be measured."""
    if switch.name in ("cuDNN benchmark", "TF32") and device.type != "cuda":
        return "needs a GPU"
    if switch.name == "TF32" and torch.cuda.get_device_capability(device) < (8, 0):
        return "this GPU has no TF32"
    if switch.name == "bf16 autocast" and not _has_bfloat16(device):
        return "no bfloat16 products here"
    if switch.name == "DataLoader" and switch.changes["num_workers"] == 0:
        return "num_workers is 0"
    if switch.name == "torch.compile":
        return "compile is off" if compile_mode == "off" else missing_compiler(device)
    return ""


def _has_bfloat16(device: torch.device) -> bool:
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.ops.mkldnn._is_mkldnn_bf16_supported()


def make_variants(device: torch.device, compile_mode: CompileMode, num_workers: int) -> list[Variant]:
    """Plain, each switch alone, the guide's one after the other, and all: the guide's, with length buckets and with
    fused AdamW in the place of Prodigy."""
    guide, ours = guide_switches(compile_mode, num_workers), our_switches()
    variants = [Variant("plain", {}, "plain")]
    for switch in [*guide, *ours]:
        reason = why_not(switch, device, compile_mode)
        variants.append(Variant(switch.name, switch.changes, "alone", switch.claimed, reason))
    together: dict[str, Any] = {}
    for number, switch in enumerate(guide):
        reason = why_not(switch, device, compile_mode)
        if not reason:
            together = together | switch.changes
        name = switch.name if number == 0 else f"+ {switch.name}"
        if number:
            variants.append(Variant(name, together, "cumulative", switch.claimed_together, reason))
    everything = {name: value for name, value in together.items() if name not in ("optimizer", "learning_rate")}
    for switch in ours:
        if not switch.alone:
            everything |= switch.changes
    variants.append(Variant("all, with fused AdamW and buckets", everything, "all"))
    return variants


def table(lines: list[dict[str, Any]]) -> str:
    """The lines of `measure` as text, claimed beside measured."""
    headers = ("", "claimed", "measured", "+-", "steps/s", "tokens/s", "GB", "val/loss", "first step", "FLOPs used")
    rows = [headers, *(_cells(line) for line in lines)]
    widths = [max(len(row[place]) for row in rows if len(row) > 3 or place < 2) for place in range(len(headers))]
    text = []
    before = ""
    for row, kind in zip(rows, ["", *(line["kind"] for line in lines)], strict=True):
        if kind != before and kind:
            text.append("")
        before = kind
        text.append("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=False)).rstrip())
    return "\n".join(text)


def _cells(line: dict[str, Any]) -> tuple[str, ...]:
    if "not_measurable" in line:
        return line["name"], line["claimed"], f"not measurable here: {line['not_measurable']}"
    memory, used = line["memory_gb"], line["utilisation"]
    return (
        line["name"],
        line["claimed"],
        f"{line['speedup']:.2f}",
        f"{line['spread']:.0%}",
        f"{line['steps_per_second']:.2f}",
        f"{line['tokens_per_second']:,.0f}",
        "not measured" if memory is None else f"{memory:.2f}",
        f"{line['val_loss']:.3f}",
        f"{line['first_step_seconds']:.1f} s",
        "" if used is None else f"{used:.1%}",
    )
