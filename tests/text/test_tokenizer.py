from __future__ import annotations

from pathlib import Path

import pytest

from tts_kernel.text.tokenizer import START_TEXT, STOP_TEXT, UNKNOWN, TextTokenizer, TokenizerError, train_tokenizer

SENTENCES = [
    "오늘 날씨가 정말 좋네요.",
    "오늘은 일이 너무 많아요.",
    "The weather is really nice.",
    "今天的天气真的很好。",
    "きょうは とても いい てんきですね。",
]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> TextTokenizer:
    return train_tokenizer(SENTENCES, tmp_path_factory.mktemp("bpe") / "bpe.model", vocab_size=90)


def test_ids_0_and_1_stay_free_for_start_and_stop(tokenizer: TextTokenizer) -> None:
    assert tokenizer.tokens()[:3] == ["<s>", "</s>", "<unk>"]
    for text in [*SENTENCES, "<s>", "</s>", "<s> 오늘 </s>", "<unk>", ""]:
        assert not {START_TEXT, STOP_TEXT} & set(tokenizer.encode(text)), text


def test_every_training_sentence_survives_the_round_trip(tokenizer: TextTokenizer) -> None:
    for text in SENTENCES:
        ids = tokenizer.encode(text)
        assert UNKNOWN not in ids
        assert max(ids) < tokenizer.vocab_size
        assert tokenizer.decode(ids) == text


def test_an_unseen_letter_is_unknown(tokenizer: TextTokenizer) -> None:
    assert UNKNOWN in tokenizer.encode("Ω")


def test_size_and_pieces_agree(tokenizer: TextTokenizer) -> None:
    assert tokenizer.vocab_size == len(tokenizer.tokens()) == len(set(tokenizer.tokens())) == 90


def test_training_twice_gives_the_same_bytes(tokenizer: TextTokenizer, tmp_path: Path) -> None:
    again = train_tokenizer(SENTENCES, tmp_path / "elsewhere.model", vocab_size=90)
    assert again.path.read_bytes() == tokenizer.path.read_bytes()


@pytest.mark.parametrize("vocab_size", [10, 5_000])
def test_a_size_that_does_not_fit_is_refused_with_the_reason(tmp_path: Path, vocab_size: int) -> None:
    with pytest.raises(TokenizerError, match=f"vocabulary of {vocab_size} does not fit 5 sentences"):
        train_tokenizer(SENTENCES, tmp_path / "bpe.model", vocab_size)
    assert not list(tmp_path.iterdir())


def test_no_text_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TokenizerError, match="no text"):
        train_tokenizer(["", "  "], tmp_path / "bpe.model", 50)


def test_a_file_that_is_no_model_is_named(tmp_path: Path) -> None:
    (tmp_path / "text.model").write_text("not a model")
    (tmp_path / "empty.model").write_bytes(b"")
    for name in ("text.model", "empty.model", "absent.model"):
        with pytest.raises(TokenizerError, match=name):
            TextTokenizer(tmp_path / name)


def test_an_id_outside_the_vocabulary_is_refused(tokenizer: TextTokenizer) -> None:
    with pytest.raises(ValueError, match="outside"):
        tokenizer.decode([3, 90])
