from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.models.cosyvoice2.tiny_models import flow
from tests.synthesis.tiny_folder import ending_llm, lora_voice, make_folder, save, seeded, trained_on
from tts_kernel.models.cosyvoice2.generation import Sampling
from tts_kernel.synthesis.embeddings import add_embedding
from tts_kernel.synthesis.speaker_config import Speaker, SpeakerError, add_speaker
from tts_kernel.synthesis.speakers import Speakers
from tts_kernel.synthesis.speech import SynthesisError


def make_speakers(folder: Path) -> Path:
    """kim and lee, and mute who is not active and whose files are gone."""
    make_folder(folder)
    path = folder / "speaker_config.json"
    for seed, name in enumerate(("kim", "lee", "mute")):
        entry = Speaker("lora", f"{name}_llm.pt", f"{name}_flow.pt", "spk2embedding.pt", "", name != "mute")
        add_speaker(path, name, entry)
        if entry.active:
            save(trained_on(ending_llm(), seed), folder / f"{name}_llm.pt")
            save(trained_on(flow(), seed), folder / f"{name}_flow.pt")
            add_embedding(folder / "spk2embedding.pt", name, lora_voice(seed).embedding)
    return path


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return make_speakers(tmp_path / "served")


def change(path: Path, name: str, **entries: Any) -> None:
    values = json.loads(path.read_text(encoding="utf-8"))
    values["speakers"][name].update(entries)
    path.write_text(json.dumps(values), encoding="utf-8")


def test_each_speaker_speaks_with_their_own_models(path: Path) -> None:
    speakers = Speakers.from_config(path)
    assert speakers.names == ["kim", "lee"]
    kim, lee = (speakers.synthesize("a dog ran.", name, seeded()) for name in ("kim", "lee"))
    assert kim.dtype == np.float32
    assert kim.ndim == 1
    assert speakers.sample_rate == 24_000
    assert kim.shape == lee.shape
    assert np.abs(kim - lee).max() > 1e-3


def test_without_a_name_the_default_speaker_speaks(path: Path) -> None:
    speakers = Speakers.from_config(path)
    default, kim = (speakers.synthesize("a dog.", name, seeded()) for name in (None, "kim"))
    assert np.array_equal(default, kim)


def test_a_stream_is_as_long_as_the_whole(path: Path) -> None:
    speakers = Speakers.from_config(path)
    pieces = list(speakers.stream("a dog ran.", "lee", seeded()))
    assert sum(map(len, pieces)) == len(speakers.synthesize("a dog ran.", "lee", seeded()))


def test_only_the_speakers_heard_last_stay_in_memory(path: Path) -> None:
    speakers = Speakers.from_config(path, kept=1)
    first = speakers.synthesize("a dog.", "kim", seeded())
    speakers.synthesize("a dog.", "lee", seeded())
    assert list(speakers._opened) == ["lee"]
    assert np.array_equal(speakers.synthesize("a dog.", "kim", seeded()), first)


def test_threads_may_speak_at_once(path: Path) -> None:
    speakers = Speakers.from_config(path, kept=1)
    expected = {name: speakers.synthesize("a dog.", name, seeded()) for name in ("kim", "lee")}
    made: list[tuple[str, np.ndarray]] = []

    def speak(name: str) -> None:
        made.append((name, speakers.synthesize("a dog.", name, seeded())))

    threads = [threading.Thread(target=speak, args=(name,)) for name in ("kim", "lee", "kim")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 3
    for name, wav in made:
        np.testing.assert_allclose(wav, expected[name], atol=1e-6)


def test_how_tokens_are_drawn_is_the_servers_choice(path: Path) -> None:
    slow = Sampling(min_token_text_ratio=4.0)
    usual, longer = (Speakers.from_config(path, sampling=given) for given in (None, slow))
    first, second = (speakers.synthesize("a dog.", "kim", seeded()) for speakers in (usual, longer))
    assert len(second) == 2 * len(first)


def test_settings_that_cannot_be_are_refused_when_the_file_is_opened(path: Path) -> None:
    with pytest.raises(SpeakerError, match="kept is 0 speakers in memory, expected at least 1"):
        Speakers.from_config(path, kept=0)
    with pytest.raises(SynthesisError, match=r"device is 'gpu' .*use auto, cpu, cuda"):
        Speakers.from_config(path, device="gpu")


def test_an_unknown_speaker_is_told_who_there_is(path: Path) -> None:
    with pytest.raises(SpeakerError, match=r"'nobody' is not in .*; it has kim, lee"):
        Speakers.from_config(path).synthesize("a dog.", "nobody")


def test_an_inactive_speaker_is_refused(path: Path) -> None:
    with pytest.raises(SpeakerError, match=r"'mute' is not active in .*take one of kim, lee"):
        Speakers.from_config(path).stream("a dog.", "mute")


def test_the_base_may_lie_elsewhere(path: Path, tmp_path: Path) -> None:
    expected = Speakers.from_config(path).synthesize("a dog.", "kim", seeded())
    base = tmp_path / "base"
    base.mkdir()
    for name in ("config.yaml", "hift.pt", "bpe.model"):
        (path.parent / name).rename(base / name)
    made = Speakers.from_config(path, base=base).synthesize("a dog.", "kim", seeded())
    assert np.array_equal(made, expected)


def test_all_that_is_wrong_is_said_at_once(path: Path) -> None:
    folder = path.parent
    (folder / "hift.pt").unlink()
    (folder / "bpe.model").unlink()
    save(flow(output_size=12), folder / "kim_flow.pt")
    torch.save({"kim": torch.ones(5), "other": torch.ones(1, 6)}, folder / "spk2embedding.pt")
    change(path, "mute", typo=1)
    with pytest.raises(SpeakerError) as raised:
        Speakers.from_config(path)
    message = str(raised.value)
    assert "speaker_config.json: 6 problems" in message
    for part in (
        "speakers.mute.typo: not a known key",
        "no tokenizer",
        "hift.pt: does not exist",
        "speakers.kim: ",
        "kim_flow.pt: does not fit this model",
        "the embedding of 'kim' has 5 values, the flow reads 6",
        "no embedding of 'lee'; it has kim, other",
    ):
        assert part in message


def test_an_adapter_that_was_never_merged_is_refused(path: Path) -> None:
    adapter = {"llm.model.model.layers.0.self_attn.q_proj.lora_A.default.weight": torch.zeros(2, 32)}
    torch.save({**ending_llm().state_dict(), **adapter}, path.parent / "kim_llm.pt")
    with pytest.raises(SpeakerError, match=r"1 problem:\n  speakers.kim: .*kim_llm.pt: holds LoRA weights"):
        Speakers.from_config(path)


def test_checking_takes_no_memory_for_weights(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    devices: set[str] = set()
    load = torch.nn.Module.load_state_dict

    def noted(self: torch.nn.Module, *given: Any, **more: Any) -> Any:
        devices.update(parameter.device.type for parameter in self.parameters())
        return load(self, *given, **more)

    monkeypatch.setattr(torch.nn.Module, "load_state_dict", noted)
    Speakers.from_config(path)
    assert devices == {"meta"}
