from __future__ import annotations

import json
from pathlib import Path

import pytest

from tts_kernel.recipes.melotts import demo
from tts_kernel.synthesis.melotts_encoder import find_encoder


@pytest.fixture
def run(tmp_path: Path) -> Path:
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    return tmp_path / "run"


def found(run: Path, config: Path | None = None) -> Path | None:
    return find_encoder(run / "checkpoints" / "G_3.pth", config or run / "checkpoints" / "config.json")


@pytest.mark.parametrize("place", ["configs", "run/checkpoints", "run", "."])
def test_it_lies_beside_the_config_or_the_checkpoint_or_above(run: Path, place: str) -> None:
    folder = run.parent / place / "bge-m3"
    folder.mkdir(parents=True)
    assert found(run, run.parent / "configs" / "config.json") == folder


def test_a_run_knows_the_encoder_of_its_training(run: Path, tmp_path: Path) -> None:
    (run / "settings.json").write_text(json.dumps({"data": "voices", "encoder": str(tmp_path / "own")}))
    assert found(run) == tmp_path / "own"


def test_a_run_on_the_demo_corpus_has_the_demo_s(run: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(demo, "open_demo", lambda: tmp_path / "demo")
    (run / "settings.json").write_text(json.dumps({"data": "", "encoder": ""}))
    assert found(run) == tmp_path / "demo" / "bge-m3"


@pytest.mark.parametrize("content", ["{}", "[]", "no json", '{"data": "voices", "encoder": ""}'])
def test_else_there_is_none(run: Path, content: str) -> None:
    assert found(run) is None
    (run / "settings.json").write_text(content)
    assert found(run) is None
