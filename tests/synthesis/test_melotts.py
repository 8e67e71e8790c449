from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.synthesis.tiny_melotts import (
    FRAMES_PER_TOKEN,
    RATE,
    SIZES,
    SPEAKERS,
    make_folder,
    make_model,
    write_config,
    write_model,
)
from tests.tiny_spoken import Studio
from tts_kernel.audio import wav as audio
from tts_kernel.models.melotts.config_values import read_commented_json
from tts_kernel.models.melotts.text_encoder import Text
from tts_kernel.synthesis.melotts import TTS
from tts_kernel.synthesis.speech import FADE, PAUSE, SynthesisError
from tts_kernel.text.bge_m3 import BGEM3, EncoderError
from tts_kernel.text.phones import to_ids, to_phones
from tts_kernel.text.symbols import LANGUAGE_IDS, MELOTTS

RECORDED = Path(__file__).parents[1] / "fixtures" / "parity" / "melotts"
MIXED = "오늘 meeting은 3시에 있어요."
IN_LANGUAGES = {"ko": "안녕하세요.", "en": "Good morning.", "zh": "早上好。", "ja": "おはよう。"}
PLAIN: dict[str, Any] = {"sdp_ratio": 0.0, "noise_scale": 0.0, "noise_scale_w": 0.0, "seed": 1}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_folder(tmp_path_factory.mktemp("melotts"))


@pytest.fixture(scope="module")
def tts(folder: Path) -> TTS:
    return TTS(folder, folder / "config.json", "cpu", bert=folder / "bge-m3")


@contextmanager
def heard(tts: TTS) -> Iterator[list[Text]]:
    """What the model is given to say."""
    texts: list[Text] = []
    model = tts.generator.model
    handle = model.enc_p.register_forward_pre_hook(lambda _, inputs: texts.append(inputs[0]))
    try:
        yield texts
    finally:
        handle.remove()


def test_speech_is_sound_of_the_expected_length_and_level(tts: TTS) -> None:
    speech = tts.synthesize(IN_LANGUAGES["ko"], "MINJI", sdp_ratio=0.0)
    (said,) = speech.sentences
    assert speech.wav.dtype == np.float32
    assert len(speech.wav) == (2 * len(said) + 1) * FRAMES_PER_TOKEN * SIZES.samples_per_frame
    assert np.isfinite(speech.wav).all()
    assert np.abs(speech.wav).max() <= 1.0
    assert np.sqrt((speech.wav**2).mean()) > 1e-3
    assert speech.sample_rate == RATE
    assert speech.seconds == len(speech.wav) / RATE
    assert speech.real_time_factor == pytest.approx(speech.took / speech.seconds)


def test_the_real_time_factor_is_logged(tts: TTS, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="tts_kernel.synthesis.melotts"):
        tts.synthesize("Hi.", "Ann")
    assert "(real-time factor " in caplog.text


@pytest.mark.parametrize("speed", [0.5, 2.0])
def test_duration_is_proportional_to_one_by_speed(tts: TTS, speed: float) -> None:
    text = f"{IN_LANGUAGES['ko']} {IN_LANGUAGES['en']}"
    plain, changed = (tts.synthesize(text, "MINJI", speed=value, **PLAIN).seconds for value in (1.0, speed))
    assert changed == pytest.approx(plain / speed)


def test_the_same_seed_gives_the_same_speech_and_another_gives_another(tts: TTS) -> None:
    first, again, other = (tts.synthesize(MIXED, "MINJI", seed=seed).wav for seed in (3, 3, 4))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_what_was_said_before_changes_nothing(tts: TTS) -> None:
    first = tts.synthesize(MIXED, "MINJI", seed=3).wav
    tts.synthesize(IN_LANGUAGES["ja"], "Ann", speed=1.5)
    torch.manual_seed(11)
    assert np.array_equal(first, tts.synthesize(MIXED, "MINJI", seed=3).wav)


def test_a_seed_that_was_drawn_says_the_same_again(tts: TTS) -> None:
    drawn, other = (tts.synthesize("Hi.", "Ann") for _ in range(2))
    assert drawn.seed != other.seed
    assert np.array_equal(drawn.wav, tts.synthesize("Hi.", "Ann", seed=drawn.seed).wav)


def test_noise_scales_change_voice_and_rhythm(tts: TTS) -> None:
    plain = tts.synthesize("Hi.", "Ann", **PLAIN).wav
    voice = tts.synthesize("Hi.", "Ann", **PLAIN | {"noise_scale": 1.0}).wav
    rhythm = tts.synthesize("Hi.", "Ann", **PLAIN | {"noise_scale_w": 2.0, "sdp_ratio": 1.0}).wav
    assert len(voice) == len(plain)
    assert not np.array_equal(voice, plain)
    assert len(rhythm) != len(plain)


