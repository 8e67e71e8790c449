"""What a run says and shows at each validation."""

from __future__ import annotations

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tests.tiny_spoken import Studio
from tts_kernel.training.shown import samples_of


def test_pictures_and_sounds_of_every_validation_are_in_tensorboard(finished: Studio) -> None:
    folder = finished.run().folder
    read = EventAccumulator(str(folder / "tensorboard"), size_guidance={"images": 0, "audio": 0}).Reload()
    assert [event.step for event in read.Images("all/attn")] == [0, 3, 6]
    spoken = {step for step in (0, 3, 6) if "0_kr.wav" in samples_of(folder, step)}
    assert 6 in spoken
    assert {event.step for event in read.Audio("gen/audio_0_kr")} == spoken
    assert {event.step for event in read.Images("gen/mel")} == spoken
    last = read.Audio("gen/audio_0_kr")[-1]
    assert last.sample_rate == 44_100
    assert last.encoded_audio_string == samples_of(folder, 6)["0_kr.wav"].read_bytes()


def test_a_sentence_of_every_language_is_spoken_by_one_of_the_speakers(studio: Studio) -> None:
    studio.train(max_steps=1, samples=4, validate_every=1)
    assert {name for name in samples_of(studio.run().folder, 1) if name.endswith(".wav")} == {
        "0_kr.wav", "1_en.wav", "2_zh.wav", "3_jp.wav",
    }  # fmt: skip
