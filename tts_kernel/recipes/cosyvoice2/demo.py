"""The embedded demo: a voice to learn, and small base models that seven others have taught, made once and kept."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import uuid
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import torch
from torch import Tensor

from tts_kernel.data.voices import demo as voices
from tts_kernel.data.voices.stand_ins import CODES, StandIns
from tts_kernel.models.cosyvoice2.config import (
    BackboneConfig,
    EncoderConfig,
    EstimatorConfig,
    FlowConfig,
    LLMConfig,
)
from tts_kernel.recipes.cosyvoice2.model import Sizes, fresh, write_sizes
from tts_kernel.recipes.cosyvoice2.settings import Settings
from tts_kernel.runs import Run, cache_folder

log = logging.getLogger(__name__)

# The published architecture, 1/500 of its weights; the demo's tokenizer and speech tokens.
SIZES = Sizes(
    LLMConfig(
        speech_token_size=CODES,
        qwen2=BackboneConfig(
            vocab_size=384,
            hidden_size=128,
            intermediate_size=384,
            num_hidden_layers=3,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=2048,
        ),
    ),
    FlowConfig(
        input_size=64,
        vocab_size=CODES,
        encoder=EncoderConfig(output_size=64, attention_heads=4, linear_units=128, num_blocks=2, num_up_blocks=1),
        estimator=EstimatorConfig(channels=(64,), attention_head_dim=16, n_blocks=1, num_mid_blocks=2, num_heads=4),
    ),
)
BASE = Settings(
    method="full",
    max_frames_in_batch=800,
    grad_accumulation=1,
    llm_epochs=5,
    flow_epochs=8,
    learning_rate=2.0e-3,
    schedule="cosine",
    warmup_steps=20,
    grad_clip=1.0,
    log_every=20,
    validate_every=1000,
    save_every=1000,
    patience=0,
    keep_checkpoints=0,
    keep_best=0,
    export="last",
    aim=False,
    device="cpu",
)

Train = Callable[[Settings, Run], object]


def fill_in(settings: Settings, train: Train) -> Settings:
    """Settings without `data` get the demo's voice and base models."""
    if settings.data:
        return settings
    return _reading(settings, voices.open_demo(), "voice", open_base(train))


def open_base(train: Train) -> Path:
    """The folder of the base models: llm.pt, flow.pt, config.yaml and bpe.model. About a minute on two cores the first
    time. `train` is the recipe's own; two processes may call this at once."""
    folder = voices.open_demo()
    base = cache_folder() / f"demo-cosyvoice2-base-{_fingerprint(folder)}"
    if (base / "demo.json").is_file():
        return base
    log.info("demo: training the base models on seven voices, once, in about a minute; they are kept in %s", base)
    building = base.with_name(f".{base.name}.{uuid.uuid4().hex[:8]}")
    try:
        building.mkdir(parents=True)
        write_sizes(SIZES, building)
        torch.save(_first_flow(folder), building / "flow.pt")
        run = Run(building / "run")
        run.folder.mkdir()
        train(_reading(BASE, folder, "others", building), run)
        for name in BASE.models:
            (whole,) = (run.folder / name).glob("epoch_*_whole.pt")
            os.replace(whole, building / f"{name}.pt")
            shutil.rmtree(run.folder / name / "checkpoints")
        shutil.copyfile(folder / "bpe.model", building / "bpe.model")
        (building / "demo.json").write_text(json.dumps({"voices": folder.name}) + "\n", encoding="utf-8")
        try:
            os.rename(building, base)
        except OSError:
            if not (base / "demo.json").is_file():
                raise
            log.info("demo: another process was faster, its base is used")
    finally:
        shutil.rmtree(building, ignore_errors=True)
    return base


def _reading(settings: Settings, folder: Path, group: str, base: Path) -> Settings:
    """With the utterances of the voice or of the others, and a base folder."""
    data, held = folder / group / "train", folder / group / "cv"
    tokenizer = folder / "bpe.model"
    return replace(settings, data=str(data), cv_data=str(held), tokenizer=str(tokenizer), base_model=str(base))


def _first_flow(folder: Path) -> dict[str, Tensor]:
    """Fresh weights that begin with the mel's mean, on the way to which a run this short would end."""
    torch.manual_seed(BASE.seed)
    state = fresh("flow", SIZES).state_dict()
    state["decoder.estimator.final_proj.bias"] = torch.tensor(StandIns.load(folder / "stand_ins.npz").mean[:80])
    return state


def _fingerprint(folder: Path) -> str:
    """Of what shapes the base models: the corpus, the settings here and the source of the networks."""
    values = [folder.name, asdict(BASE), asdict(SIZES)]
    found = hashlib.sha256(json.dumps(values, sort_keys=True).encode())
    networks = Path(__file__).parents[2] / "models"
    for source in [*sorted(networks.glob("cosyvoice2/*.py")), networks / "flow_matching.py", Path(__file__)]:
        found.update(source.read_bytes().replace(b"\r\n", b"\n"))
    return found.hexdigest()[:12]
