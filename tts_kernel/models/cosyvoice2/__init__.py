"""CosyVoice2: a language model from text to speech tokens, flow matching from tokens to mels, a vocoder."""
