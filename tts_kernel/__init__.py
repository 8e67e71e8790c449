"""tts_kernel: a workbench for fine-tuning open text-to-speech models. Import the room you need; see README."""
