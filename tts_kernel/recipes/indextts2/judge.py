"""Did stage 2 work? What the emotion vectors of held-out clips tell of speaker and style, before and after."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch.utils.data import DataLoader

from tts_kernel.data.batch import PairDataset
from tts_kernel.data.sampler import BatchPlan, Position
from tts_kernel.evaluation.probe import ProbeError, ProbeResult, linear_probe
from tts_kernel.models.indextts2.gpt import UnifiedVoice
from tts_kernel.recipes.indextts2.objective import emotion_vector
from tts_kernel.runs import Run, write_atomically
from tts_kernel.training.outcome import Outcome

MOST_SPEAKER_KEPT = 0.5  # of the probe's distance to chance
LEAST_STYLE_KEPT = 0.7  # of the probe's accuracy
MOST_LOSS_RISE = 0.1  # of val/loss
MOST_CLIPS = 2000  # probed; more would only take longer

When = Literal["before", "after"]


@torch.inference_mode()
def keep_emotion_vectors(model: UnifiedVoice, data: PairDataset, rows: np.ndarray, run: Run, when: When) -> None:
    """Write emotion_<when>.npz: `vectors` (clips, model_dim) of the distinct targets among `rows`, by the path that
    training takes, with their ids, speakers and styles ("" where the manifest has none)."""
    pairs = data.manifest.take(rows)
    first = np.sort(np.unique(pairs.strings("target_id").to_pylist(), return_index=True)[1])[:MOST_CLIPS]
    rows, table = rows[first], pairs.take(first)
    # Equal lengths, so that the vectors come in the order of the rows.
    plan = BatchPlan(rows, np.zeros(len(rows), dtype=np.int64), len(rows), batch_size=16, shuffle=False)
    device = next(model.parameters()).device
    training = model.training
    model.eval()
    vectors = []
    loader: DataLoader[Any] = DataLoader(data, sampler=plan.epoch(Position()), batch_size=None)
    for batch in loader:
        vectors.append(emotion_vector(model, batch.to(device)).float().cpu().numpy())
    model.train(training)
    columns = {
        name: np.array(
            [text or "" for text in table.strings(source).to_pylist()] if source in table else [""] * len(table)
        )
        for name, source in (("clips", "target_id"), ("speakers", "speaker"), ("styles", "style"))
    }
    columns["vectors"] = np.concatenate(vectors)
    np.savez_compressed(run.folder / f"emotion_{when}.npz", **columns)  # type: ignore[arg-type]


@dataclass(frozen=True)
class Judgement:
    """The probes and what they mean. A probe is None where there was too little to measure."""

    speaker_before: ProbeResult | None
    speaker_after: ProbeResult | None
    style_before: ProbeResult | None
    style_after: ProbeResult | None
    val_loss_before: float
    val_loss_after: float
    adversary: bool  # whether the stage had one to judge
    notes: list[str]  # what was not measured, and why

    def speaker_kept(self) -> float | None:
        """Of the speaker probe's distance to chance."""
        if self.speaker_before is None or self.speaker_after is None:
            return None
        return self.speaker_after.kept(self.speaker_before)

    def style_kept(self) -> float | None:
        """Of the style probe's accuracy."""
        if self.style_before is None or self.style_after is None:
            return None
        return self.style_after.accuracy / self.style_before.accuracy

    def loss_rise(self) -> float:
        """Of val/loss; negative where it fell."""
        return self.val_loss_after / self.val_loss_before - 1.0

    def missed(self) -> list[str]:
        """The targets that were not reached, in words. A speaker that could not be probed is one of them; a corpus
        without styles is not."""
        speaker, style, rise = self.speaker_kept(), self.style_kept(), self.loss_rise()
        missed = []
        if self.adversary and speaker is None:
            missed.append("the speaker could not be probed; hold out more clips of the same speakers")
        if speaker is not None and speaker > MOST_SPEAKER_KEPT:
            missed.append(f"the speaker probe kept {speaker:.0%} of its distance to chance, at most 50% wanted")
        if style is not None and style < LEAST_STYLE_KEPT:
            missed.append(f"the style probe kept {style:.0%} of its accuracy, at least 70% wanted")
        if rise > MOST_LOSS_RISE:
            missed.append(f"val/loss rose by {rise:.1%}, less than 10% wanted")
        return missed

    def facts(self) -> dict[str, Any]:
        """Plain values for result.json."""
        return {
            **asdict(self),
            "speaker_kept": self.speaker_kept(),
            "style_kept": self.style_kept(),
            "loss_rise": self.loss_rise(),
            "missed": self.missed(),
        }

    def __str__(self) -> str:
        def probe(name: str, before: ProbeResult | None, after: ProbeResult | None) -> str:
            if before is None or after is None:
                return f"{name} probe        not measured"
            rare = f", {after.left_out} of rare {name}s left out" if after.left_out else ""
            return (
                f"{name:<7} probe   {before.accuracy:.3f} -> {after.accuracy:.3f}  (chance {after.chance:.3f}, "
                f"{after.clips} held-out clips{rare})"
            )

        lines = [
            probe("speaker", self.speaker_before, self.speaker_after),
            probe("style", self.style_before, self.style_after),
            f"val/loss        {self.val_loss_before:.3f} -> {self.val_loss_after:.3f}  ({self.loss_rise():+.1%})",
            *self.notes,
            *(f"MISSED: {text}" for text in self.missed()),
        ]
        return "\n".join(lines)


def judge(run: Run, outcome: Outcome) -> Judgement:
    """Probe the vectors that the run kept. Writes probe.json, from which the figures are drawn."""
    notes: list[str] = []
    probes: dict[str, ProbeResult | None] = {}
    for when in ("before", "after"):
        path = run.folder / f"emotion_{when}.npz"
        kept = dict(np.load(path, allow_pickle=False)) if path.exists() else {}
        for name in ("speaker", "style"):
            probes[f"{name}_{when}"] = None
            if not kept:
                notes.append(f"{name} probe not measured {when}: this stage has no adversary to judge")
                continue
            try:
                probes[f"{name}_{when}"] = linear_probe(kept["vectors"], kept[f"{name}s"].tolist())
            except ProbeError as error:
                notes.append(f"{name} probe not measured {when}: {error}")
    judgement = Judgement(
        **probes,
        val_loss_before=outcome.val_before["val/loss"],
        val_loss_after=outcome.val_after["val/loss"],
        adversary=(run.folder / "emotion_before.npz").exists(),
        notes=notes,
    )
    write_atomically(run.folder / "probe.json", json.dumps(judgement.facts(), indent=1) + "\n")
    return judgement
