from __future__ import annotations

import itertools
import logging
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from tests.models.cosyvoice2.tiny_models import LLM, flow, llm, vocoder
from tests.synthesis.tiny_folder import (
    PER_LETTER,
    SHORT,
    TEXT,
    encode,
    ending_llm,
    lora_voice,
    make_folder,
    save,
    seeded,
    speaking_llm,
    synthesizer,
    trained_on,
    zero_shot_voice,
)
from tts_kernel.models.cosyvoice2.generation import Sampling
from tts_kernel.synthesis import cosyvoice2
from tts_kernel.synthesis.cosyvoice2 import LONGEST, Synthesizer
from tts_kernel.synthesis.griffin_lim import GriffinLim
from tts_kernel.synthesis.speech import PAUSE, SynthesisError
from tts_kernel.synthesis.streaming import VoiceFlow
from tts_kernel.synthesis.voice import Voice, VoiceError

SAMPLES_PER_LETTER = PER_LETTER * 960
SAMPLES_PER_PAUSE = int(PAUSE * 24_000)
CRAMPED = replace(LLM.qwen2, max_position_embeddings=64)
VOICES = {"lora": lora_voice(), "zero-shot": zero_shot_voice()}
each_voice = pytest.mark.parametrize("voice", VOICES.values(), ids=VOICES)


@each_voice
def test_speech_is_sound_of_the_expected_length_and_level(voice: Voice) -> None:
    speech = synthesizer().speak("a dog ran.", voice, seeded())
    assert speech.wav.dtype == np.float32
    assert speech.sample_rate == 24_000
    assert len(speech.wav) == 7 * SAMPLES_PER_LETTER
    assert np.isfinite(speech.wav).all()
    assert 1e-3 < np.sqrt((speech.wav**2).mean()) < 0.9
    assert np.mean(np.abs(speech.wav) >= 0.98) < 0.01  # hardly clipped
    assert speech.seconds == pytest.approx(7 * PER_LETTER / 25)
    assert speech.real_time_factor == pytest.approx(speech.took / speech.seconds)


