"""The plain training loop that the engine is measured against, and the same loop with each of its ways changed alone.

What a loop does that someone writes in an afternoon: a Dataset that loads one pair, a collate function that pads to the
longest, shuffled batches, text and codes each padded before they are put together, attention as softmax(Q K^T) V with a
mask, both heads at every position and `ignore_index` for the padding, AdamW as torch gives it, float32.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.nn.utils import clip_grad_norm_
from torch.utils.data import DataLoader, Dataset

from benchmarks.data.manifest import Pair, parse_lines
from tts_kernel.data.batch import Batch
from tts_kernel.data.sampler import PlannedBatch, Position
from tts_kernel.models.indextts2.gpt import UnifiedVoice
from tts_kernel.recipes import indextts2 as recipe
from tts_kernel.recipes.indextts2.objective import emotion_vector
from tts_kernel.recipes.indextts2.train import Prepared, dataset

IGNORED = -100


@dataclass(frozen=True)
class Ways:
    """What differs from the plain loop; all False is the plain loop."""

    buckets: bool = False  # batches of rows of like lengths
    real_positions: bool = False  # rows packed, heads only where there is something to predict
    fused_attention: bool = False
    fused_adamw: bool = False
    packed_store: bool = False  # arrays from shards, a whole batch at once, checked
    bfloat16: bool = False


@dataclass
class Steps:
    """What a loop went through. Times are of `time.perf_counter`."""

    started: float
    ended: list[float]  # after each batch
    tokens: list[int]  # text tokens and codes in each
    losses: list[float]


class Items(Dataset[dict[str, object]]):
    """One pair at a time, four .npy files each."""

    def __init__(self, pairs: list[Pair], stored: bool, mapping: dict[str, int]) -> None:
        self.pairs, self.stored, self.mapping = pairs, stored, mapping

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, number: int) -> dict[str, object]:
        pair = self.pairs[number]
        emotion = pair.emo_vec_path if self.stored else pair.mel_path
        assert emotion is not None
        return {
            "id": pair.id,
            "text": torch.from_numpy(np.load(pair.text_ids_path)),
            "codes": torch.from_numpy(np.load(pair.codes_path)),
            "latents": torch.from_numpy(np.load(pair.condition_path)),
            "emotion": torch.from_numpy(np.load(emotion)),
            "speaker": self.mapping.get(pair.speaker, -1),
        }


def collate(rows: list[dict[str, Tensor]]) -> Batch:
    """Pad each kind to its longest row."""
    padded, lengths = {}, {}
    for name in ("text", "codes", "emotion"):
        padded[name] = nn.utils.rnn.pad_sequence([row[name] for row in rows], batch_first=True)
        lengths[name] = torch.tensor([len(row[name]) for row in rows])
    batch = Batch(
        ids=[str(row["id"]) for row in rows],
        text_tokens=padded["text"],
        text_lengths=lengths["text"],
        codes=padded["codes"],
        code_lengths=lengths["codes"],
        speaker_ids=torch.tensor([int(row["speaker"]) for row in rows]),
        latents=torch.stack([row["latents"] for row in rows]),
    )
    if rows[0]["emotion"].ndim == 1:
        return replace(batch, emotion_vector=padded["emotion"])
    return replace(batch, emotion_features=padded["emotion"], emotion_lengths=lengths["emotion"])


def padded_losses(model: UnifiedVoice, batch: Batch, emotion: Tensor) -> tuple[Tensor, Tensor]:
    """Mean text and code cross-entropy, of every position of the padded pieces, padding ignored."""
    assert batch.latents is not None
    conditions = model.conditions(batch.latents, emotion)
    text = model.embed_text(batch.text_tokens, batch.text_lengths)
    codes = model.embed_codes(batch.codes, batch.code_lengths)
    real = [torch.ones(conditions.shape[:2], dtype=torch.bool)]
    real += [
        torch.arange(piece.shape[1]) < lengths[:, None] + 2
        for piece, lengths in ((text, batch.text_lengths), (codes, batch.code_lengths))
    ]
    pieces, mask = torch.cat([conditions, text, codes], dim=1), torch.cat(real, dim=1)
    hidden = model.final_norm(model.gpt(inputs_embeds=pieces, attention_mask=mask.long()).last_hidden_state)
    _, text_part, code_part = hidden.split([conditions.shape[1], text.shape[1], codes.shape[1]], dim=1)
    said = [model.text_head(text_part).float(), model.mel_head(code_part).float()]
    wanted = [
        _targets(batch.text_tokens, batch.text_lengths, model.config.stop_text_token),
        _targets(batch.codes, batch.code_lengths, model.config.stop_mel_token),
    ]
    text_loss, code_loss = (
        cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=IGNORED)
        for logits, targets in zip(said, wanted, strict=True)
    )
    return text_loss, code_loss


def _targets(tokens: Tensor, lengths: Tensor, stop: int) -> Tensor:
    """(batch, n) -> (batch, n + 2): the tokens, a stop, and then nothing."""
    place = torch.arange(tokens.shape[1] + 2)
    targets = nn.functional.pad(tokens, (0, 2)).masked_fill(place >= lengths[:, None], IGNORED)
    return targets.masked_fill(place == lengths[:, None], stop)


def real_losses(model: UnifiedVoice, batch: Batch, emotion: Tensor) -> tuple[Tensor, Tensor]:
    """The same means by the model's own forward pass."""
    assert batch.latents is not None
    conditions = model.conditions(batch.latents, emotion)
    said = model(conditions, batch.text_tokens, batch.text_lengths, batch.codes, batch.code_lengths)
    return (
        cross_entropy(said.text_logits.float(), said.text_targets),
        cross_entropy(said.code_logits.float(), said.code_targets),
    )


