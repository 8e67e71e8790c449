from __future__ import annotations

import json
from pathlib import Path

import pytest

from tts_kernel.data.pipeline import Encoder, PipelineError
from tts_kernel.data.pipeline.text import SPECIAL
from tts_kernel.text.tokenizer import train_tokenizer


def test_a_sentencepiece_model_encodes_and_is_told_from_another(tmp_path: Path) -> None:
    corpora = {9: ["a b c d", "ab"], 10: ["a b c d", "abc"]}
    tokenizers = [train_tokenizer(texts, tmp_path / f"{size}.model", size) for size, texts in corpora.items()]
    first, second = (Encoder.of(tokenizer.path) for tokenizer in tokenizers)
    assert first.encode("a b") == tokenizers[0].encode("a b")
    assert first.fingerprint != second.fingerprint


def test_a_qwen_folder_encodes_the_voices_marks_as_one_token_each(tmp_path: Path) -> None:
    letters = {letter: number for number, letter in enumerate("abcdefghĠ<|>[]/")}
    (tmp_path / "vocab.json").write_text(json.dumps(letters), encoding="utf-8")
    (tmp_path / "merges.txt").write_text("#version: 0.2\n", encoding="utf-8")
    (tmp_path / "tokenizer_config.json").write_text('{"tokenizer_class": "Qwen2Tokenizer"}', encoding="utf-8")
    encoder = Encoder.of(tmp_path)
    tokens = encoder.encode("abc[breath]d<|endofprompt|>")
    assert len(tokens) == 6
    assert len({*tokens}) == 6
    assert len(SPECIAL) == len({*SPECIAL})


def test_what_is_no_tokenizer_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PipelineError, match="no tokenizer; expected a SentencePiece model, or a folder"):
        Encoder.of(tmp_path)
    with pytest.raises(PipelineError, match="gone: no tokenizer"):
        Encoder.of(tmp_path / "gone")
