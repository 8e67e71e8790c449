"""MeloTTS: phones, tones, languages and a text encoder's features -> 44.1 kHz waveform (the VITS2 family)."""
