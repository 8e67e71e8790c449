"""Text to tokens, as the pipeline takes it: a function and a fingerprint, so that counted lengths can be kept."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tts_kernel.data.pipeline.processors import PipelineError
from tts_kernel.text.tokenizer import TextTokenizer

# What CosyVoice2 adds to Qwen2's tokenizer, in this order: they are ids of the published text embedding.
SPECIAL = ["<|im_start|>", "<|im_end|>", "<|endofprompt|>", "[breath]", "<strong>", "</strong>", "[noise]"]
SPECIAL += ["[laughter]", "[cough]", "[clucking]", "[accent]", "[quick_breath]", "<laughter>", "</laughter>"]
SPECIAL += ["[hissing]", "[sigh]", "[vocalized-noise]", "[lipsmack]", "[mn]"]
_FILES = ("tokenizer.json", "tokenizer_config.json", "vocab.json", "merges.txt")  # of a Qwen2 tokenizer


@dataclass(frozen=True)
class Encoder:
    """Text -> token ids."""

    encode: Callable[[str], list[int]]
    fingerprint: str  # equal ones give equal tokens
    name: str

    @classmethod
    def of(cls, path: Path) -> Encoder:
        """A SentencePiece model file, or the folder of a Qwen2 tokenizer such as CosyVoice-BlankEN.
        Raises PipelineError, or the tokenizer's own error, naming the path."""
        path = Path(path)
        if path.is_file():
            fingerprint = hashlib.sha256(path.read_bytes()).hexdigest()
            return cls(TextTokenizer(path).encode, fingerprint, path.name)
        files = [path / name for name in _FILES if (path / name).is_file()]
        if not files:
            raise PipelineError(
                f"{path}: no tokenizer; expected a SentencePiece model, or a folder with {' or '.join(_FILES[::2])}"
            )
        from transformers import AutoTokenizer

        tokenizer = AutoTokenizer.from_pretrained(path, local_files_only=True)
        tokenizer.add_special_tokens(
            {"eos_token": "<|endoftext|>", "pad_token": "<|endoftext|>", "additional_special_tokens": SPECIAL}
        )
        digest = hashlib.sha256("\0".join(SPECIAL).encode())
        for file in files:
            digest.update(file.read_bytes())
        return cls(tokenizer.encode, digest.hexdigest(), path.name)