def batches(prepared: Prepared, ways: Ways, seed: int) -> Iterator[Batch]:
    """One epoch of the rows that the recipe would train on."""
    if ways.packed_store:
        corpus = prepared.corpus
        data = dataset(prepared.settings, prepared.config, corpus.train, corpus.mapping)
        for rows in _order(prepared, ways, seed):
            yield data[PlannedBatch(rows, Position())]
        return
    settings, corpus = prepared.settings, prepared.corpus
    pairs = parse_lines(Path(settings.data) / settings.train_manifest)
    items = Items(pairs, settings.stage != 2, corpus.mapping)
    yield from DataLoader(items, batch_sampler=_order(prepared, ways, seed), collate_fn=collate)  # type: ignore[arg-type]


def _order(prepared: Prepared, ways: Ways, seed: int) -> list[np.ndarray]:
    if ways.buckets:
        plan = replace(prepared.plan, seed=seed)
        return [planned.rows for planned in plan.epoch(Position())]
    rows = np.random.default_rng(seed).permutation(prepared.corpus.train_rows)
    size = prepared.settings.batch_size
    return [rows[start : start + size] for start in range(0, len(rows), size)]


def train(prepared: Prepared, model: UnifiedVoice, ways: Ways, epochs: int = 1, seed: int = 0) -> Steps:
    """Whole epochs."""
    settings = prepared.settings
    if not ways.fused_attention:
        model.gpt.config._attn_implementation = "eager"
    validation_loss(prepared, model)  # as the Trainer begins: what has to warm up is warm
    model.train()
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    rate, decay = settings.learning_rate, settings.weight_decay
    optimizer = torch.optim.AdamW(trainable, lr=rate, weight_decay=decay, fused=True if ways.fused_adamw else None)
    done, parts = Steps(time.perf_counter(), [], [], []), settings.grad_accumulation
    epoch_by_epoch = (batches(prepared, ways, seed + epoch) for epoch in range(epochs))
    for number, batch in enumerate(chain.from_iterable(epoch_by_epoch)):
        with torch.autocast("cpu", torch.bfloat16) if ways.bfloat16 else nullcontext():
            loss = _loss(model, batch, ways, settings)
        (loss / parts).backward()
        if (number + 1) % parts == 0:
            clip_grad_norm_(trainable, settings.grad_clip)
            optimizer.step()
            optimizer.zero_grad()
        done.losses.append(loss.item())
        done.tokens.append(int(batch.text_lengths.sum() + batch.code_lengths.sum()))
        done.ended.append(time.perf_counter())
    return done


def _loss(model: UnifiedVoice, batch: Batch, ways: Ways, settings: recipe.Settings) -> Tensor:
    emotion = emotion_vector(model, batch)
    text, codes = (real_losses if ways.real_positions else padded_losses)(model, batch, emotion)
    loss = settings.text_weight * text + settings.mel_weight * codes
    if model.speaker_classifier is None:
        return loss
    speakers = cross_entropy(model.speaker_logits(emotion).float(), batch.speaker_ids, ignore_index=-1)
    return loss + settings.speaker_loss_weight * speakers


@torch.no_grad()
def validation_loss(prepared: Prepared, model: UnifiedVoice) -> float:
    """0.2 text + 0.8 code cross-entropy per token of the validation split."""
    corpus, settings = prepared.corpus, prepared.settings
    data = dataset(settings, prepared.config, corpus.validation, corpus.mapping)
    model.eval()
    sums, counts = np.zeros(2), np.zeros(2)
    for start in range(0, len(corpus.validation_rows), settings.batch_size):
        batch = data[PlannedBatch(corpus.validation_rows[start : start + settings.batch_size], Position())]
        losses = real_losses(model, batch, emotion_vector(model, batch))
        targets = np.array([int(batch.text_lengths.sum()), int(batch.code_lengths.sum())]) + len(batch.ids)
        sums, counts = sums + targets * [loss.item() for loss in losses], counts + targets
    text, codes = sums / counts
    return float(settings.text_weight * text + settings.mel_weight * codes)