def test_a_sentence_is_what_the_model_makes_of_it_with_its_ends_faded(tts: TTS) -> None:
    said = to_phones("Hi.")
    ids = to_ids(said)
    assert tts.encoder is not None
    phones, tones, languages, features = (
        torch.from_numpy(value)[None] for value in (ids.phones, ids.tones, ids.languages, tts.encoder.of_phones(said))
    )
    text = Text(phones, torch.tensor([phones.shape[1]]), tones, languages, features)
    sound = tts.generator.model.infer(text, torch.tensor([2]), generator=torch.Generator().manual_seed(5)).audio[0]
    wav, edge = tts.synthesize("Hi.", "MINJI", seed=5).wav, int(FADE * RATE)
    np.testing.assert_array_equal(wav[edge:-edge], sound.numpy()[edge:-edge])
    assert wav[0] == wav[-1] == 0.0


def test_sentences_are_joined_with_pauses_that_follow_the_speed(tts: TTS) -> None:
    parts = [tts.synthesize(text, "Ann", speed=0.5, **PLAIN).wav for text in ("One.", "Two.", "Three.")]
    joined = tts.synthesize("One. Two.\nThree.", "Ann", speed=0.5, **PLAIN).wav
    pause = np.zeros(int(PAUSE / 0.5 * RATE), np.float32)
    np.testing.assert_array_equal(joined, np.concatenate([parts[0], pause, parts[1], pause, parts[2]]))


@pytest.mark.parametrize("language", IN_LANGUAGES)
def test_every_speaker_speaks_every_language(tts: TTS, language: str) -> None:
    speeches = {name: tts.synthesize(IN_LANGUAGES[language], name, **PLAIN) for name in SPEAKERS}
    for speech in speeches.values():
        assert set(speech.sentences[0].languages) == {language}
    assert len({speech.wav.tobytes() for speech in speeches.values()}) == len(SPEAKERS)


def test_a_mixed_sentence_is_said_in_one_go_with_the_language_of_each_phone(tts: TTS) -> None:
    with heard(tts) as texts:
        speech = tts.synthesize(MIXED, "MINJI")
    (said,), (text,) = speech.sentences, texts
    assert set(said.languages) == {"ko", "en"}
    assert set(text.languages[0, 1::2].tolist()) == {LANGUAGE_IDS["ko"], LANGUAGE_IDS["en"]}
    assert text.features.shape == (1, SIZES.bert_channels, 2 * len(said) + 1)
    assert text.features.any(dim=1).all()


def test_sentences_of_one_text_are_each_in_their_language(tts: TTS) -> None:
    speech = tts.synthesize(f"{IN_LANGUAGES['ko']} {IN_LANGUAGES['en']} {IN_LANGUAGES['zh']} 15.", "MINJI")
    assert [said.language for said in speech.sentences] == ["ko", "en", "zh", "ko"]  # digits follow the whole text


def test_chinese_characters_alone_are_read_as_the_text_around_them(tts: TTS) -> None:
    speech = tts.synthesize("これはペンです。東京。", "MINJI")
    assert [said.language for said in speech.sentences] == ["ja", "ja"]


@pytest.mark.parametrize("name", ["JP", "ja", "Japanese"])
def test_a_language_that_is_given_wins(tts: TTS, name: str) -> None:
    (said,) = tts.synthesize("東京", "MINJI", language=name).sentences
    assert said.language == "ja"


def test_a_speaker_is_known_by_name_or_number(tts: TTS) -> None:
    by_name, by_number = (tts.synthesize("Hi.", speaker, **PLAIN).wav for speaker in ("7", 3))
    assert np.array_equal(by_name, by_number)


@pytest.mark.parametrize("speaker", ["Minji", "", "0", 1, 7, -1, True, 2.0])
def test_an_unknown_speaker_is_refused_with_the_known_ones(tts: TTS, speaker: str | int) -> None:
    with pytest.raises(SynthesisError, match=r"no speaker of the model.*'MINJI' \(2\), 'Ann' \(0\), '7' \(3\)"):
        tts.synthesize("Hi.", speaker)


def test_a_config_without_names_leaves_the_numbers(folder: Path, tmp_path: Path) -> None:
    path = write_model(tmp_path / "G_1.pth")
    config = write_config(tmp_path / "config.json", speakers={})
    nameless = TTS(path, config, "cpu", bert=folder / "bge-m3")
    assert nameless.synthesize("Hi.", 1).seconds > 0
    for speaker in ("MINJI", 4):
        with pytest.raises(SynthesisError, match=r"the numbers 0 to 3, as .*config\.json has no names"):
            nameless.synthesize("Hi.", speaker)