@each_voice
def test_the_same_seed_gives_the_same_speech_and_another_gives_another(voice: Voice) -> None:
    model = synthesizer()
    first, again, other = (model.speak("a dog.", voice, seeded(seed)).wav for seed in (1, 1, 2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


@each_voice
def test_a_stream_is_as_long_as_the_whole_and_as_its_seed_says(voice: Voice) -> None:
    model = synthesizer()
    pieces = list(model.stream(TEXT[:14], voice, seeded()))
    assert len(pieces) > 3
    assert all(len(piece) for piece in pieces)
    joined = np.concatenate(pieces)
    assert joined.dtype == np.float32
    assert len(joined) == len(model.speak(TEXT[:14], voice, seeded()).wav)
    assert np.array_equal(joined, np.concatenate(list(model.stream(TEXT[:14], voice, seeded()))))


@each_voice
def test_a_stream_has_no_clicks_where_its_pieces_meet(voice: Voice, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its samples, joints included, are those of one pass over all tokens; the flow sees these in chunks in both."""
    model, mel = synthesizer(), VoiceFlow.mel
    pieces = list(model.stream(TEXT[:14], voice, seeded()))
    monkeypatch.setattr(VoiceFlow, "mel", lambda self, tokens: mel(self, tokens, streaming=True))
    whole = model.speak(TEXT[:14], voice, seeded()).wav
    np.testing.assert_allclose(np.concatenate(pieces), whole, atol=1e-4)


def test_by_griffin_lim_a_stream_is_the_whole_part_by_part() -> None:
    """Without a vocoder of its own, as the demo speaks."""
    voice, text = lora_voice(), "a big dog ran. did you see it?"
    model = synthesizer(llm=speaking_llm(qwen2=CRAMPED), flow=flow(output_size=80), vocoder=GriffinLim(iterations=2))
    pieces = list(model.stream(text, voice, seeded()))
    assert [len(piece) for piece in pieces] == [10 * SAMPLES_PER_LETTER, SAMPLES_PER_PAUSE, 11 * SAMPLES_PER_LETTER]
    assert np.array_equal(np.concatenate(pieces), model.speak(text, voice, seeded()).wav)
    assert np.abs(pieces[0][[0, -1]]).max() == 0.0
    assert np.abs(pieces[0]).max() > 1e-2


def test_sound_comes_before_the_last_token(monkeypatch: pytest.MonkeyPatch) -> None:
    model, asked = speaking_llm(), 0
    forward = model.llm_decoder.forward

    def counted(x: torch.Tensor) -> torch.Tensor:
        nonlocal asked
        asked += 1
        return forward(x)

    monkeypatch.setattr(model.llm_decoder, "forward", counted)
    next(synthesizer(llm=model).stream("a big dog ran", lora_voice(), seeded()))
    assert 0 < asked < 24  # of 40


def test_long_text_is_spoken_sentence_by_sentence_and_no_letter_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[list[int]] = []
    model = synthesizer(llm=speaking_llm(qwen2=CRAMPED))
    embed = model.llm.text_embedding.forward

    def heard(ids: torch.Tensor) -> torch.Tensor:
        asked.append(ids.tolist())
        return embed(ids)

    monkeypatch.setattr(model.llm.text_embedding, "forward", heard)
    long = "a big dog ran. did you see it? yes, i did, and then it was so far off that no one saw it!"
    speech = model.speak(long, lora_voice(), seeded())
    assert [token for ids in asked for token in ids] == encode(long)
    assert len(asked) > 2
    assert max(map(len, asked)) <= 12  # what fits 64 positions with its speech tokens
    assert len(speech.wav) == len(encode(long)) * SAMPLES_PER_LETTER + (len(asked) - 1) * SAMPLES_PER_PAUSE


def test_parts_are_no_longer_than_the_reference_speaks() -> None:
    model = synthesizer(sampling=Sampling(max_token_text_ratio=1.0, min_token_text_ratio=0.0))
    parts = model._parts("a big dog ran. " * 40, lora_voice())
    assert max(len(ids) for _, ids, _ in parts) <= LONGEST
    assert sum(len(ids) for _, ids, _ in parts) == 40 * 10


def test_the_parts_of_a_long_text_meet_in_silence() -> None:
    model = synthesizer(llm=speaking_llm(qwen2=CRAMPED))
    wav = model.speak("a big dog ran. did you see it?", lora_voice(), seeded()).wav
    joint = len(encode("a big dog ran.")) * SAMPLES_PER_LETTER
    assert np.abs(wav[[0, -1]]).max() == 0.0
    assert np.abs(wav[joint - 1 : joint + SAMPLES_PER_PAUSE + 1]).max() == 0.0
    assert min(np.abs(part).max() for part in (wav[:joint], wav[joint + SAMPLES_PER_PAUSE :])) > 1e-2


@pytest.mark.parametrize("pause", [0.0, 0.5])
def test_the_pause_between_parts_is_as_long_as_asked_in_a_stream_too(pause: float) -> None:
    model = synthesizer(llm=speaking_llm(qwen2=CRAMPED), pause=pause)
    text = "a big dog ran. did you see it?"
    samples = len(encode(text)) * SAMPLES_PER_LETTER + int(24_000 * pause)
    assert len(model.speak(text, lora_voice(), seeded()).wav) == samples
    pieces = list(model.stream(text, lora_voice(), seeded()))
    assert sum(map(len, pieces)) == samples
    assert all(len(piece) for piece in pieces)


def test_an_untimely_end_is_reported(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        speech = synthesizer().speak("a dog.", lora_voice(), seeded())
    assert speech.cut == ("a dog.",)
    assert "cut after 16 speech tokens" in caplog.text
    speech = synthesizer(llm=ending_llm()).speak("a dog.", lora_voice(), seeded())
    assert speech.cut == ()
    assert len(speech.wav) == 2 * SAMPLES_PER_LETTER


def test_the_time_that_a_listener_takes_does_not_count(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    ticks = itertools.count()  # a second passes whenever the clock is read
    monkeypatch.setattr(cosyvoice2, "time", SimpleNamespace(perf_counter=lambda: float(next(ticks))))
    with caplog.at_level(logging.INFO):
        pieces = 0
        for _ in synthesizer().stream("a dog.", lora_voice(), seeded()):
            pieces += 1
            next(ticks)  # the listener's second
    assert f"0.6 s of speech in {pieces + 1:.1f} s (real-time factor {(pieces + 1) / 0.64:.2f})" in caplog.text


def test_a_model_in_training_speaks_as_in_eval_mode_and_goes_on_training() -> None:
    model = synthesizer()
    before = model.speak("a dog.", lora_voice(), seeded()).wav
    for part in (model.llm, model.flow, model.vocoder):
        part.train()
    assert np.array_equal(model.speak("a dog.", lora_voice(), seeded()).wav, before)
    assert model.llm.training
    assert model.flow.encoder.training
    stream = model.stream("a dog.", lora_voice(), seeded())
    next(stream)
    del stream
    assert model.flow.training


def test_the_voice_is_heard() -> None:
    model = synthesizer()
    spoken = [model.speak("a dog.", voice, seeded()).wav for voice in (lora_voice(3), lora_voice(4), zero_shot_voice())]
    assert np.abs(spoken[0] - spoken[1]).max() > 1e-3
    assert np.abs(spoken[0] - spoken[2]).max() > 1e-3


def test_a_folder_opens_and_speaks_as_its_models_do(tmp_path: Path) -> None:
    opened = Synthesizer.open(make_folder(tmp_path / "model"), sampling=SHORT)
    built = synthesizer(llm=ending_llm(), encode=opened.encode, steps=opened.steps)
    made, expected = (model.speak("a dog ran.", lora_voice(), seeded()).wav for model in (opened, built))
    np.testing.assert_allclose(made, expected, atol=1e-6)


def test_merged_checkpoints_are_taken_by_path(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "model")
    merged = save(trained_on(ending_llm()), tmp_path / "epoch_29_whole.pt", epoch=29, step=900)
    flowed = save(trained_on(flow()), tmp_path / "epoch_83_whole.pt", epoch=83, step=900)
    base = Synthesizer.open(folder, sampling=SHORT)
    voiced = Synthesizer.open(folder, llm=merged, flow=flowed, sampling=SHORT)
    first, second = (model.speak("a dog ran.", lora_voice(), seeded()).wav for model in (base, voiced))
    assert len(first) == len(second)
    assert np.abs(first - second).max() > 1e-3


def test_all_that_is_wrong_with_a_folder_is_said_at_once(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "model")
    (folder / "bpe.model").unlink()
    (folder / "hift.pt").unlink()
    adapter = {"llm.model.model.layers.0.self_attn.q_proj.lora_A.default.weight": torch.zeros(2, 32)}
    torch.save({**speaking_llm().state_dict(), **adapter}, folder / "llm.pt")
    save(flow(output_size=12), folder / "flow.pt")
    with pytest.raises(SynthesisError) as raised:
        Synthesizer.open(folder)
    message = str(raised.value)
    assert "4 problems" in message
    for part in ("no tokenizer", "hift.pt: does not exist", "llm.pt: holds LoRA weights that were never merged"):
        assert part in message
    assert "flow.pt: does not fit this model" in message


def test_models_of_different_sizes_are_refused() -> None:
    with pytest.raises(SynthesisError, match=r"llm says 30 speech tokens, flow knows 20; flow makes 12 mel bands"):
        Synthesizer(llm(), flow(vocab_size=20, output_size=12), vocoder(), encode)
    with pytest.raises(SynthesisError, match=r"steps is 0, expected at least 1; pause is -1 s, expected at least 0"):
        synthesizer(steps=0, pause=-1)


def test_a_voice_that_does_not_fit_is_refused() -> None:
    with pytest.raises(VoiceError, match=r"embedding has shape \[5\], expected \[6\]"):
        synthesizer().speak("a dog.", Voice(torch.ones(5)))


def test_text_and_prompts_that_cannot_be_spoken_are_refused() -> None:
    model = synthesizer()
    with pytest.raises(SynthesisError, match="nothing to say"):
        model.speak(" ... ", lora_voice())
    with pytest.raises(SynthesisError, match="leaves room for 1 more"):
        model.speak("a dog.", zero_shot_voice(tokens=240))
    with pytest.raises(SynthesisError, match="ids up to 99, the llm knows 50"):
        synthesizer(encode=lambda text: [99]).speak("a dog.", lora_voice())


def test_a_model_that_says_nothing_is_an_error() -> None:
    silent = llm()
    with torch.no_grad():
        silent.llm_decoder.bias[silent.stop_tokens.start + 2] = 1e3
    as_the_reference = replace(SHORT, ends="any")
    with pytest.raises(SynthesisError, match="before its first speech token"):
        synthesizer(llm=silent, sampling=as_the_reference).speak("a dog.", lora_voice(), seeded())


def test_a_model_that_wishes_for_more_text_speaks_to_the_end() -> None:
    wishing = ending_llm()
    with torch.no_grad():
        wishing.llm_decoder.bias[wishing.stop_tokens.start + 2] = 2e3
    speech = synthesizer(llm=wishing).speak("a dog.", lora_voice(), seeded())
    assert speech.cut == ()
    assert len(speech.wav) == 4 * SAMPLES_PER_LETTER // 2


def test_a_damaged_language_model_is_an_error() -> None:
    damaged = speaking_llm()
    with torch.no_grad():
        damaged.llm_decoder.bias[2] = torch.nan
    with pytest.raises(SynthesisError, match=r"'a dog.': the language model says NaN"):
        synthesizer(llm=damaged).speak("a dog.", lora_voice(), seeded())


def test_sound_that_is_not_finite_is_an_error() -> None:
    damaged = vocoder()
    with torch.no_grad():
        damaged.f0_predictor.classifier.weight[0, 0] = torch.nan
    with pytest.raises(SynthesisError, match=r"'a dog.': the models made NaN"):
        synthesizer(vocoder=damaged).speak("a dog.", lora_voice(), seeded())
