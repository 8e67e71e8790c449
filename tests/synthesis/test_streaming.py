from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch

from tests.models.cosyvoice2.tiny_models import FLOW, HIFT, flow, vocoder
from tts_kernel.models.cosyvoice2.config import FlowConfig, HiftConfig
from tts_kernel.synthesis.streaming import StreamingVocoder, VoiceFlow, chunk_tokens, filter_reach
from tts_kernel.synthesis.voice import Prompt, Voice


def seeded(seed: int = 1) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def voice(prompt: int) -> Voice:
    embedding = torch.randn(6, generator=seeded(3))
    if not prompt:
        return Voice(embedding)
    tokens = torch.randint(0, 30, (prompt,), generator=seeded(4))
    return Voice(embedding, Prompt("so", tokens, torch.randn(2 * prompt, 8, generator=seeded(5))))


def said(count: int) -> list[int]:
    return torch.randint(0, 30, (count,), generator=seeded(6)).tolist()


@pytest.mark.parametrize("prompt", [0, 4, 7])
@pytest.mark.parametrize("count", [1, 3, 4, 7, 8, 18])
def test_mels_as_tokens_come_are_the_mel_of_all_tokens(prompt: int, count: int) -> None:
    model = VoiceFlow(flow(), voice(prompt), steps=3)
    pieces = list(model.pieces(said(count)))
    joined = torch.cat([mel for mel, _ in pieces], dim=2)
    assert joined.shape == (1, 8, 2 * count)
    torch.testing.assert_close(joined, model.mel(said(count), streaming=True), atol=1e-4, rtol=1e-4)
    assert [last for _, last in pieces] == [False] * (len(pieces) - 1) + [True]


def test_a_mel_comes_as_soon_as_a_chunk_and_its_future_are_there() -> None:
    chunk, ahead = chunk_tokens(FLOW), FLOW.pre_lookahead_len
    asked = 0

    def tokens() -> Iterator[int]:
        nonlocal asked
        for token in said(30):
            asked += 1
            yield token

    first, _ = next(VoiceFlow(flow(), voice(3), steps=1).pieces(tokens()))
    assert asked == chunk - 3 + ahead
    assert first.shape[2] == 2 * (chunk - 3)


def test_chunks_are_full_for_encoder_and_estimator() -> None:
    assert chunk_tokens(FlowConfig()) == 25
    assert chunk_tokens(FLOW) == 4
    assert chunk_tokens(replace(FLOW, estimator=replace(FLOW.estimator, static_chunk_size=12))) == 12


@pytest.mark.parametrize("cuts", [[1], [9, 30], [30, 31, 32, 45], [59]])
def test_a_mel_in_pieces_sounds_as_in_one(cuts: list[int]) -> None:
    mel = torch.randn(1, 8, 60, generator=seeded(2))
    whole = StreamingVocoder(vocoder(), seeded()).push(mel, last=True)
    stream = StreamingVocoder(vocoder(), seeded())
    pieces = mel.tensor_split(cuts, dim=2)
    made = [stream.push(piece, last=piece is pieces[-1]) for piece in pieces]
    assert len(whole) == 60 * 480
    torch.testing.assert_close(torch.cat(made), whole, atol=1e-4, rtol=0)
    assert whole.std() > 1e-3


def test_a_whole_mel_sounds_as_by_the_vocoder_itself() -> None:
    model, mel = vocoder(), torch.randn(1, 8, 20, generator=seeded(2))
    model.m_source.noise_like = lambda f0, generator=None: torch.zeros(1, f0.shape[1] * 480, 4)  # type: ignore[method-assign]
    torch.testing.assert_close(StreamingVocoder(model).push(mel, last=True), model(mel)[0][0].detach())


def test_sound_comes_before_the_mel_ends() -> None:
    stream = StreamingVocoder(vocoder(), seeded())
    held = filter_reach(HIFT) + 6
    first = stream.push(torch.randn(1, 8, held + 3, generator=seeded(2)), last=False)
    assert len(first) == 3 * 480


def test_what_is_held_back_is_less_than_half_a_second_at_the_published_size() -> None:
    assert filter_reach(HiftConfig()) == 15  # frames of 20 ms


def test_the_filter_hears_no_further_than_its_reach() -> None:
    model, reach = vocoder(), filter_reach(HIFT)
    mel, source = torch.randn(1, 8, 60, generator=seeded(2)), 0.1 * torch.randn(1, 1, 60 * 480, generator=seeded(3))
    with torch.no_grad():
        before = model.decode(mel, source)[0]
        mel[:, :, 30], source[:, :, 30 * 480 : 31 * 480] = 5.0, 0.5
        changed = (model.decode(mel, source)[0] - before).abs().view(60, 480).amax(dim=1) > 1e-7
    touched = changed.nonzero()[:, 0]
    assert 30 - reach <= int(touched.min())
    assert int(touched.max()) <= 30 + reach
    assert int(touched.max()) > 30
