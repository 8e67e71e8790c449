from __future__ import annotations

import re
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.data.voices import fake_onnx
from tts_kernel.data.voices import OnnxError, OnnxExtractor

GOOD = {"speech_tokenizer_v2.onnx": fake_onnx.tokenizer(), "campplus.onnx": fake_onnx.encoder()}


def test_tokens_and_embeddings_have_the_shapes_of_the_columns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_onnx.install(monkeypatch, GOOD)
    extractor = OnnxExtractor(*fake_onnx.files(tmp_path))
    wav = np.random.default_rng(0).normal(0, 0.1, 3 * 24_000).astype(np.float32)
    tokens, embedding = extractor.tokens(wav, 24_000), extractor.embedding(wav, 24_000)
    assert (tokens.shape, tokens.dtype) == ((75,), np.int64)
    assert (embedding.shape, embedding.dtype) == ((192,), np.float32)


def test_more_than_thirty_seconds_have_no_tokens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_onnx.install(monkeypatch, GOOD)
    extractor = OnnxExtractor(*fake_onnx.files(tmp_path))
    assert len(extractor.tokens(np.zeros(30 * 16_000, np.float32), 16_000)) == 750
    assert len(extractor.tokens(np.zeros(30 * 16_000 + 1, np.float32), 16_000)) == 0


def test_a_clip_on_which_the_runtime_fails_is_an_error_of_that_clip(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    good = fake_onnx.encoder()

    def run(input: np.ndarray) -> np.ndarray:
        if input.shape[1] > 250:
            raise RuntimeError("Non-zero status code returned\nmore")
        return good.run(input)

    fake_onnx.install(monkeypatch, GOOD | {"campplus.onnx": fake_onnx.Model(good.inputs, run)})
    extractor = OnnxExtractor(*fake_onnx.files(tmp_path))
    assert extractor.embedding(np.ones(2 * 16_000, np.float32), 16_000).shape == (192,)
    with pytest.raises(OnnxError, match=r"onnxruntime fails on it \(Non-zero status code returned\)"):
        extractor.embedding(np.ones(3 * 16_000, np.float32), 16_000)


def test_both_missing_files_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_onnx.install(monkeypatch, GOOD)
    with pytest.raises(OnnxError) as caught:
        OnnxExtractor(tmp_path / "a.onnx", tmp_path / "b.onnx")
    assert "a.onnx: no such file; expected speech_tokenizer_v2.onnx" in str(caught.value)
    assert "b.onnx: no such file; expected campplus.onnx" in str(caught.value)


def test_a_missing_runtime_says_how_to_install_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(OnnxError, match=r'pip install "tts_kernel\[onnx\]"'):
        OnnxExtractor(*fake_onnx.files(tmp_path))


@pytest.mark.parametrize(
    ("name", "model", "reason"),
    [
        ("speech_tokenizer_v2.onnx", fake_onnx.tokenizer(50), "makes 100 tokens of 2 s, expected 50: is it .*_v1"),
        ("speech_tokenizer_v2.onnx", fake_onnx.tokenizer(step=200), "makes tokens 0 to 9800, expected 0 to 6560"),
        ("speech_tokenizer_v2.onnx", fake_onnx.tokenizer(mels=80), r"takes feats tensor\(float\) \[1, 80, 'T'\]"),
        ("speech_tokenizer_v2.onnx", fake_onnx.encoder(), "it is another model or version"),
        ("campplus.onnx", fake_onnx.tokenizer(), "takes feats .*, feats_length .*; campplus.onnx takes"),
        ("campplus.onnx", fake_onnx.encoder(512), "makes embeddings of 512 values, expected 192"),
        ("campplus.onnx", None, r"cannot be opened \(Protobuf parsing failed\.\); was it downloaded whole"),
    ],
)
def test_another_model_or_version_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, model: fake_onnx.Model | None, reason: str
) -> None:
    models = {key: value for key, value in (GOOD | {name: model}).items() if value is not None}
    fake_onnx.install(monkeypatch, models)
    with pytest.raises(OnnxError, match=rf"{re.escape(name)}: .*{reason}"):
        OnnxExtractor(*fake_onnx.files(tmp_path))
