"""Training in this process, in one of its own that outlives kernel and browser, or in several."""

from tts_kernel.training.launch.session import Session, find
from tts_kernel.training.launch.start import Launch, claimed, start, train

__all__ = ["Launch", "Session", "claimed", "find", "start", "train"]
