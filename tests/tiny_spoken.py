"""A corpus of tones with a text in each of four languages, its encoder, and networks that a test can train."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from tts_kernel.data.demo.sentences import SENTENCES
from tts_kernel.models.melotts.config import SynthesizerConfig
from tts_kernel.recipes.melotts import Settings, prepare, train
from tts_kernel.runs import Run
from tts_kernel.text.bge_m3_demo import make_demo_encoder
from tts_kernel.training.outcome import Outcome

CODES = {"ko": "KR", "en": "EN", "zh": "ZH", "ja": "JP"}
LONG: dict[str, Any] = {"validate_every": 3, "save_every": 3, "samples": 1}  # of a run that is looked at closely
LINES = [(CODES[name], text) for number in range(2) for name, texts in SENTENCES.items() for text in [texts[number]]]
SIZES = SynthesizerConfig(
    inter_channels=8,
    hidden_channels=16,
    filter_channels=16,
    n_layers=3,
    gin_channels=8,
    resblock_kernel_sizes=(3,),
    resblock_dilation_sizes=((1,),),
    upsample_initial_channel=32,
)


def tone(seconds: float, rate: int, hertz: float = 220.0, channels: int = 1) -> np.ndarray:
    """(samples, channels) of a tone that fades."""
    time = np.arange(int(seconds * rate)) / rate
    wave = 0.3 * np.sin(2 * np.pi * hertz * time) * np.exp(-time)
    return np.repeat(wave[:, None], channels, axis=1)


def make_encoder(folder: Path) -> Path:
    texts = [text for spoken in SENTENCES.values() for text in spoken]
    return make_demo_encoder(folder, texts, width=16, heads=2, layers=3)


def make_lists(folder: Path, *, rate: int = 44_100) -> Path:
    """Eight clips to train on and four held out, by two speakers."""
    (folder / "wavs").mkdir(parents=True)
    rows = []
    for number, (code, text) in enumerate(LINES + LINES[:4]):
        wave = tone(1.0 + 0.1 * (number % 3), rate, 180.0 + 30.0 * number)
        soundfile.write(folder / "wavs" / f"{number:02d}.wav", wave, rate)
        rows.append(f"wavs/{number:02d}.wav|{text}|S{number % 2}|{code}\n")
    (folder / "train_list.txt").write_text("".join(rows[:8]), encoding="utf-8")
    (folder / "val_list.txt").write_text("".join(rows[8:]), encoding="utf-8")
    return folder


def write_config(path: Path, **changes: Any) -> Path:
    """config_bge_m3.json of the tiny networks."""
    sizes = asdict(SIZES)
    own = {"n_vocab", "n_speakers", "spec_channels", "segment_size", "mas_noise_scale_initial", "noise_scale_delta"}
    model = {name: value for name, value in sizes.items() if name not in own | {"num_tones", "num_languages"}}
    values = {"train": {}, "data": {}, "model": {**model, "bert_channels": 16}, **changes}
    path.write_text(json.dumps(values), encoding="utf-8")
    return path


class Studio:
    """One corpus and its runs."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.data = make_lists(folder / "data")
        self.encoder = make_encoder(folder / "bge-m3")
        self.config = write_config(folder / "config_bge_m3.json")

    def settings(self, **changes: Any) -> Settings:
        own = Settings(
            data=str(self.data),
            encoder=str(self.encoder),
            store=str(self.folder / "store"),
            config=str(self.config),
            model="demo",
            n_speakers=2,
            batch_size=4,
            segment_size=2048,
            epochs=3,
            log_every=1,
            validate_every=100,
            save_every=100,
            samples=0,
            aim=False,
            background_saves=False,
            keep_checkpoints=2,
            device="cpu",
        )
        return replace(own, **changes)

    def run(self, name: str = "run") -> Run:
        run = Run(self.folder / "runs" / name)
        for needed in (run.checkpoints, run.figures):
            needed.mkdir(parents=True, exist_ok=True)
        return run

    def train(self, name: str = "run", **changes: Any) -> Outcome:
        run, settings = self.run(name), self.settings(**changes)
        return train(prepare(settings, run), run)
