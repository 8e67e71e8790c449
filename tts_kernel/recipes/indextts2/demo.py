"""The embedded demo as a data folder and a base checkpoint, made on first use and kept.

On top of the corpus of data/demo it trains a small model by stage 1, whose conditioners then write the stored speaker
latents and emotion vectors (condition/, emo_vec/), as a public gpt.pth would for a real corpus.
"""

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

from tts_kernel.data.demo import corpus
from tts_kernel.data.features import Features
from tts_kernel.data.files import save_array
from tts_kernel.data.manifest import read_manifest
from tts_kernel.data.ordering import order_mel_first
from tts_kernel.models.indextts2.config import ConditionerConfig, GPTConfig, read_config
from tts_kernel.models.indextts2.gpt import UnifiedVoice
from tts_kernel.models.indextts2.weights import load_weights
from tts_kernel.recipes.indextts2.settings import Settings
from tts_kernel.runs import Run, cache_folder, write_yaml

log = logging.getLogger(__name__)

# 1/500 of the published size; the corpus's tokenizer, codes and feature widths.
MODEL = GPTConfig(
    layers=3,
    model_dim=128,
    heads=4,
    max_text_tokens=80,
    max_mel_tokens=200,
    number_text_tokens=384,
    number_mel_codes=130,
    start_mel_token=128,
    stop_mel_token=129,
    condition_num_latent=8,
    condition_module=ConditionerConfig(output_size=64, linear_units=128, attention_heads=4, num_blocks=1),
    emo_condition_module=ConditionerConfig(output_size=64, linear_units=128, attention_heads=4, num_blocks=2),
    emotion_width=128,
    semantic_input_size=40,
)
BASE = Settings(
    stage=1,
    train_manifest="gpt_pairs_train.jsonl",
    conditions="computed",
    batch_size=16,
    grad_accumulation=1,
    epochs=5,
    learning_rate=4.0e-4,
    weight_decay=0.05,
    warmup_steps=20,
    grad_clip=1.0,
    log_every=20,
    validate_every=130,
    save_every=1000,
    keep_checkpoints=0,
    keep_best=0,
    aim=False,
    num_workers=0,
    device="cpu",
)
CHECKPOINT = "base/checkpoints/latest.pth"

Train = Callable[[Settings, Run], object]


def fill_in(settings: Settings, train: Train) -> Settings:
    """Settings without `data` get the demo's folder and, for stages 2 and 3, its base checkpoint."""
    if settings.data:
        return settings
    folder = open_demo(train)
    base = "" if settings.stage == 1 else str(folder / CHECKPOINT)
    config = "" if base else str(folder / "base" / "config.yaml")
    return replace(settings, data=str(folder), base_checkpoint=base, model_config=config)


def open_demo(train: Train) -> Path:
    """The demo's data folder: the corpus, condition/, emo_vec/, the mel-first manifest and base/. About a minute and
    a half on two cores the first time. `train` is the recipe's own; two processes may call this at once."""
    log.info("demo: opening the speech corpus in %s; it is made on first use, in about 20 s", cache_folder())
    speech = corpus.open_corpus(cache_folder())
    folder = cache_folder() / f"demo-indextts2-{_fingerprint(speech)}"
    if (folder / "demo.json").is_file():
        return folder
    log.info("demo: training the base model by stage 1, once, in about a minute; it is kept in %s", folder)
    building = folder.with_name(f".{folder.name}.{uuid.uuid4().hex[:8]}")
    try:
        shutil.copytree(speech, building, copy_function=_link)
        base = Run(building / "base")
        base.checkpoints.mkdir(parents=True)
        write_yaml(base.folder / "config.yaml", {"gpt": MODEL.to_mapping()})
        train(replace(BASE, data=str(building), model_config=str(base.folder / "config.yaml")), base)
        write_conditions(building, building / CHECKPOINT)
        order_mel_first(building)
        (building / "demo.json").write_text(json.dumps({"speech": speech.name}) + "\n", encoding="utf-8")
        try:
            os.rename(building, folder)
        except OSError:
            if not (folder / "demo.json").is_file():
                raise
            log.info("demo: another process was faster, its base is used")
    finally:
        shutil.rmtree(building, ignore_errors=True)
    return folder


def _link(source: str, target: str) -> None:
    """A second name for the same file where the file system can, else a copy."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def _fingerprint(speech: Path) -> str:
    """Of what shapes the base: the corpus, the settings here and the source of the networks."""
    digest = hashlib.sha256(json.dumps([speech.name, asdict(BASE), MODEL.to_mapping()], sort_keys=True).encode())
    networks = Path(__file__).parents[2] / "models"
    for source in [*sorted(networks.glob("indextts2/*.py")), Path(__file__)]:
        digest.update(source.read_bytes().replace(b"\r\n", b"\n"))
    return digest.hexdigest()[:12]


@torch.inference_mode()
def write_conditions(data: Path, checkpoint: Path) -> None:
    """condition/<clip>.npy (latents, model_dim) and emo_vec/<clip>.npy (model_dim,), float32, of every target and
    prompt clip, by the conditioners of `checkpoint`."""
    model = UnifiedVoice(read_config(checkpoint.parent / "config.yaml")).eval()
    load_weights(model, checkpoint)
    clips: set[str] = set()
    for manifest in ("gpt_pairs_train.jsonl", "gpt_pairs_val.jsonl"):
        pairs = read_manifest(data / manifest)
        clips |= {clip for name in ("target_id", "prompt_id") for clip in pairs.strings(name).to_pylist()}
    for name in ("condition", "emo_vec"):
        (data / name).mkdir(exist_ok=True)
    features = Features(data)
    for clip in sorted(clips):
        arrays = features.read([f"semantic/{clip}.npy", f"mel/{clip}.npy"])
        semantic, mel = (torch.tensor(array, dtype=torch.float32)[None] for array in arrays)
        latents = model.speaker_latents(semantic, torch.tensor([semantic.shape[1]]))[0]
        emotion = model.emotion_vector(mel, torch.tensor([mel.shape[1]]))[0]
        save_array(data / "condition" / f"{clip}.npy", latents.numpy())
        save_array(data / "emo_vec" / f"{clip}.npy", emotion.numpy())
