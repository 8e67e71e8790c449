"""A tiny random MeloTTS with the config.json of its training and a text encoder, as they would lie in a folder."""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from tests.models.melotts.tiny_models import CONFIG
from tests.parity import fill
from tts_kernel.data.demo.sentences import SENTENCES
from tts_kernel.models.melotts.config import SynthesizerConfig
from tts_kernel.models.melotts.synthesizer import Synthesizer
from tts_kernel.text.bge_m3_demo import make_demo_encoder
from tts_kernel.text.symbols import SYMBOLS

RATE = 8_000  # Hz
SPEAKERS = {"MINJI": 2, "Ann": 0, "7": 3}
SIZES = replace(CONFIG, n_vocab=len(SYMBOLS), num_tones=16, num_languages=8, bert_channels=16)
FRAMES_PER_TOKEN = 20


@functools.cache
def make_model(sizes: SynthesizerConfig = SIZES) -> Synthesizer:
    """Its plain durations are FRAMES_PER_TOKEN each."""
    model = Synthesizer(sizes)
    fill.fill(model)
    with torch.no_grad():
        model.dp.proj.weight.zero_()
        model.dp.proj.bias.fill_(math.log(FRAMES_PER_TOKEN - 0.01))  # which is rounded up
    return model


def write_config(
    path: Path,
    symbols: Sequence[str] = SYMBOLS.names,
    speakers: dict[str, int] | None = None,
    sizes: SynthesizerConfig = SIZES,
    **model: Any,
) -> Path:
    """As the public ones, with a comment."""
    table_sizes = ("n_vocab", "num_tones", "num_languages", "n_speakers", "spec_channels", "segment_size")
    values = {
        "train": {"segment_size": sizes.segment_size * sizes.samples_per_frame, "batch_size": 6},
        "data": {
            "sampling_rate": RATE,
            "filter_length": 2 * (sizes.spec_channels - 1),
            "hop_length": sizes.samples_per_frame,
            "n_speakers": sizes.n_speakers,
            "spk2id": SPEAKERS if speakers is None else speakers,
        },
        "model": {name: value for name, value in asdict(sizes).items() if name not in table_sizes} | model,
    } | ({"symbols": list(symbols)} if symbols else {})
    path.write_text(f"// of a test\n{json.dumps(values, ensure_ascii=False)}", encoding="utf-8")
    return path


def write_model(path: Path, model: Synthesizer | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save({"model": (model or make_model()).state_dict(), "iteration": 3}, path)
    return path


def make_folder(folder: Path) -> Path:
    """G_latest.pth, config.json and bge-m3/."""
    write_model(folder / "G_latest.pth")
    write_config(folder / "config.json")
    texts = [text for texts in SENTENCES.values() for text in texts]
    make_demo_encoder(folder / "bge-m3", texts, width=SIZES.bert_channels, heads=2, max_tokens=256)
    return folder
