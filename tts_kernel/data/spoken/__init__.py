"""Clips with a text in any of four languages: read from MeloTTS lists, measured once, kept ready for batches."""

from tts_kernel.data.spoken.batches import SpokenBatch, SpokenDataset
from tts_kernel.data.spoken.clips import Clips, read_clips
from tts_kernel.data.spoken.spectrograms import Spectrograms
from tts_kernel.data.spoken.store import SpokenStore

__all__ = ["Clips", "Spectrograms", "SpokenBatch", "SpokenDataset", "SpokenStore", "read_clips"]
