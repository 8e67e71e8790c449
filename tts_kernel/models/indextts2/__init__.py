"""IndexTTS-2's autoregressive model: text, speaker and emotion in, semantic codes out."""
