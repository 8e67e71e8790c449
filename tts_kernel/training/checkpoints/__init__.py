"""Checkpoints under the guide's names: written whole or not at all, found again, kept by rule, averaged."""

from tts_kernel.training.checkpoints.averaging import average
from tts_kernel.training.checkpoints.file import save
from tts_kernel.training.checkpoints.folder import BEST, FORMAT, CheckpointFolder
from tts_kernel.training.checkpoints.random_states import random_state, set_random_state

__all__ = ["BEST", "FORMAT", "CheckpointFolder", "average", "random_state", "save", "set_random_state"]
