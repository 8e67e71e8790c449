"""What training has done to a voice: held-out sentences spoken by the base models and by the trained ones, and how much
like the speaker either sounds."""

from __future__ import annotations

import json
import logging
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from tts_kernel.audio import wav as audio
from tts_kernel.data.pipeline.batches import decode
from tts_kernel.data.pipeline.shards import RowReader
from tts_kernel.data.voices import Extractor, OnnxExtractor, StandIns
from tts_kernel.data.voices.demo import open_demo
from tts_kernel.evaluation.similarity import Clip, Similarity, speaker_similarity
from tts_kernel.recipes.cosyvoice2 import Prepared, Settings
from tts_kernel.runs import Run, project_path, write_atomically
from tts_kernel.synthesis.cosyvoice2 import Synthesizer
from tts_kernel.synthesis.export import export_voice
from tts_kernel.synthesis.voice import Voice

log = logging.getLogger(__name__)

FILE = "similarity.json"
REAL = 30  # clips that generated ones are compared with, at most
When = Literal["before", "after"]


def speak(prepared: Prepared, run: Run, when: When) -> list[Clip]:
    """The first held-out sentences of the speaker, by the models as they were or as the run has left them; kept in
    samples/. The same draws both times. Raises SynthesisError for a base folder that lacks what speaking needs."""
    settings = prepared.settings
    if not settings.spoken:
        return []
    trained = _trained(run) if when == "after" else {}
    base = project_path(settings.base_model)
    models = Synthesizer.open(base, llm=trained.get("llm"), flow=trained.get("flow"))
    rows = _rows(prepared)
    voice = Voice(torch.from_numpy(rows[0]["spk_embedding"]))
    clips: list[Clip] = []
    (run.folder / "samples").mkdir(exist_ok=True)
    for number, row in enumerate(rows[: settings.spoken]):
        speech = models.speak(row["text"], voice, torch.Generator().manual_seed(settings.seed + number))
        audio.write(run.folder / "samples" / f"{when}_{number}.wav", speech.wav, speech.sample_rate)
        clips.append((speech.wav, speech.sample_rate))
    return clips


def similarity(prepared: Prepared, run: Run, clips: dict[When, list[Clip]]) -> dict[When, Similarity]:
    """Of what was spoken before and after to the speaker's held-out clips; kept in similarity.json, where the figure
    finds it."""
    extractor = _extractor(prepared.asked)
    real = [decode(row["audio_data"], row["utt"]) for row in _rows(prepared)]
    found = {when: speaker_similarity(spoken, real, extractor) for when, spoken in clips.items()}
    values: dict[str, Any] = {when: asdict(each) for when, each in found.items()}
    write_atomically(run.folder / FILE, json.dumps(values, indent=1, ensure_ascii=False) + "\n")
    return found


def export(prepared: Prepared, run: Run) -> Path | None:
    """The trained voice under its speaker's name as a folder that speaks by itself, the run's export/; a model that was
    not trained is the base's. The path of its speaker_config.json; None where nothing was trained. Raises
    SpeakerError."""
    trained = _trained(run)
    if not trained:
        return None
    row, base = _rows(prepared)[0], project_path(prepared.settings.base_model)
    return export_voice(
        run.folder / "export",
        row["spk"],
        llm=trained.get("llm", base / "llm.pt"),
        flow=trained.get("flow", base / "flow.pt"),
        embedding=torch.from_numpy(row["spk_embedding"]),
        base=base,
        description=f"trained by run {run.name}",
        default=True,
    )


def sentences(prepared: Prepared) -> list[str]:
    """The held-out sentences that are spoken."""
    return [row["text"] for row in _rows(prepared)[: prepared.settings.spoken]]


def _trained(run: Run) -> dict[str, Path]:
    """The whole checkpoints of the run: of both models, whichever of them this session has trained."""
    parts = [Run(run.folder / name) for name in ("llm", "flow")]
    done = [part for part in parts if (part.folder / "result.json").is_file()]
    return {part.name: part.folder / part.result()["whole"] for part in done if part.result()["whole"]}


def _extractor(asked: Settings) -> Extractor | None:
    """The user's ONNX files, on the demo its own statistics, else none."""
    if asked.campplus:
        return OnnxExtractor(project_path(asked.speech_tokenizer), project_path(asked.campplus))
    return None if asked.data else StandIns.load(open_demo() / "stand_ins.npz")


def _rows(prepared: Prepared) -> list[dict[str, Any]]:
    """Held-out rows of the speaker who has most of them."""
    plan = prepared.corpus.held
    lengths = plan.lengths
    speaker = np.bincount(lengths.speakers[plan.rows]).argmax()
    chosen = plan.rows[lengths.speakers[plan.rows] == speaker][:REAL]
    reader = RowReader(lengths.paths)
    return [reader.row(int(lengths.shards[row]), int(lengths.rows[row])) for row in chosen]
