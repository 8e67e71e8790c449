from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.models.cosyvoice2.tiny_models import FLOW
from tests.synthesis.tiny_folder import lora_voice, zero_shot_voice
from tts_kernel.audio.spectrogram import cosyvoice2_mel
from tts_kernel.audio.wav import Hz
from tts_kernel.models.cosyvoice2.config import FlowConfig
from tts_kernel.synthesis.voice import Prompt, Voice, VoiceError, check_voice, voice_of_clip


class Counting:
    """A token per 40 ms begun, or as many as it is told; embeddings are the clip's length."""

    def __init__(self, tokens: int | None = None) -> None:
        self.count = tokens

    def tokens(self, wav: np.ndarray, rate: Hz) -> np.ndarray:
        return np.arange(-(-len(wav) * 25 // rate) if self.count is None else self.count)

    def embedding(self, wav: np.ndarray, rate: Hz) -> np.ndarray:
        return np.full(192, len(wav), np.float32)


def tone(seconds: float, rate: Hz = 24_000) -> np.ndarray:
    return (0.3 * np.sin(2 * np.pi * 200 * np.arange(int(seconds * rate)) / rate)).astype(np.float32)


@pytest.mark.parametrize("seconds", [1.0, 1.01, 1.03])
def test_a_prompt_has_two_frames_per_token(seconds: float) -> None:
    voice = voice_of_clip(tone(seconds), 24_000, "la", Counting())
    assert voice.prompt is not None
    assert voice.prompt.tokens.tolist() == list(range(25))
    assert voice.prompt.mel.shape == (50, 80)
    check_voice(voice, FlowConfig())


def test_tokens_beyond_the_mel_and_frames_beyond_the_tokens_are_left_out() -> None:
    short, long = (voice_of_clip(tone(1.0), 24_000, "la", Counting(tokens)).prompt for tokens in (20, 30))
    assert short is not None
    assert long is not None
    assert (len(short.tokens), len(short.mel)) == (20, 40)
    assert (len(long.tokens), len(long.mel)) == (25, 50)


def test_a_prompts_mel_is_that_of_24_khz() -> None:
    voice = voice_of_clip(tone(1.0, 16_000), 16_000, "la", Counting())
    assert voice.prompt is not None
    direct = cosyvoice2_mel().of_clip(tone(1.0))
    inside = slice(5, 45)
    assert np.abs(voice.prompt.mel.numpy()[inside, :20] - direct[inside, :20]).mean() < 0.1


def test_a_clip_without_text_or_tokens_is_refused() -> None:
    with pytest.raises(VoiceError, match=r"its text is empty"):
        voice_of_clip(tone(0.5), 24_000, " ", Counting())
    with pytest.raises(VoiceError, match=r"0.50 s: no speech tokens; take a clip of 3 to 30 s"):
        voice_of_clip(tone(0.5), 24_000, "la", Counting(tokens=0))


@pytest.mark.parametrize(
    ("wav", "rate", "message"),
    [
        (tone(1.0, 8_000), 8_000, r"8,000 Hz, expected 16,000 at least"),
        (np.where(np.arange(24_000) < 7, np.nan, tone(1.0)), 24_000, r"7 of 24,000 samples are NaN or infinite"),
        (np.zeros(24_000, np.float32), 24_000, r"24,000 samples of silence"),
        (np.zeros(0, np.float32), 24_000, r"0 samples of silence"),
        ((tone(1.0) * 32767).astype(np.int16), 24_000, r"samples are int16 of shape \[24000\], expected floats"),
        (tone(1.0)[None], 24_000, r"float32 of shape \[1, 24000\], expected floats of shape \[samples\]"),
        (tone(31.0, 16_000), 16_000, r"31 s, expected 30 at most; take a clip of 3 to 30 s"),
        (tone(0.001), 24_000, r"0.00 s: .*; take a clip of 3 to 30 s"),
    ],
)
def test_a_clip_that_is_no_speech_is_refused_before_it_becomes_a_voice(wav: np.ndarray, rate: Hz, message: str) -> None:
    with pytest.raises(VoiceError, match=message):
        voice_of_clip(wav, rate, "la", Counting())


def test_all_that_is_wrong_with_a_clip_is_said_at_once() -> None:
    with pytest.raises(VoiceError, match=r"its text is empty.*8,000 Hz.*NaN"):
        voice_of_clip(np.full(8_000, np.nan, np.float32), 8_000, "", Counting())


def test_samples_of_double_precision_give_the_same_voice() -> None:
    single, double = (voice_of_clip(wav, 24_000, "la", Counting()) for wav in (tone(1.0), tone(1.0).astype(np.float64)))
    assert single.prompt is not None
    assert double.prompt is not None
    assert torch.equal(single.prompt.mel, double.prompt.mel)


def test_voices_that_fit_are_accepted() -> None:
    check_voice(lora_voice(), FLOW)
    check_voice(zero_shot_voice(), FLOW)


def test_all_that_does_not_fit_is_said_at_once() -> None:
    prompt = Prompt("so", torch.tensor([3, 30]), torch.zeros(3, 8))
    with pytest.raises(VoiceError) as raised:
        check_voice(Voice(torch.full((1, 6), torch.nan), prompt), FLOW)
    message = str(raised.value)
    for part in (
        "shape [1, 6], expected [6]",
        "embedding holds NaN",
        "mel of shape [3, 8], expected [4, 8]",
        "tokens 3 to 30",
    ):
        assert part in message


def test_a_prompt_that_is_not_finite_is_refused() -> None:
    prompt = Prompt("so", torch.tensor([3, 4]), torch.full((4, 8), torch.inf))
    with pytest.raises(VoiceError, match="prompt has a mel with NaN or infinite values"):
        check_voice(Voice(torch.ones(6), prompt), FLOW)
