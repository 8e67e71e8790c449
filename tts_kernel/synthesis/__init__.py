"""Text to waveform from checkpoints, and the voices that a server offers."""
