"""IndexTTS-2 in three stages: basic TTS, speaker/emotion disentanglement by gradient reversal, fine-tuning."""

from tts_kernel.recipes.indextts2.judge import Judgement, judge
from tts_kernel.recipes.indextts2.settings import Settings
from tts_kernel.recipes.indextts2.train import Prepared, explain, prepare, train, trained_further

__all__ = ["Judgement", "Prepared", "Settings", "explain", "judge", "prepare", "train", "trained_further"]