def test_the_wav_file_holds_the_speech_and_nothing_else_is_left(tts: TTS, tmp_path: Path) -> None:
    path = tmp_path / "new" / "hello.wav"
    speech = tts.synthesize("Hi.", "Ann", str(path))
    read, rate = audio.read(path)
    assert rate == RATE
    np.testing.assert_allclose(read, speech.wav, atol=1 / 32_768)
    assert list(path.parent.iterdir()) == [path]


def test_a_text_that_is_refused_writes_nothing(tts: TTS, tmp_path: Path) -> None:
    with pytest.raises(SynthesisError):
        tts.synthesize("Привет.", "Ann", tmp_path / "new" / "hello.wav")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("text", ["", " \n ", "…?!", "-- «»", "😀👍🏽", "😀!\n🎉."])
def test_a_text_that_says_nothing_is_refused(tts: TTS, text: str) -> None:
    with pytest.raises(SynthesisError, match="nothing to say in it; expected at least one letter or digit"):
        tts.synthesize(text, "Ann")


def test_signs_without_sound_are_left_out_and_named(tts: TTS, caplog: pytest.LogCaptureFixture) -> None:
    speech = tts.synthesize("Hi 😀 there. 🎉!! Bye.", "Ann", **PLAIN)
    assert speech.left_out == ("😀", "🎉")
    assert [said.text for said in speech.sentences][-1] == "Bye."
    assert "left out, for they have no sound: 😀 🎉" in caplog.text
    assert len(speech.wav) == len(tts.synthesize("Hi there. Bye.", "Ann", **PLAIN).wav)


@pytest.mark.parametrize("text", ["Привет.", "I said привет to her.", "안녕 привет"])
def test_letters_that_nobody_can_say_are_refused(tts: TTS, text: str) -> None:
    with pytest.raises(SynthesisError, match=r"cannot say .*'в'.*expected Korean, English, Chinese or Japanese"):
        tts.synthesize(text, "Ann")


@pytest.mark.parametrize("language", ["FR", "english?", "  x"])
def test_an_unknown_language_is_refused(tts: TTS, language: str) -> None:
    with pytest.raises(SynthesisError, match="expected KR, EN, ZH or JP"):
        tts.synthesize("Hi.", "Ann", language=language)


