"""Waveforms, spectrograms and semantic units."""
