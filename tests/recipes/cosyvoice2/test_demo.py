from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from tts_kernel.data.voices.stand_ins import StandIns
from tts_kernel.recipes.cosyvoice2 import Settings, demo
from tts_kernel.recipes.cosyvoice2.model import fresh, read_sizes
from tts_kernel.runs import Run


@pytest.fixture
def voices(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in the place of the prepared voices, in an empty cache."""
    folder = tmp_path / "voices"
    folder.mkdir()
    StandIns(np.zeros((4, 80), np.float32), np.arange(160, dtype=np.float32), np.ones(160, np.float32)).save(
        folder / "stand_ins.npz"
    )
    (folder / "bpe.model").write_bytes(b"a tokenizer")
    monkeypatch.setenv("TTS_KERNEL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(demo.voices, "open_demo", lambda: folder)
    return folder


class Training:
    """Leaves what the recipe's own would, untrained."""

    def __init__(self) -> None:
        self.asked: list[Settings] = []

    def __call__(self, settings: Settings, run: Run) -> None:
        self.asked.append(settings)
        for name in settings.models:
            state = fresh(name, demo.SIZES).state_dict()
            if (Path(settings.base_model) / f"{name}.pt").is_file():
                state = torch.load(Path(settings.base_model) / f"{name}.pt", weights_only=True)
            torch.save(state, run.part(name).folder / "epoch_4_whole.pt")


def test_the_base_is_trained_whole_on_the_other_voices_once_and_kept(voices: Path) -> None:
    train = Training()
    base = demo.open_base(train)
    assert demo.open_base(train) == base
    (asked,) = train.asked
    assert (asked.method, asked.models) == ("full", ("llm", "flow"))
    assert (asked.data, asked.cv_data) == (str(voices / "others" / "train"), str(voices / "others" / "cv"))
    names = {path.name for path in base.iterdir()}
    assert names >= {"llm.pt", "flow.pt", "config.yaml", "bpe.model", "demo.json"}
    assert read_sizes(base) == demo.SIZES
    assert yaml.safe_load((base / "config.yaml").read_text(encoding="utf-8"))["hift"] == "griffin-lim"
    assert not list(base.parent.glob(".*"))  # nothing half built is left


def test_the_flow_begins_at_the_mean_of_the_mel(voices: Path) -> None:
    base = demo.open_base(Training())
    bias = torch.load(base / "flow.pt", weights_only=True)["decoder.estimator.final_proj.bias"]
    torch.testing.assert_close(bias, torch.arange(80.0))


def test_a_failed_training_leaves_nothing_that_would_be_taken_for_a_base(voices: Path) -> None:
    def fail(settings: Settings, run: Run) -> None:
        raise RuntimeError("no memory")

    with pytest.raises(RuntimeError, match="no memory"):
        demo.open_base(fail)
    assert not [path for path in (voices.parent / "cache").iterdir() if path.is_dir()]
    assert (demo.open_base(Training()) / "llm.pt").is_file()


def test_only_settings_without_data_get_the_voice(voices: Path) -> None:
    train = Training()
    own = Settings(data="a", cv_data="b", tokenizer="c", base_model="d")
    assert demo.fill_in(own, train) is own
    assert not train.asked
    filled = demo.fill_in(Settings(rank=3), train)
    assert filled.rank == 3
    assert filled.data == str(voices / "voice" / "train")
    assert filled == replace(filled, base_model=str(demo.open_base(train)))