def test_digits_alone_need_a_language(tts: TTS) -> None:
    with pytest.raises(SynthesisError, match="no letter shows its language; pass KR, EN, ZH or JP"):
        tts.synthesize("15", "Ann")
    assert tts.synthesize("15", "Ann", language="KR").sentences[0].language == "ko"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"speed": 0.0}, "speed is 0.0, expected above 0"),
        ({"speed": float("nan")}, "speed is nan"),
        ({"sdp_ratio": 1.5}, "sdp_ratio is 1.5, expected 0 to 1"),
        ({"noise_scale": -1.0}, "noise_scale is -1.0, expected at least 0"),
        ({"noise_scale_w": float("inf")}, "noise_scale_w is inf"),
        ({"speed": "fast"}, "speed is 'fast', expected above 0"),
        ({"sdp_ratio": True}, "sdp_ratio is True"),
        ({"seed": -1}, "seed is -1, expected a whole number of at least 0"),
        ({"seed": 1.5}, "seed is 1.5"),
        ({"seed": 2**63}, "seed is 9223372036854775808"),
        ({"output_path": f"{__file__}/hello.wav"}, r"test_melotts\.py is a file; expected a folder there"),
        ({"output_path": "speech.mp3"}, r"speech\.mp3, expected the name of a \.wav file"),
    ],
)
def test_a_setting_out_of_range_is_refused(tts: TTS, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(SynthesisError, match=message):
        tts.synthesize("Hi.", "Ann", **changes)


def test_all_problems_are_said_at_once(tts: TTS) -> None:
    with pytest.raises(SynthesisError) as caught:
        tts.synthesize("Привет. Hi. Пока.", "Bo", "a.mp3", speed=-1)
    assert [word for word in ("'Bo'", "speed", "mp3", "'Привет.'", "'Пока.'") if word not in str(caught.value)] == []


def test_an_empty_text_is_told_beside_an_unknown_speaker(tts: TTS) -> None:
    with pytest.raises(SynthesisError, match=r"(?s)'Bo' is no speaker.*nothing to say"):
        tts.synthesize("", "Bo")


def test_a_long_text_is_said_in_parts_that_fit(tts: TTS) -> None:
    text = "무궁화 꽃이 피었습니다 " * 100
    with heard(tts) as texts:
        speech = tts.synthesize(text, "MINJI", **PLAIN | {"speed": 20.0})
    assert len(texts) == len(speech.sentences) > 5
    assert "".join(said.text for said in speech.sentences).replace(" ", "") == text.replace(" ", "")


def test_a_sentence_without_end_is_refused_and_named(tts: TTS) -> None:
    with pytest.raises(SynthesisError, match=r"'Hi\.'.*expected at most 20000"):
        tts.synthesize("Hi.", "Ann", speed=1e-4)


def test_sound_that_is_not_finite_is_refused(folder: Path, tmp_path: Path) -> None:
    state = make_model().state_dict() | {"dec.conv_pre.bias": torch.full((8,), torch.nan)}
    torch.save({"model": state}, tmp_path / "G_1.pth")
    damaged = TTS(tmp_path, folder / "config.json", "cpu", bert=folder / "bge-m3")
    with pytest.raises(SynthesisError, match="NaN or infinite"):
        damaged.synthesize("Hi.", "Ann")


def test_a_public_model_speaks_without_an_encoder(tmp_path: Path) -> None:
    sizes = replace(SIZES, n_vocab=len(MELOTTS), ja_bert_channels=5)
    write_model(tmp_path / "G_1.pth", make_model(sizes))
    config = write_config(tmp_path / "config.json", symbols=MELOTTS, sizes=sizes)
    public = TTS(tmp_path, config, "cpu")
    converted = str(public.generator.report)
    assert "2 dropped: enc_p.ja_bert_proj.weight, enc_p.ja_bert_proj.bias (added to enc_p.bert_proj.bias)" in converted
    with heard(public) as texts:
        public.synthesize("값이 2만 원이에요.", "MINJI")
    assert not texts[0].features.any()


@pytest.mark.slow
def test_a_public_file_of_the_full_size_speaks(tmp_path: Path) -> None:
    """Names and shapes of layout_full, in the dictionary that MeloTTS writes and beside a config.json as it has."""
    case = json.loads((RECORDED / "layout_full" / "case.json").read_text(encoding="utf-8"))
    draws = torch.Generator().manual_seed(1)
    state = {f"module.{name}": 0.02 * torch.randn(shape, generator=draws) for name, shape, _ in case["state"]["G"]}
    state["module.dp.proj.bias"].fill_(1.0)
    torch.save({"model": state, "iteration": 3, "optimizer": {}, "learning_rate": 3e-4}, tmp_path / "checkpoint.pth")
    sizes = case["config"]["G"]
    top = {name: sizes[name] for name in ("num_tones", "num_languages")}
    of_others = {"n_vocab", "spec_channels", "segment_size", "n_speakers", *top}
    values = {
        "train": {"segment_size": 16_384},
        "data": {"sampling_rate": 44_100, "n_speakers": 256, "spk2id": {"KR": 0}, "disable_bert": True},
        "model": {name: value for name, value in sizes.items() if name not in of_others},
        "symbols": list(MELOTTS),
    }
    (tmp_path / "config.json").write_text(json.dumps(values | top), encoding="utf-8")
    public = TTS(tmp_path / "checkpoint.pth", tmp_path / "config.json", "cpu")
    assert public.generator.report.loaded == len(state) - 2
    assert public.generator.report.dropped[0] == case["absent_in_variant"][0]
    speech = public.synthesize("안녕.", "KR", sdp_ratio=0.0, seed=1)
    assert speech.seconds > 0.1
    assert speech.sample_rate == 44_100


def test_a_language_that_the_checkpoint_has_no_rows_for_is_refused(folder: Path, tmp_path: Path) -> None:
    write_model(tmp_path / "G_1.pth", make_model(replace(SIZES, num_tones=11, num_languages=4)))
    older = TTS(tmp_path, folder / "config.json", "cpu", bert=folder / "bge-m3")
    assert older.synthesize("Hi.", "Ann").seconds > 0
    with pytest.raises(SynthesisError, match="tone 11 and language 4, the checkpoint has 11 tones and 4 languages"):
        older.synthesize("안녕.", "Ann")


def test_phones_that_the_checkpoint_does_not_know_are_refused_by_name(folder: Path, tmp_path: Path) -> None:
    names = tuple(name for name in MELOTTS if name != "ᆫ")
    write_model(tmp_path / "G_1.pth", make_model(replace(SIZES, n_vocab=len(names))))
    config = write_config(tmp_path / "config.json", symbols=names)
    older = TTS(tmp_path, config, "cpu", bert=folder / "bge-m3")
    with pytest.raises(SynthesisError, match=r"'안녕\.': the phones \['ᆫ'\] are not in the checkpoint's table of 218"):
        older.synthesize("안녕. Hi.", "Ann")


def test_the_encoder_of_the_training_is_needed(folder: Path, tmp_path: Path) -> None:
    alone = write_model(tmp_path / "alone" / "G_1.pth")
    with pytest.raises(SynthesisError, match="no folder bge-m3 lies beside it; pass bert, the folder of BAAI/bge-m3"):
        TTS(alone, write_config(tmp_path / "alone" / "config.json"), "cpu")
    write_model(tmp_path / "G_1.pth", make_model(replace(SIZES, bert_channels=24)))
    config = write_config(tmp_path / "config.json", bert_channels=24)
    with pytest.raises(SynthesisError, match="16 wide, the model reads 24"):
        TTS(tmp_path, config, "cpu", bert=folder / "bge-m3")


def test_another_encoder_than_that_of_the_training_is_refused(folder: Path, tmp_path: Path) -> None:
    write_model(tmp_path / "G_1.pth")
    config = tmp_path / "config.json"
    for identity in (BGEM3(folder / "bge-m3").identity, "0123456789abcdef"):
        values = read_commented_json(folder / "config.json") | {"text_encoder": identity}
        config.write_text(json.dumps(values), encoding="utf-8")
        if identity[:4] != "0123":
            assert TTS(tmp_path, config, "cpu", bert=folder / "bge-m3").synthesize("Hi.", "Ann").seconds > 0
    with pytest.raises(
        SynthesisError, match=r"another text encoder \(\w{12}\) than .* \(0123456789ab, text_encoder in"
    ):
        TTS(tmp_path, config, "cpu", bert=folder / "bge-m3")


def test_the_encoder_beside_the_model_is_taken_where_none_is_named(folder: Path, tts: TTS) -> None:
    found = TTS(folder, folder / "config.json", "cpu")
    assert np.array_equal(*(voice.synthesize("Hi.", "Ann", seed=1).wav for voice in (found, tts)))


def test_a_run_names_the_encoder_of_its_training(folder: Path, tmp_path: Path) -> None:
    write_model(tmp_path / "run" / "checkpoints" / "G_latest.pth")
    config = write_config(tmp_path / "run" / "checkpoints" / "config.json")
    settings = {"data": "voices", "encoder": str(folder / "bge-m3")}
    (tmp_path / "run" / "settings.json").write_text(json.dumps(settings), encoding="utf-8")
    assert TTS(tmp_path / "run", config, "cpu").synthesize("Hi.", "Ann").seconds > 0


@pytest.mark.slow
def test_what_the_recipe_trained_speaks(tmp_path: Path) -> None:
    studio = Studio(tmp_path)
    studio.train(max_steps=1, samples=0)
    run = studio.run()
    trained = TTS(run.folder, run.checkpoints / "config.json", "cpu")
    assert trained.encoder is not None
    assert trained.encoder.folder == studio.encoder
    speech = trained.synthesize(MIXED, "S1", tmp_path / "said.wav", seed=1)
    assert set(speech.sentences[0].languages) == {"ko", "en"}
    assert speech.sample_rate == audio.read(tmp_path / "said.wav")[1] == 44_100


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "model.safetensors"])
def test_a_file_that_the_encoder_lacks_is_named(folder: Path, tmp_path: Path, name: str) -> None:
    incomplete = Path(shutil.copytree(folder / "bge-m3", tmp_path / "bge-m3"))
    (incomplete / name).unlink()
    with pytest.raises(EncoderError, match=rf"misses {name}.*download BAAI/bge-m3 completely"):
        TTS(folder, folder / "config.json", "cpu", bert=incomplete)


def test_damaged_weights_of_the_encoder_are_told_at_once(folder: Path, tmp_path: Path) -> None:
    damaged = Path(shutil.copytree(folder / "bge-m3", tmp_path / "bge-m3"))
    weights = damaged / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(EncoderError, match="was it downloaded whole"):
        TTS(folder, folder / "config.json", "cpu", bert=damaged)


@pytest.mark.parametrize("device", ["gpu", "cuda:99"])
def test_a_device_that_is_not_there_is_refused(folder: Path, device: str) -> None:
    with pytest.raises(SynthesisError, match=rf"device is '{device}' .*use auto, cpu, cuda"):
        TTS(folder, folder / "config.json", device, bert=folder / "bge-m3")
