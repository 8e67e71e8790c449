"""A stand-in for BGE-M3: the same architecture and files, small, with random weights and its own tokenizer.

What it tells apart is only which tokens a text has and where; it lets everything run that the public model does.
"""

from __future__ import annotations

import io
import os
import shutil
import uuid
from collections.abc import Iterable
from pathlib import Path

from tts_kernel.text.bge_m3 import TOKENIZER, WEIGHTS, EncoderError, quiet_transformers


def make_demo_encoder(
    folder: Path,
    sentences: Iterable[str],
    *,
    seed: int = 1,
    width: int = 1024,
    layers: int = 3,
    heads: int = 16,
    vocab_size: int = 600,
    max_tokens: int = 1024,
) -> Path:
    """Make the files of an encoder in `folder`, with a tokenizer trained on `sentences`, and return it. The weights
    follow from the seed and the sizes; a folder that is there already is kept.
    Raises EncoderError without a sentence, or if `folder` holds something else."""
    import torch
    from transformers import XLMRobertaConfig, XLMRobertaModel

    folder = Path(folder)
    if (folder / WEIGHTS[0]).is_file() and (folder / TOKENIZER).is_file():
        return folder
    if folder.exists():
        raise EncoderError(f"{folder}: exists and is no encoder; choose another folder, or remove it")
    building = folder.with_name(f".{folder.name}.{uuid.uuid4().hex[:8]}")
    building.mkdir(parents=True)
    try:
        size = _train_tokenizer(building / TOKENIZER, list(sentences), vocab_size)
        config = XLMRobertaConfig(
            vocab_size=size,
            hidden_size=width,
            num_hidden_layers=layers,
            num_attention_heads=heads,
            intermediate_size=width // 2,
            max_position_embeddings=max_tokens + 2,
            type_vocab_size=1,
            layer_norm_eps=1e-5,
            bos_token_id=0,
            pad_token_id=1,
            eos_token_id=2,
        )
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model = XLMRobertaModel(config, add_pooling_layer=False).half()
        with quiet_transformers():
            model.save_pretrained(building)
        os.replace(building, folder)
    finally:
        shutil.rmtree(building, ignore_errors=True)
    return folder


def _train_tokenizer(path: Path, sentences: list[str], vocab_size: int) -> int:
    from sentencepiece import SentencePieceProcessor, SentencePieceTrainer
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

    sentences = [sentence for sentence in sentences if sentence.strip()]
    if not sentences:
        raise EncoderError(f"{path}: no text to train a tokenizer on; expected at least one sentence that is not blank")
    # Trained by SentencePiece, as the public one: the trainer of tokenizers gives another vocabulary every time.
    trained = io.BytesIO()
    SentencePieceTrainer.train(
        sentence_iterator=iter(sentences),
        model_writer=trained,
        model_type="unigram",
        vocab_size=vocab_size,
        hard_vocab_limit=False,
        character_coverage=1.0,
        bos_id=0,
        pad_id=1,
        eos_id=2,
        unk_id=3,
        num_threads=1,
        shuffle_input_sentence=False,
        minloglevel=2,  # SentencePiece writes its progress to stderr otherwise
    )
    pieces = SentencePieceProcessor(model_proto=trained.getvalue())
    vocabulary = [(pieces.IdToPiece(item), pieces.GetScore(item)) for item in range(pieces.GetPieceSize())]
    tokenizer = Tokenizer(models.Unigram(vocabulary, unk_id=3))
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    tokenizer.save(str(path))
    return len(vocabulary)
