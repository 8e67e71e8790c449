"""SentencePiece tokenizers: the public `bpe.model` of IndexTTS-2, or one trained here.

IndexTTS-2 puts its own start (0) and stop (1) around every text, so a tokenizer trained here keeps these two ids as
control symbols, which text never encodes to; unknown characters are id 2.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterable
from pathlib import Path

START_TEXT, STOP_TEXT, UNKNOWN = 0, 1, 2


class TokenizerError(ValueError):
    """A tokenizer that cannot be trained or opened; the message names its file."""


class TextTokenizer:
    """A SentencePiece model file; any kind (BPE, unigram), any layout of special ids."""

    def __init__(self, path: Path) -> None:
        """Raises TokenizerError if the file is missing or is not a SentencePiece model."""
        from sentencepiece import SentencePieceProcessor

        self.path = Path(path)
        if not self.path.is_file():
            raise TokenizerError(f"{path}: no such file; expected a SentencePiece model, for example bpe.model")
        self._pieces = SentencePieceProcessor()
        try:
            self._pieces.LoadFromSerializedProto(self.path.read_bytes())
            size = self._pieces.GetPieceSize()
        except (RuntimeError, ValueError) as error:
            raise TokenizerError(f"{path}: not a SentencePiece model ({error}); was it downloaded whole?") from error
        if size == 0:
            raise TokenizerError(f"{path}: a SentencePiece model without pieces; was it downloaded whole?")

    @property
    def vocab_size(self) -> int:
        """Number of ids, special ones included."""
        return self._pieces.GetPieceSize()

    @property
    def unknown_id(self) -> int:
        """What a character outside the vocabulary becomes."""
        return self._pieces.unk_id()

    def encode(self, text: str) -> list[int]:
        """Text -> ids, without start and stop."""
        return self._pieces.EncodeAsIds(text)

    def decode(self, ids: Iterable[int]) -> str:
        """Ids -> text; control symbols vanish. Raises ValueError for an id outside the vocabulary."""
        ids = [int(item) for item in ids]
        outside = [item for item in ids if not 0 <= item < self.vocab_size]
        if outside:
            raise ValueError(f"ids {outside[:5]} are outside {self.path.name}; expected 0 to {self.vocab_size - 1}")
        return self._pieces.DecodeIds(ids)

    def tokens(self) -> list[str]:
        """The piece of every id, in order: what an embedding is extended by when the tokenizer grows."""
        return [self._pieces.IdToPiece(item) for item in range(self.vocab_size)]


def train_tokenizer(sentences: Iterable[str], model_path: Path, vocab_size: int) -> TextTokenizer:
    """Train a BPE model of exactly `vocab_size` ids on `sentences`, covering every character, and write it.

    One thread and no shuffling, so the same sentences give the same bytes.
    Raises TokenizerError, with SentencePiece's reason, if the size does not fit the text.
    """
    from sentencepiece import SentencePieceTrainer

    model_path = Path(model_path)
    texts = [text for text in sentences if text.strip()]
    if not texts:
        raise TokenizerError(f"{model_path}: no text to train on; expected at least one sentence that is not blank")
    model = io.BytesIO()
    try:
        SentencePieceTrainer.train(
            sentence_iterator=iter(texts),
            model_writer=model,
            model_type="bpe",
            vocab_size=vocab_size,
            character_coverage=1.0,
            bos_id=START_TEXT,
            eos_id=STOP_TEXT,
            unk_id=UNKNOWN,
            pad_id=-1,
            num_threads=1,
            shuffle_input_sentence=False,
            minloglevel=2,  # SentencePiece writes its progress to stderr otherwise
        )
    except RuntimeError as error:
        raise TokenizerError(
            f"{model_path}: a vocabulary of {vocab_size} does not fit {len(texts)} sentences with "
            f"{len(set(''.join(texts)))} distinct characters: {error}"
        ) from error
    temporary = model_path.with_name(f".{model_path.name}.{os.getpid()}.tmp")
    temporary.write_bytes(model.getvalue())
    os.replace(temporary, model_path)
    return TextTokenizer(model_path)
