"""Published names of IndexTTS-2's `gpt.pth` (and of checkpoints made from it) -> UnifiedVoice, with a report.

Source of the layout, its aliases and prefixes: parity case gpt_full_layout.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from tts_kernel.models.indextts2.gpt import UnifiedVoice
from tts_kernel.models.weights import CheckpointError, LoadReport, copy_state, plain_names, read_checkpoint, state_of

# Saved after the reference prepared itself for inference, or by older transformers: the same tensors again, or masks.
_ALIASES = re.compile(r"^inference_model\.|^gpt\.wte\.weight$|^gpt\.wpe\.|^gpt\.h\.\d+\.attn\.(masked_)?bias$")
_CLASSIFIER = "speaker_classifier."
_INPUT_LAYER = "emo_conditioning_encoder.embed.out.0.weight"
_VOCABULARY = ("text_embedding.weight", "text_head.weight", "text_head.bias")


def load_weights(
    model: UnifiedVoice,
    path: Path,
    *,
    file_tokens: Sequence[str] | None = None,
    model_tokens: Sequence[str] | None = None,
) -> LoadReport:
    """Load `path` into `model`, strictly but for three rules that the report names:
    the emotion conformer's input projection is re-initialised if the file's reads another width (semantic features
    against mels); the speaker classifier if it is missing or has other classes; and the text vocabulary grows by token
    name if both `file_tokens` and `model_tokens` (piece by id) are given. Raises CheckpointError otherwise."""
    report = LoadReport()
    state: dict[str, Tensor] = {}
    for name, value in plain_names(state_of(read_checkpoint(path), str(path))).items():
        no_place = name.startswith(_CLASSIFIER) and model.speaker_classifier is None
        if ".lora_" in name:
            report.unmerged.append(name)
        elif _ALIASES.search(name) or no_place:
            report.dropped.append(name)
        else:
            state[name] = value
    fresh = []
    if _classifier_differs(model, state):
        fresh.append(_CLASSIFIER)
        report.dropped += [name for name in state if name.startswith(_CLASSIFIER)]
        state = {name: value for name, value in state.items() if not name.startswith(_CLASSIFIER)}
    given = state.get(_INPUT_LAYER)
    if given is not None and given.shape != model.state_dict()[_INPUT_LAYER].shape:
        fresh.append(_INPUT_LAYER)
    if file_tokens is not None and model_tokens is not None and list(file_tokens) != list(model_tokens):
        state |= extend_vocabulary(state, file_tokens, model_tokens)
        report.extended += _VOCABULARY
    return copy_state(model, state, fresh, report, str(path))


def _classifier_differs(model: UnifiedVoice, state: dict[str, Tensor]) -> bool:
    """All or nothing: a classifier with some layers from a file and some fresh would be neither."""
    own, given = (
        {name: value.shape for name, value in tensors.items() if name.startswith(_CLASSIFIER)}
        for tensors in (model.state_dict(), state)
    )
    return own != given


def extend_vocabulary(
    state: dict[str, Tensor], file_tokens: Sequence[str], model_tokens: Sequence[str]
) -> dict[str, Tensor]:
    """The three text tables for `model_tokens`: a token known to the file keeps its row wherever it moves, a new one
    starts at the mean of the known rows. The tables' extra last row, beyond the vocabulary, stays last."""
    known = {token: row for row, token in enumerate(file_tokens)}
    source = [known.get(token, -1) for token in model_tokens]
    if all(row < 0 for row in source):
        raise CheckpointError("no token of the new tokenizer is known to the checkpoint's; are both of one language?")
    tables: dict[str, Tensor] = {}
    for name in _VOCABULARY:
        old = state.get(name)
        if old is None or len(old) != len(file_tokens) + 1:
            found = "no" if old is None else str(len(old))
            raise CheckpointError(
                f"{name} has {found} rows, expected {len(file_tokens) + 1}: one for each of the {len(file_tokens)} "
                "tokens of base_tokenizer and one more; is it the checkpoint's tokenizer?"
            )
        mean = old[:-1].float().mean(dim=0).to(old.dtype)
        tables[name] = torch.stack([*(old[row] if row >= 0 else mean for row in source), old[-1]])
    return tables
