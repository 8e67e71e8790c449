"""Whose voice speaks: an embedding alone where the models have learned the voice, with a prompt where they have not."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from tts_kernel.audio.spectrogram import cosyvoice2_mel
from tts_kernel.audio.wav import Hz, resample_sinc
from tts_kernel.data.pipeline.lengths import FRAMES_PER_TOKEN, RATE
from tts_kernel.data.voices import Extractor
from tts_kernel.models.cosyvoice2.config import FlowConfig


class VoiceError(ValueError):
    """A voice that the models cannot speak with."""


@dataclass(frozen=True)
class Prompt:
    """A clip whose speech is continued."""

    text: str  # what is said in it
    tokens: Tensor  # (n,) its speech tokens
    mel: Tensor  # (frames per token * n, n_mels)


@dataclass(frozen=True)
class Voice:
    embedding: Tensor  # (spk_embed_dim,), of any length but 0
    prompt: Prompt | None = None  # None for a voice that the models learned, by LoRA or else


def voice_of_clip(wav: np.ndarray, sample_rate: Hz, text: str, extractor: Extractor) -> Voice:
    """A zero-shot voice from (samples,) in [-1, 1] and what is said there. Speech tokens and mel frames that go beyond
    the other's end are left out, as the reference does.
    Raises VoiceError where nothing is left and for an empty text."""
    problems = [] if text.strip() else ["its text is empty; write what is said in the clip"]
    tokens = extractor.tokens(wav, sample_rate)
    mel = cosyvoice2_mel().of_clip(resample_sinc(wav, sample_rate, RATE))
    count = min(len(tokens), len(mel) // FRAMES_PER_TOKEN)
    if count < 1:
        problems.append(f"{len(wav) / sample_rate:.2f} s have no speech tokens; take a clip of 3 to 30 s")
    if problems:
        raise VoiceError(f"prompt: {'; '.join(problems)}")
    prompt = Prompt(text, torch.from_numpy(tokens[:count]), torch.from_numpy(mel[: count * FRAMES_PER_TOKEN]))
    return Voice(torch.from_numpy(extractor.embedding(wav, sample_rate)), prompt)


def check_voice(voice: Voice, config: FlowConfig) -> None:
    """Raise VoiceError listing all that does not fit a model of these sizes."""
    problems = []
    if voice.embedding.shape != (config.spk_embed_dim,):
        problems.append(f"embedding has shape {list(voice.embedding.shape)}, expected [{config.spk_embed_dim}]")
    if not voice.embedding.isfinite().all() or not voice.embedding.any():
        problems.append("embedding holds NaN or infinite values, or zeros alone; extract it again")
    if voice.prompt is not None:
        tokens, mel = voice.prompt.tokens, voice.prompt.mel
        expected = (len(tokens) * config.token_mel_ratio, config.output_size)
        if mel.shape != expected:
            problems.append(f"prompt has a mel of shape {list(mel.shape)}, expected {list(expected)} for its tokens")
        if len(tokens) and not 0 <= int(tokens.min()) <= int(tokens.max()) < config.vocab_size:
            found = f"{int(tokens.min())} to {int(tokens.max())}"
            problems.append(f"prompt has speech tokens {found}, expected 0 to {config.vocab_size - 1}")
    if problems:
        raise VoiceError(f"voice: {'; '.join(problems)}")
