"""Public `llm.pt`, `flow.pt` and `hift.pt`, and the checkpoints that upstream's training writes -> our models, with a
report.

Source of the layouts and of what else such files hold: parity case layout_full.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from tts_kernel.models.cosyvoice2.flow import TokenToMel
from tts_kernel.models.cosyvoice2.hift import HiftGenerator
from tts_kernel.models.cosyvoice2.llm import SpeechLanguageModel
from tts_kernel.models.weights import CheckpointError, LoadReport, copy_state, plain_names, read_checkpoint, state_of

_EMBEDDING, _HEAD = "llm.model.model.embed_tokens.weight", "llm.model.lm_head.weight"  # one tensor under two names
_OLD_NORM = {".weight_g": ".parametrizations.weight.original0", ".weight_v": ".parametrizations.weight.original1"}
_LOSSLESS = (torch.float32, torch.float16, torch.bfloat16)  # into the models' float32


def load_weights(model: SpeechLanguageModel | TokenToMel | HiftGenerator, path: Path) -> LoadReport:
    """Load `path` into `model`, strictly. The report names what the file holds beside the model: the training loop's
    `epoch` and `step`, a vocoder's discriminators, LoRA weights that were not merged.
    Raises CheckpointError listing missing, unexpected and mis-shaped names; then nothing was copied."""
    checkpoint = read_checkpoint(path)
    report = LoadReport(dropped=sorted(str(name) for name, value in checkpoint.items() if isinstance(value, int)))
    state: dict[str, Tensor] = {}
    for name, value in plain_names(state_of(checkpoint, str(path))).items():
        if ".lora_" in name:
            report.unmerged.append(name)
        else:
            state[name] = value
    if isinstance(model, HiftGenerator):
        state = _generator(state, report)
    if isinstance(model, SpeechLanguageModel):
        _tie(state, str(path))
    own = model.state_dict()
    report.mis_shaped = [
        f"{name}: file {value.dtype}, model {own[name].dtype}"
        for name, value in state.items()
        if name in own and value.dtype not in _LOSSLESS
    ]
    return copy_state(model, state, (), report, str(path))


def _generator(state: dict[str, Tensor], report: LoadReport) -> dict[str, Tensor]:
    """The vocoder's part of a GAN checkpoint under its own names, and those of weight norm as torch has them now."""
    part = "generator."
    if any(name.startswith(part) for name in state):
        report.dropped += [name for name in state if not name.startswith(part)]
        state = {name.removeprefix(part): value for name, value in state.items() if name.startswith(part)}

    def current(name: str) -> str:
        for old, new in _OLD_NORM.items():
            name = name.removesuffix(old) + new if name.endswith(old) else name
        return name

    return {current(name): value for name, value in state.items()}


def _tie(state: dict[str, Tensor], where: str) -> None:
    """Both names of the text embedding, where a file kept one of them. Raises CheckpointError if they differ: this
    model would keep the head and lose the embedding."""
    given = [name for name in (_EMBEDDING, _HEAD) if name in state]
    if len(given) == 1:
        state[_EMBEDDING] = state[_HEAD] = state[given[0]]
    elif given and not torch.equal(state[_EMBEDDING], state[_HEAD]):
        raise CheckpointError(
            f"{where}: {_EMBEDDING} and {_HEAD} are two tensors, expected one under both names; is it a Qwen2 whose "
            "head was untied?"
        )
