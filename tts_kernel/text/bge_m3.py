"""BGE-M3, the text encoder for every language: an XLM-RoBERTa from the user's folder, read without a network.

    encoder = BGEM3(Path("bge-m3"))
    said = to_phones("안녕하세요.")
    features = encoder.of_phones(said)       # (width, phones), blanks counted

Features are kept by token, which is a tenth of what they are by phone, under a name that follows from the encoder and
the text (`key`): a sentence that changes, or another encoder, never finds old ones. Source: Chen et al., BGE
M3-Embedding (arXiv 2402.03216); the layer is the one that MeloTTS takes of its language models.
"""

from __future__ import annotations

import hashlib
import json
import pickle
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from tts_kernel.text.phones import Phones, spread, word2ph

KIND = "bge_m3"  # of the arrays in the feature store
LAYER = -3  # the third hidden state from the end: the last two layers are not run at all
CONFIG, TOKENIZER = "config.json", "tokenizer.json"
WEIGHTS = ("model.safetensors", "pytorch_model.bin")  # either; the public repository has had only the second


class EncoderError(ValueError):
    """A folder that is no BGE-M3, or a text that it cannot take; the message says what is missing."""


class Known(Protocol):
    """What has features already: `data.features.Features`."""

    def exists(self, kind: str, clips: Any) -> np.ndarray: ...


class Writer(Protocol):
    """What takes new ones: `data.features.ShardWriter`."""

    def add(self, clip: str, kind: str, array: np.ndarray) -> None: ...


@dataclass(frozen=True)
class Tokens:
    """A text as the encoder reads it, <s> and </s> included."""

    ids: tuple[int, ...]
    places: tuple[tuple[int, int], ...]  # (start, end) of each in the text


class BGEM3:
    """The tokenizer, and the weights once something is encoded."""

    def __init__(self, folder: Path, device: str = "cpu", layer: int = LAYER, half: bool = False) -> None:
        """`half` computes in float16, for a GPU. Raises EncoderError naming every file that is missing, and for a
        config.json or tokenizer.json of another kind of model."""
        self.folder, self.device, self.layer, self.half = Path(folder), device, layer, half
        _check_files(self.folder)
        self._config = _read_config(self.folder)
        hidden = self._config["num_hidden_layers"] + 1  # with the embeddings
        if not -hidden <= layer < hidden:
            raise EncoderError(
                f"layer {layer} of {folder}: it has {hidden} hidden states; expected {-hidden} to {hidden - 1}"
            )
        self._layers = layer % hidden
        self._tokenizer = _open_tokenizer(self.folder, self._config)

    @property
    def width(self) -> int:
        """Of the features; 1024 for the public model."""
        return int(self._config["hidden_size"])

    @property
    def max_tokens(self) -> int:
        """The longest text, with <s> and </s>; the embedding of positions begins after the padding's."""
        return int(self._config["max_position_embeddings"]) - int(self._config["pad_token_id"]) - 1

    @cached_property
    def identity(self) -> str:
        """Hash of the files and the layer: the same on every device. The public weights take a few seconds."""
        digest = hashlib.sha256(f"{self._layers}".encode())
        for path in (self.folder / CONFIG, self.folder / TOKENIZER, _weights(self.folder)):
            with path.open("rb") as opened:
                digest.update(hashlib.file_digest(opened, "sha256").digest())
        return digest.hexdigest()

    @property
    def fingerprint(self) -> str:
        """Hash of everything that features follow from but the text: the identity and the precision."""
        return hashlib.sha256(f"{self.identity} {self.half}".encode()).hexdigest()

    def key(self, text: str) -> str:
        """What the features of a text are called in the feature store."""
        return hashlib.sha256(f"{self.fingerprint}\n{text}".encode()).hexdigest()[:32]

    def tokens(self, text: str) -> Tokens:
        """Raises EncoderError for a text that is longer than the model's positions."""
        encoded = self._tokenizer.encode(text)
        if len(encoded.ids) > self.max_tokens:
            raise EncoderError(
                f"{text[:60]!r}... is {len(encoded.ids)} tokens, the encoder takes {self.max_tokens}; "
                "split it into sentences"
            )
        return Tokens(tuple(encoded.ids), tuple(encoded.offsets))

    def encode(
        self, texts: Sequence[str], *, batch_tokens: int = 4096, progress: bool = False
    ) -> Iterator[tuple[int, np.ndarray]]:
        """(number of the text, (tokens, width) float32 features) of every text, in no order: those of one length
        together, `batch_tokens` in a batch with the padding."""
        from tqdm.auto import tqdm

        tokens = [self.tokens(text) for text in texts]
        with tqdm(total=len(texts), desc="text features", unit="text", disable=not progress) as bar:
            for numbers in _batches([len(item.ids) for item in tokens], batch_tokens):
                hidden = self._run([tokens[number].ids for number in numbers])
                for row, number in enumerate(numbers):
                    yield number, np.ascontiguousarray(hidden[row, : len(tokens[number].ids)])
                bar.update(len(numbers))

    def of_text(self, text: str) -> np.ndarray:
        """(tokens, width) float32."""
        return next(self.encode([text]))[1]

    def of_phones(self, said: Phones, hidden: np.ndarray | None = None, *, blanks: bool = True) -> np.ndarray:
        """(width, phones) of a sentence, from its (tokens, width) features or, without them, computed now.
        Raises EncoderError if the features are not of this text."""
        counts = word2ph(said, self.tokens(said.text).places, blanks=blanks)
        hidden = self.of_text(said.text) if hidden is None else hidden
        if hidden.shape != (len(counts), self.width):
            raise EncoderError(
                f"{said.text[:60]!r}: features of shape {hidden.shape}, expected {(len(counts), self.width)}; "
                "they are of another text or encoder, make them again"
            )
        return spread(hidden, counts)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "_model"}

    def _run(self, rows: Sequence[Sequence[int]]) -> np.ndarray:
        import torch

        padding = int(self._config["pad_token_id"])
        ids = torch.full((len(rows), max(map(len, rows))), padding)
        for row, values in enumerate(rows):
            ids[row, : len(values)] = torch.tensor(values)
        ids = ids.to(self.device)
        with torch.inference_mode():
            hidden = self._model(input_ids=ids, attention_mask=(ids != padding).long()).last_hidden_state
        return np.asarray(hidden.float().cpu().numpy())

    @cached_property
    def _model(self) -> Any:
        import torch
        from safetensors import SafetensorError
        from transformers import XLMRobertaConfig, XLMRobertaModel

        load: Any = XLMRobertaModel.from_pretrained  # its annotation knows no loading report
        config = XLMRobertaConfig(**self._config | {"num_hidden_layers": self._layers})
        try:
            with quiet_transformers():
                model, report = load(
                    self.folder,
                    config=config,
                    add_pooling_layer=False,
                    dtype=torch.float16 if self.half else torch.float32,
                    use_safetensors=_weights(self.folder).name == WEIGHTS[0],
                    local_files_only=True,
                    output_loading_info=True,
                )
        except (SafetensorError, RuntimeError, OSError, EOFError, pickle.UnpicklingError) as error:
            raise EncoderError(
                f"{_weights(self.folder)}: cannot be read ({error}); was it downloaded whole?"
            ) from error
        if report["missing_keys"] or report["mismatched_keys"]:
            names = sorted([*report["missing_keys"], *(str(item) for item in report["mismatched_keys"])])
            raise EncoderError(
                f"{_weights(self.folder)}: {len(names)} weights are missing or of another size, such as {names[:3]}; "
                "take the weights and the config.json of the same model"
            )
        return model.eval().requires_grad_(False).to(self.device)


