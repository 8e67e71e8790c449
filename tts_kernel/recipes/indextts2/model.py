"""The model of a run: sizes from the base checkpoint's config, weights from the checkpoint, a stage's parts frozen."""

from __future__ import annotations

import logging
from dataclasses import replace

import torch

from tts_kernel.models.indextts2.config import GPTConfig, read_config
from tts_kernel.models.indextts2.gpt import UnifiedVoice
from tts_kernel.models.indextts2.weights import load_weights
from tts_kernel.recipes.indextts2.settings import EMOTION_PARTS, SPEAKER_PARTS, STAGES, Settings
from tts_kernel.runs import project_path
from tts_kernel.text.tokenizer import TextTokenizer

log = logging.getLogger(__name__)


def base_config(settings: Settings) -> GPTConfig:
    """Sizes of the checkpoint that the run starts from."""
    if settings.model_config:
        return read_config(project_path(settings.model_config))
    return read_config(project_path(settings.base_checkpoint).parent / "config.yaml")


def stage_config(settings: Settings, config: GPTConfig, num_speakers: int) -> GPTConfig:
    """Sizes of the model to train: the adversary's classes, what the emotion encoder reads where it is used, and the
    vocabulary it is extended to."""
    if settings.tokenizer:
        config = replace(config, number_text_tokens=TextTokenizer(project_path(settings.tokenizer)).vocab_size)
    if STAGES[settings.stage].adversary or settings.conditions == "computed":
        config = config.reading(settings.emotion_input)
    return replace(config, num_speakers=num_speakers, standardise_adversary=settings.standardise_adversary)


def build_model(settings: Settings, config: GPTConfig) -> UnifiedVoice:
    """The model with the base checkpoint's weights and its stage's parts frozen. Raises CheckpointError."""
    torch.manual_seed(settings.seed)
    model = UnifiedVoice(config)
    if settings.base_checkpoint:
        tokens = {}
        if settings.tokenizer:
            tokens = {
                "file_tokens": TextTokenizer(project_path(settings.base_tokenizer)).tokens(),
                "model_tokens": TextTokenizer(project_path(settings.tokenizer)).tokens(),
            }
        report = load_weights(model, project_path(settings.base_checkpoint), **tokens)
        log.info("base checkpoint: %s", report)
        if report.unmerged:
            log.warning("the base checkpoint holds LoRA adapters that were never merged: the run starts without them")
    for name in frozen_parts(settings):
        model.get_submodule(name).requires_grad_(False)
    return model


def frozen_parts(settings: Settings) -> tuple[str, ...]:
    """Names of the parts that are not trained: the stage's, and the conditioners whose output is read from a file."""
    stage = STAGES[settings.stage]
    stored = settings.conditions == "stored"
    unused = (SPEAKER_PARTS if stored else ()) + (EMOTION_PARTS if stored and not stage.adversary else ())
    return tuple(dict.fromkeys(stage.frozen + unused))
