"""What of a run is saved, and how it comes back: the run's state with what its loop has in hand at that moment."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from tts_kernel.models.weights import CheckpointError
from tts_kernel.runs import Run
from tts_kernel.training.checkpoints import CheckpointFolder
from tts_kernel.training.checkpoints.room import full_size, size_of
from tts_kernel.training.guards import SpikeWatch
from tts_kernel.training.outcome import LoopSettings
from tts_kernel.training.progress import Interval
from tts_kernel.training.state import RunState
from tts_kernel.training.update import TakesSteps
from tts_kernel.training.used_weights import at_rest, two_kinds

log = logging.getLogger(__name__)


class Keeper:
    """Saves one run and brings it back; all processes have to call what saves, the main one writes."""

    def __init__(
        self,
        run: Run,
        state: RunState,
        settings: LoopSettings,
        updater: TakesSteps,
        interval: Interval,
        watch: SpikeWatch,
        after_save: Callable[[RunState], None] | None = None,
    ) -> None:
        """`after_save` is called by the main process with what was saved."""
        self.run, self.state, self.settings, self.after_save = run, state, settings, after_save
        self.updater, self.interval, self.watch = updater, interval, watch
        self.checkpoints = CheckpointFolder(
            run.checkpoints, settings.keep_checkpoints, settings.keep_best, background=settings.background_saves
        )
        self.saved_at = -1  # the step that latest_full.pth has, where it is this session's or was restored whole

    def check_room(self) -> None:
        """Raise CheckpointError unless all checkpoints that the run will write fit on the disk."""
        if self.state.processes.main:
            weights = self.state.model.state_dict()
            self.checkpoints.check_room(size_of(weights), full_size(weights, self.state.optimizer))

    def save(self) -> None:
        """latest_full.pth, latest.pth and the step file."""
        state, model = self.state, self.state.model
        state.now.interval, state.now.usual_loss = self.interval.steps, self.watch.state()
        state.now.updater = self.updater.state()
        weights = state.weights()
        full = state.full(weights)  # with the weights that are trained on
        if two_kinds(state.optimizer):
            with at_rest(state.optimizer):
                weights["model"] = {name: value.clone() for name, value in model.state_dict().items()}
        if state.processes.main:
            self.checkpoints.save_latest(weights, full, state.now.step, healthy=not self.watch.suspicious)
            if self.after_save is not None:
                self.after_save(state)
        self.saved_at = state.now.step

    def save_if_new(self) -> None:
        """Unless the newest save is of this step."""
        if self.saved_at != self.state.now.step:
            self.save()

    def save_best(self) -> list[str]:
        """Under every best name that the last validation beats; returns those names."""
        with at_rest(self.state.optimizer):
            weights = self.state.weights()
            if not self.state.processes.main:
                return []
            return self.checkpoints.save_best(weights, self.state.now.val_last, self.state.now.step)

    def settle(self) -> None:
        """Until everything is on the disk, and all processes know."""
        if self.state.processes.main:
            self.checkpoints.wait()
        self.state.processes.wait()

    @contextmanager
    def closing(self) -> Iterator[None]:
        """End the writing at the end of what is inside. What goes wrong there does not hide what ended the training."""
        try:
            yield
        except BaseException:
            try:
                self.checkpoints.close()
            except CheckpointError as unwritten:
                log.error("%s", unwritten)
            raise
        self.checkpoints.close()

    def resume(self) -> bool:
        """Where the folder holds a checkpoint: weights, optimiser, position and random states as they were saved.
        Raises TrainingError, naming each difference, if the run's identity changed."""
        if not self.checkpoints.begun():
            return False
        content = self.checkpoints.read_latest()
        self.state.check(content, self.run.name, self.checkpoints.folder / "latest.pth")
        self.restore(content)
        now = self.state.now
        log.info("run %s resumed at step %d of %d", self.run.name, now.step, self.state.identity["horizon"])
        same = content["settings"].get("learning_rate") == self.state.settings.get("learning_rate")
        if now.rate_scale != 1.0 and same and self.settings.on_spike == "rollback":
            log.info("the rate is x %g after %d rollbacks", now.rate_scale, now.rollbacks)
        else:
            now.rate_scale, now.rollbacks = 1.0, 0
        return True

    def restore(self, content: Mapping[str, Any]) -> None:
        """Be what was saved, the loop's part included."""
        if self.state.restore(content):
            self.saved_at = self.state.now.step
        now = self.state.now
        self.updater.parts = now.parts if self.settings.on_out_of_memory == "split" else 1
        self.updater.restore(now.updater)
        self.interval.steps = list(now.interval)
        self.watch.restore(now.usual_loss)
