"""An onnxruntime whose models are functions: only what `OnnxExtractor` asks of one."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest


@dataclass(frozen=True)
class Model:
    """What a file holds."""

    inputs: list[SimpleNamespace]
    run: Callable[..., np.ndarray]


def port(name: str, kind: str, *shape: int | str) -> SimpleNamespace:
    return SimpleNamespace(name=name, type=f"tensor({kind})", shape=list(shape))


def tokenizer(per_second: int = 25, mels: int = 128, step: int = 7) -> Model:
    def run(feats: np.ndarray, feats_length: np.ndarray) -> np.ndarray:
        assert feats.dtype == np.float32
        assert feats.shape == (1, mels, feats_length[0])
        return (np.arange(-(-int(feats_length[0]) * per_second // 100)) * step)[None]

    return Model([port("feats", "float", 1, mels, "T"), port("feats_length", "int32", 1)], run)


def encoder(width: int = 192, mels: int = 80) -> Model:
    def run(input: np.ndarray) -> np.ndarray:
        assert input.shape[::2] == (1, mels)
        return np.resize(input[0].std(axis=0), width)[None]

    return Model([port("input", "float", "B", "T", mels)], run)


def install(monkeypatch: pytest.MonkeyPatch, models: dict[str, Model]) -> None:
    """Make `import onnxruntime` find it; `models` by file name."""

    class InferenceSession:
        def __init__(self, path: str, sess_options: Any, providers: list[str]) -> None:
            if Path(path).name not in models:
                raise RuntimeError("Protobuf parsing failed.\nmore")
            self.model = models[Path(path).name]

        def get_inputs(self) -> list[SimpleNamespace]:
            return self.model.inputs

        def run(self, names: None, values: dict[str, np.ndarray]) -> list[np.ndarray]:
            return [self.model.run(**values)]

    module = ModuleType("onnxruntime")
    module.InferenceSession = InferenceSession  # type: ignore[attr-defined]
    module.SessionOptions = SimpleNamespace  # type: ignore[attr-defined]
    module.get_available_providers = lambda: ["CPUExecutionProvider"]  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "onnxruntime", module)


def files(folder: Path) -> tuple[Path, Path]:
    """Two files to open."""
    paths = folder / "speech_tokenizer_v2.onnx", folder / "campplus.onnx"
    for path in paths:
        path.write_bytes(b"onnx")
    return paths
