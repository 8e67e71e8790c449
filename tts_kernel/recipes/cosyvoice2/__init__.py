"""CosyVoice2: an adapter on the language model and on the flow teaches them a voice."""

from tts_kernel.recipes.cosyvoice2.settings import Settings
from tts_kernel.recipes.cosyvoice2.train import Prepared, explain, prepare, published_memory, train

__all__ = ["Prepared", "Settings", "explain", "prepare", "published_memory", "train"]
