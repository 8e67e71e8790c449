"""Pairs of random numbers with the lengths of the guide's corpus, and a model of any size with fresh weights: for
measuring speed where there is neither."""

from __future__ import annotations

import json
import logging
import os
import shutil
import uuid
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from tts_kernel.data.files import save_array
from tts_kernel.models.indextts2.config import MEL_WIDTH, ConditionerConfig, GPTConfig
from tts_kernel.models.indextts2.gpt import UnifiedVoice
from tts_kernel.runs import write_yaml

log = logging.getLogger(__name__)

CODES_PER_SECOND = 25
MEL_FRAMES_PER_SECOND = 22050 / 256
VALIDATION_CLIPS = 16
SPEAKERS = 8


def published_shape(layers: int, model_dim: int) -> GPTConfig:
    """IndexTTS-2 with another depth and width: heads of 64, conditioners in proportion."""
    full = GPTConfig()
    share = min(model_dim / full.model_dim, 1.0)

    def narrow(module: ConditionerConfig) -> ConditionerConfig:
        heads = max(round(module.attention_heads * share), 1)
        size = module.output_size // module.attention_heads * heads
        hidden = module.linear_units * size // module.output_size
        return replace(module, output_size=size, linear_units=hidden, attention_heads=heads)

    return replace(
        full,
        layers=layers,
        model_dim=model_dim,
        heads=max(model_dim // 64, 1),
        condition_module=narrow(full.condition_module),
        emo_condition_module=narrow(full.emo_condition_module),
        emotion_width=min(full.emotion_width, model_dim),
        emo_mel_input_size=MEL_WIDTH,
    )


def open_synthetic(folder: Path, config: GPTConfig, pairs: int, seed: int = 0) -> Path:
    """`folder` with the manifests, features and base/gpt.pth of a stage-2 run; made on first use and kept. Clips are
    of 2 to 20 s, 7.5 s on average: 50 to 500 codes, 20 to 120 text tokens."""
    if (folder / "base" / "gpt.pth").is_file():
        return folder
    log.info("synthetic pairs: making %d of them and a base model in %s, once", pairs, folder)
    building = folder.with_name(f".{folder.name}.{uuid.uuid4().hex[:8]}")
    try:
        for name in ("mel", "codes", "text_ids", "condition", "base"):
            (building / name).mkdir(parents=True)
        random = np.random.default_rng(seed)
        for file, first, count in (("val", 0, VALIDATION_CLIPS), ("train_mel", VALIDATION_CLIPS, pairs)):
            rows = [_write_clip(building, number, config, random) for number in range(first, first + count)]
            text = "".join(json.dumps(row) + "\n" for row in rows)
            (building / f"gpt_pairs_{file}.jsonl").write_text(text, encoding="utf-8")
        torch.manual_seed(seed)
        torch.save({"model": UnifiedVoice(config).state_dict()}, building / "base" / "gpt.pth")
        write_yaml(building / "base" / "config.yaml", {"gpt": config.to_mapping()})
        try:
            os.rename(building, folder)
        except OSError:
            if not (folder / "base" / "gpt.pth").is_file():
                raise
    finally:
        shutil.rmtree(building, ignore_errors=True)
    return folder


def _write_clip(folder: Path, number: int, config: GPTConfig, random: np.random.Generator) -> dict[str, object]:
    """One clip's arrays, and its row with itself as its own prompt's speaker."""
    seconds = float(np.clip(2.0 + random.gamma(1.3, 4.4), 2.0, 20.0))
    codes, frames = round(seconds * CODES_PER_SECOND), round(seconds * MEL_FRAMES_PER_SECOND)
    tokens = int(np.clip(round(seconds * random.normal(6.0, 0.8)), 20, 120))
    arrays = {
        "mel": random.standard_normal((frames, MEL_WIDTH), dtype=np.float32) - 5.0,
        "codes": random.integers(0, config.num_codes, codes).astype(np.int32),
        "text_ids": random.integers(2, config.number_text_tokens, tokens).astype(np.int32),
        "condition": random.standard_normal((config.condition_num_latent, config.model_dim), dtype=np.float32),
    }
    clip = f"clip_{number:06d}"
    for name, array in arrays.items():
        save_array(folder / name / f"{clip}.npy", array)
    return {
        "id": clip,
        "target_id": clip,
        "prompt_id": f"{clip}_prompt",
        "speaker": f"speaker_{number % SPEAKERS}",
        "language": "ko",
        "target_text_ids_path": f"text_ids/{clip}.npy",
        "target_text_len": tokens,
        "target_codes_path": f"codes/{clip}.npy",
        "target_code_len": codes,
        "target_mel_path": f"mel/{clip}.npy",
        "target_mel_len": frames,
        "prompt_condition_path": f"condition/{clip}.npy",
        "prompt_condition_len": config.condition_num_latent,
    }
