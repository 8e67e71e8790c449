"""MeloTTS with BGE-M3: speech in four languages from one text encoder, trained against discriminators."""

from tts_kernel.recipes.melotts.settings import Settings
from tts_kernel.recipes.melotts.train import Prepared, explain, prepare, train

__all__ = ["Prepared", "Settings", "explain", "prepare", "train"]