def cache_features(
    encoder: BGEM3,
    texts: Iterable[str],
    known: Known,
    shard: AbstractContextManager[Writer],
    *,
    batch_tokens: int = 4096,
    progress: bool = True,
) -> int:
    """Compute the features of the texts that `known` does not have, each text once, into a new shard; how many there
    were. The shard is not opened if there are none."""
    import pyarrow as pa

    names = {encoder.key(text): text for text in texts}
    there = known.exists(KIND, pa.array(list(names), pa.large_string()))
    missing = [name for name, has in zip(names, there, strict=True) if not has]
    if missing:
        with shard as writer:
            wanted = [names[name] for name in missing]
            for number, hidden in encoder.encode(wanted, batch_tokens=batch_tokens, progress=progress):
                writer.add(missing[number], KIND, hidden)
    return len(missing)


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Without the list of layers that are left out and the bars for files that take a second."""
    from transformers.utils import logging

    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()


def _batches(lengths: Sequence[int], batch_tokens: int) -> Iterator[list[int]]:
    """Numbers of the texts, longest first, so that what is too large for the memory fails at once."""
    batch: list[int] = []
    longest = 0
    for number in sorted(range(len(lengths)), key=lambda number: -lengths[number]):
        if batch and longest * (len(batch) + 1) > batch_tokens:
            yield batch
            batch = []
        longest = longest if batch else lengths[number]
        batch.append(number)
    if batch:
        yield batch


def _weights(folder: Path) -> Path:
    return next(folder / name for name in WEIGHTS if (folder / name).is_file())


def _check_files(folder: Path) -> None:
    missing = [name for name in (CONFIG, TOKENIZER) if not (folder / name).is_file()]
    if not any((folder / name).is_file() for name in WEIGHTS):
        missing.append(" or ".join(WEIGHTS))
    if missing:
        what = "misses" if folder.is_dir() else "is no folder; expected one with"
        raise EncoderError(
            f"{folder}: {what} {', '.join(missing)}; download BAAI/bge-m3 completely, or take the demo's encoder"
        )


def _read_config(folder: Path) -> dict[str, Any]:
    try:
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        kind = config.get("model_type")
        names = ("hidden_size", "num_hidden_layers", "max_position_embeddings", "pad_token_id", "vocab_size")
        absent = [name for name in names if not isinstance(config.get(name), int)]
    except (ValueError, AttributeError) as error:
        raise EncoderError(f"{folder / CONFIG}: not a model's configuration ({error}); copy it again") from error
    if kind != "xlm-roberta" or absent:
        raise EncoderError(
            f"{folder / CONFIG}: model_type {kind!r}, without {absent}; expected 'xlm-roberta' as in BAAI/bge-m3"
        )
    return dict(config)


def _open_tokenizer(folder: Path, config: dict[str, Any]) -> Any:
    from tokenizers import Tokenizer

    path = folder / TOKENIZER
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # tokenizers raises nothing narrower
        raise EncoderError(f"{path}: not a tokenizer ({error}); was it downloaded whole?") from error
    tokenizer.no_truncation()
    tokenizer.no_padding()
    ends = [token for token in tokenizer.encode("a").tokens if token in ("<s>", "</s>")]
    if ends != ["<s>", "</s>"] or tokenizer.get_vocab_size() > config["vocab_size"]:
        raise EncoderError(
            f"{path}: puts {ends} around a text and has {tokenizer.get_vocab_size()} tokens; expected <s> and </s> "
            f"and at most the {config['vocab_size']} of {CONFIG}; take the files of the same model"
        )
    return tokenizer
