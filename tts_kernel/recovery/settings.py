"""What a decision depends on: which run, what counts, what may be done. Saved whole with it."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from tts_kernel.recovery.choice import Wishes
from tts_kernel.settings import STRICT
from tts_kernel.training.launch import Launch

Decision = Literal["auto", "phased", "restart", "rewind", "continue", "report"]
Share = Annotated[float, Field(ge=0, le=1)]
NotNegative = Annotated[float, Field(ge=0)]
Count = Annotated[int, Field(ge=0)]


@dataclass(frozen=True, config=STRICT)
class Settings:
    """One decision on one run."""

    run_name: str = ""  # of the decision's own folder; empty for recovery-<UTC time>; an existing one goes on
    damaged_run: str = ""  # a name in runs/, a folder or a log file; empty for the demo's
    metric: str = ""  # that is diagnosed; empty for the best that was logged
    checkpoints: str = ""  # folder of the run's checkpoints; empty for its own
    recipe: str = "indextts2"  # that trained the run, or is to train on from it
    recipe_settings: str = ""  # YAML file of the recipe, for a run that is not of this workbench
    base_checkpoint: str = ""  # a restart begins from it; empty for the one that the run began from
    learning_rate: NotNegative = 0.0  # of the run; 0 for what its files say
    batch_size: Count = 0  # pairs per update of the run; 0 for what its files say
    rows: Count = 0  # pairs of its manifest; 0 for what its files say
    decision: Decision = "auto"  # what to do; auto for the recommendation, report for nothing
    time_weight: NotNegative = 1.0  # that a model is there soon
    quality_weight: NotNegative = 1.0  # that its loss is low
    risk_weight: NotNegative = 1.0  # that there is one at all
    target_loss: NotNegative = 0.0  # the loss that is good enough; 0 for the best of the run
    hours_at_hand: NotNegative = 0.0  # 0 for as many as it takes
    success_probability: Share = 0.0  # of the phased way; 0 for the estimate
    judged_by: Literal["robust", "guide"] = "robust"  # the estimate after phase 1 that counts
    go_on_above: Share = 0.5  # phase 2 follows from this estimate on, a restart below it
    dry_run: bool = False  # list every step and file operation, and do none
    phase_1_steps: Count = 0  # 0 for as many as it takes to log 50 points
    demo_damage: NotNegative = 100.0  # of the demo's run: the factor on its rate that ruins it
    demo_steps: Annotated[int, Field(ge=20)] = 60  # of the demo's run before the damage, and in it
    demo_max_steps: Count = 40  # of each of the demo's trainings but phase 1; 0 for all
    launch: Launch = "inline"  # detached: a process of its own for each training
    device: Literal["auto", "cpu", "cuda"] = "auto"

    def wishes(self) -> Wishes:
        """Raises ChoiceError for weights that are all zero."""
        return Wishes(
            time=self.time_weight,
            quality=self.quality_weight,
            risk=self.risk_weight,
            target_loss=self.target_loss,
            hours=self.hours_at_hand,
            success_probability=self.success_probability,
        )

    def given(self) -> dict[str, Any]:
        """Facts of the run that the user knows better than its files."""
        values = {"learning_rate": self.learning_rate, "batch_size": self.batch_size, "rows": self.rows}
        return {name: value for name, value in values.items() if value}
