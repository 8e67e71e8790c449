"""A tiny corpus of random arrays, for tests that need a data folder and no speech."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np


def read_rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def write_rows(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


def make_tiny(
    folder: Path,
    *,
    speakers: int = 3,
    clips: int = 4,  # per speaker, to train on
    validation_clips: int = 2,  # per speaker, held out
    prompts: int = 2,  # pairs per target
    codes: int = 30,  # code ids lie below
    text_tokens: int = 50,  # text ids lie below; 0 and 1 are start and stop and do not occur
    mel_bins: int = 80,
    semantic_bins: int = 20,
    latents: tuple[int, int] = (4, 64),
    seed: int = 7,
) -> Path:
    """A data folder as data/demo/corpus.py documents it, random arrays instead of speech, with every optional feature.
    Clips are 6 to 15 code frames long; speakers are sp0, sp1, ... and their clips sp0_0, sp0_1, ..."""
    random = np.random.default_rng(seed)
    for name in ("mel", "codes", "semantic", "text_ids", "condition", "emo_vec"):
        (folder / name).mkdir(parents=True)
    splits: dict[str, list[dict[str, Any]]] = {"train": [], "val": []}
    for speaker in range(speakers):
        lengths: dict[str, dict[str, int]] = {}
        for number in range(clips + validation_clips):
            clip = f"sp{speaker}_{number}"
            frames, tokens = int(random.integers(6, 16)), int(random.integers(4, 12))
            arrays = {
                "mel": random.standard_normal((round(frames * 86.1 / 25), mel_bins), dtype=np.float32),
                "codes": random.integers(0, codes, frames),
                "semantic": random.standard_normal((frames, semantic_bins), dtype=np.float32),
                "text_ids": random.integers(2, text_tokens, tokens),
                "condition": random.standard_normal(latents, dtype=np.float32),
                "emo_vec": random.standard_normal(latents[1], dtype=np.float32),
            }
            lengths[clip] = {name: len(array) for name, array in arrays.items()}
            for name, array in arrays.items():
                np.save(folder / name / f"{clip}.npy", array)
        names = list(lengths)
        for split, members in (("train", names[:clips]), ("val", names[clips:])):
            for number, target in enumerate(members):
                others = [members[(number + step) % len(members)] for step in range(1, len(members))]
                splits[split] += [_pair(target, prompt, f"sp{speaker}", lengths) for prompt in others[:prompts]]
    random.shuffle(splits["train"])
    write_rows(folder / "gpt_pairs_train.jsonl", splits["train"])
    write_rows(folder / "gpt_pairs_train_mel.jsonl", splits["train"])
    write_rows(folder / "gpt_pairs_val.jsonl", splits["val"])
    return folder


def _pair(target: str, prompt: str, speaker: str, lengths: dict[str, dict[str, int]]) -> dict[str, Any]:
    return {
        "id": f"{target}__{prompt}",
        "target_id": target,
        "prompt_id": prompt,
        "speaker": speaker,
        "language": "ko",
        "target_text_ids_path": f"text_ids/{target}.npy",
        "target_text_len": lengths[target]["text_ids"],
        "target_codes_path": f"codes/{target}.npy",
        "target_code_len": lengths[target]["codes"],
        "target_mel_path": f"mel/{target}.npy",
        "target_mel_len": lengths[target]["mel"],
        "target_semantic_path": f"semantic/{target}.npy",
        "target_semantic_len": lengths[target]["semantic"],
        "prompt_semantic_path": f"semantic/{prompt}.npy",
        "prompt_semantic_len": lengths[prompt]["semantic"],
        "prompt_condition_path": f"condition/{prompt}.npy",
        "prompt_condition_len": lengths[prompt]["condition"],
        "prompt_emo_vec_path": f"emo_vec/{target}.npy",
    }
