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
from tts_kernel.data.voices.onnx_files import LONGEST
from tts_kernel.data.voices.prepare import LOWEST
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
    Raises VoiceError listing all that is wrong: samples that are no sound, a rate below 16 kHz, as the reference
    refuses, a clip too short or too long for speech tokens, an empty text."""
    problems = [] if text.strip() else ["its text is empty; write what is said in the clip"]
    problems += _clip_problems(wav, sample_rate)
    if not problems:
        try:
            return _prompted(wav, sample_rate, text, extractor)
        except ValueError as error:  # too short for a window
            problems.append(f"{len(wav) / sample_rate:.2f} s: {error}; take a clip of 3 to 30 s")
    raise VoiceError(f"prompt: {'; '.join(problems)}")


def _clip_problems(wav: np.ndarray, sample_rate: Hz) -> list[str]:
    problems = []
    if sample_rate < LOWEST:
        problems.append(f"{sample_rate:,} Hz, expected {LOWEST:,} at least; record the clip again")
    if wav.ndim != 1 or not np.issubdtype(wav.dtype, np.floating):
        found = f"{wav.dtype} of shape {list(wav.shape)}"
        problems.append(f"samples are {found}, expected floats of shape [samples]; read the clip by audio.wav.read")
    elif len(wav) > LONGEST * sample_rate:
        problems.append(f"{len(wav) / sample_rate:.0f} s, expected {LONGEST:g} at most; take a clip of 3 to 30 s")
    elif not np.isfinite(wav).all():
        problems.append(f"{int((~np.isfinite(wav)).sum()):,} of {len(wav):,} samples are NaN or infinite")
    elif not wav.any():
        problems.append(f"{len(wav):,} samples of silence; nobody is heard")
    return problems


def _prompted(wav: np.ndarray, sample_rate: Hz, text: str, extractor: Extractor) -> Voice:
    """Raises ValueError where nothing is left of the clip."""
    wav = wav.astype(np.float32, copy=False)
    tokens = extractor.tokens(wav, sample_rate)
    mel = cosyvoice2_mel().of_clip(resample_sinc(wav, sample_rate, RATE))
    count = min(len(tokens), len(mel) // FRAMES_PER_TOKEN)
    if count < 1:
        raise ValueError("no speech tokens")
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
        if not mel.isfinite().all():
            problems.append("prompt has a mel with NaN or infinite values; take another clip")
        if len(tokens) and not 0 <= int(tokens.min()) <= int(tokens.max()) < config.vocab_size:
            found = f"{int(tokens.min())} to {int(tokens.max())}"
            problems.append(f"prompt has speech tokens {found}, expected 0 to {config.vocab_size - 1}")
    if problems:
        raise VoiceError(f"voice: {'; '.join(problems)}")
