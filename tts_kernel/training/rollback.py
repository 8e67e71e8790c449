"""Back to a checkpoint from before a loss spike, at a lower rate."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from tts_kernel.models.weights import CheckpointError
from tts_kernel.training.checkpoints import CheckpointFolder
from tts_kernel.training.guards import MOST_ROLLBACKS, Spike
from tts_kernel.training.keeping import Keeper
from tts_kernel.training.outcome import TrainingError
from tts_kernel.training.state import Standing

log = logging.getLogger(__name__)


def roll_back(spike: Spike, keeper: Keeper, rate: float) -> None:
    """Restore what `content_before` finds, and multiply the run's rate by `rate`, for each rollback once more. All
    processes have to call it. Raises TrainingError where that has been tried too often or there is nothing to go back
    to."""
    was = keeper.state.now
    begun, rollbacks = was.step - spike.updates + 1, was.rollbacks + 1
    if rollbacks > MOST_ROLLBACKS:
        raise TrainingError(
            f"step {was.step}: {spike}, for the {rollbacks}th time, each at a lower rate (now x {was.rate_scale:g}); "
            f"the run stops, its checkpoints stand. Look at the data around step {begun}"
        )
    keeper.settle()
    keeper.restore(content_before(begun, spike, was, keeper.checkpoints))
    now = keeper.state.now
    now.rollbacks, now.rate_scale = rollbacks, was.rate_scale * rate
    now.spiked_at, now.rolled_back_to = begun, now.step
    log.warning("step %d: %s: rolled back to step %d; the rate is now x %g", was.step, spike, now.step, now.rate_scale)


def content_before(begun: int, spike: Spike, now: Standing, checkpoints: CheckpointFolder) -> Mapping[str, Any]:
    """The checkpoint to go back to. The loss of an update judges the weights before it, so the newest that was judged
    is older than `begun`, the first update out of range, by two; a spike that begins at the same place again was in the
    weights already, and goes back further. Raises TrainingError where there is none."""
    again = now.rollbacks > 0 and begun <= now.spiked_at + spike.updates
    try:
        try:
            return checkpoints.read_last_good(now.rolled_back_to if again else begun - 1)
        except CheckpointError:
            if not again:
                raise
            return checkpoints.read_last_good(begun - 1)
    except CheckpointError as error:
        raise TrainingError(
            f"step {now.step}: {spike}, and there is no good checkpoint to go back to ({error}); start again "
            "with a lower learning_rate, or save more often (save_every)"
        ) from error
