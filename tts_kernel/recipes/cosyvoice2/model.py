"""The two models that are trained: sizes and weights from the base folder, an adapter on the layers that matter.

A base folder has the published llm.pt and flow.pt, and config.yaml (sections llm, flow) where sizes are others than the
published ones; without its file a model begins with fresh weights, which only the method "full" allows.
"""

from __future__ import annotations

import logging
import warnings
from dataclasses import dataclass
from pathlib import Path

import torch
import yaml
from torch import nn

from tts_kernel.lora import Adapted, Lora, LoraError
from tts_kernel.models.config_types import ConfigError
from tts_kernel.models.cosyvoice2.config import FlowConfig, LLMConfig
from tts_kernel.models.cosyvoice2.config_values import config_from_mapping, to_mapping
from tts_kernel.models.cosyvoice2.flow import TokenToMel
from tts_kernel.models.cosyvoice2.llm import SpeechLanguageModel
from tts_kernel.models.cosyvoice2.weights import load_weights
from tts_kernel.models.weights import CheckpointError
from tts_kernel.recipes.cosyvoice2.settings import ModelName, Settings
from tts_kernel.runs import Run, project_path, write_yaml

log = logging.getLogger(__name__)

CONFIG = "config.yaml"
# Attention and feed-forward of Qwen2; attention of the flow's encoder and of its estimator.
TARGETS: dict[ModelName, tuple[str, ...]] = {
    "llm": ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"),
    "flow": ("linear_q", "linear_k", "linear_v", "linear_out", "to_q", "to_k", "to_v", "to_out.0"),
}
HEADS: dict[ModelName, tuple[str, ...]] = {
    "llm": ("llm_decoder",),
    "flow": ("spk_embed_affine_layer", "encoder_proj", "final_proj"),
}


@dataclass(frozen=True)
class Sizes:
    """Of both models."""

    llm: LLMConfig
    flow: FlowConfig

    @property
    def tokens(self) -> tuple[int, int]:
        """How many text tokens and speech tokens there are."""
        return self.llm.qwen2.vocab_size, min(self.llm.speech_token_size, self.flow.vocab_size)


def read_sizes(folder: Path) -> Sizes:
    """Of a base folder; the published ones where it has no config.yaml. Raises ConfigError with what is wrong."""
    path = folder / CONFIG
    if not folder.is_dir():
        raise ConfigError(f"{folder}: no such folder; expected one with llm.pt and flow.pt")
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8")) if path.is_file() else {}
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not YAML: {error}") from error
    if not isinstance(values, dict) or values.keys() - {"llm", "flow", "hift"}:
        raise ConfigError(f"{path}: found {values!r:.80}, expected the sections llm and flow, and hift for a vocoder")
    return Sizes(
        config_from_mapping(LLMConfig, values.get("llm", {}), f"{path}: llm"),
        config_from_mapping(FlowConfig, values.get("flow", {}), f"{path}: flow"),
    )


def write_sizes(sizes: Sizes, folder: Path, vocoder: str = "griffin-lim") -> None:
    """config.yaml, so that `folder` can be a base; models of other sizes than the published ones have no vocoder whose
    weights would fit."""
    write_yaml(folder / CONFIG, {"llm": to_mapping(sizes.llm), "flow": to_mapping(sizes.flow), "hift": vocoder})


def lora_of(settings: Settings, name: ModelName) -> Lora:
    """The shape of one model's adapter."""
    return Lora(
        targets=TARGETS[name],
        rank=settings.rank,
        alpha=settings.alpha,
        dropout=settings.lora_dropout,
        rslora=settings.rslora,
        dora=settings.dora,
        full=HEADS[name] if settings.train_heads else (),
    )


def fresh(name: ModelName, sizes: Sizes) -> SpeechLanguageModel | TokenToMel:
    """A model of these sizes with random weights."""
    return SpeechLanguageModel(sizes.llm) if name == "llm" else TokenToMel(sizes.flow)


def check_models(settings: Settings, sizes: Sizes) -> None:
    """Raise CheckpointError with every base file and adapter that is missing or does not fit, of all models that are to
    be trained; nothing is loaded but what an adapter's base is known by."""
    problems = []
    for name in settings.models:
        path = project_path(settings.base_model) / f"{name}.pt"
        try:
            if settings.adapter:
                build_model(settings, name, sizes)
            elif path.is_file() or settings.method == "lora":
                with torch.device("meta"), warnings.catch_warnings():
                    warnings.simplefilter("ignore")  # that weights without values take none
                    load_weights(fresh(name, sizes), path)
        except (CheckpointError, LoraError) as error:
            problems.append(str(error))
    if problems:
        raise CheckpointError("\n  ".join(["the models cannot be trained from what is there:", *problems]))


def build_model(settings: Settings, name: ModelName, sizes: Sizes) -> nn.Module:
    """The model to train, with the base's weights and, by the method "lora", an adapter. Raises CheckpointError for a
    base that is missing or does not fit, LoraError for an earlier adapter that does not."""
    torch.manual_seed(settings.seed)
    model = fresh(name, sizes)
    path = project_path(settings.base_model) / f"{name}.pt"
    if path.is_file() or settings.method == "lora":
        log.info("%s: %s", path, load_weights(model, path))
    else:
        log.info("%s: no such file, the model begins with fresh weights", path)
    if isinstance(model, SpeechLanguageModel):
        model.set_gradient_checkpointing(settings.gradient_checkpointing)
    if settings.method == "full":
        return model
    adapted = Adapted(model, lora_of(settings, name), base=str(path))
    if settings.adapter:
        adapted.load(adapter_of(Run(project_path(settings.adapter)), name))
    return adapted


def adapter_of(run: Run, name: ModelName) -> Path:
    """Where a run leaves one model's adapter."""
    return run.folder / name / "adapter"
