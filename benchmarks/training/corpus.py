"""A corpus and a model to train on it: clips as long as Emilia's, and codes that can be learnt.

Lengths and pairs are those of benchmarks/data/generate.py: 3 to 30 s, 8.6 s on average, 25 codes and 3.5 text tokens
a second, two pairs per clip. Codes and text follow chains in which four tokens may come after each, so that a loss
falls with training; a mel carries its speaker. The model is the published one at 0.3 of its width and a quarter of its
layers, with vocabularies that keep the heads' share of the arithmetic.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np

from benchmarks.data.generate import PAIRS_PER_TARGET, make_clips, make_rows
from benchmarks.data.measure import Figures
from benchmarks.data.ordering import FRAMES_PER_SECOND
from tts_kernel.models.indextts2.config import ConditionerConfig, GPTConfig

PAIRS = 2000
HELD_OUT = 64  # pairs to validate on
BASE = "base/gpt.pth"
TRAIN, VALIDATION = "gpt_pairs_train.jsonl", "gpt_pairs_val.jsonl"
_SMALL = ConditionerConfig(output_size=128, linear_units=256, attention_heads=4, num_blocks=4)
MODEL = GPTConfig(
    layers=6,
    model_dim=384,
    heads=6,
    number_text_tokens=1200,
    number_mel_codes=1026,
    start_mel_token=1024,
    stop_mel_token=1025,
    condition_module=_SMALL,
    emo_condition_module=_SMALL,
    emotion_width=256,
    semantic_input_size=40,
    emo_mel_input_size=80,
)
SHAPES = {
    "large": MODEL,  # arithmetic takes all the time
    "small": replace(MODEL, layers=3, model_dim=128, heads=2),  # trains to a loss in a minute
    "published": GPTConfig().reading("mel"),
}
_FOLLOWERS, _CHANCES = 4, (0.6, 0.25, 0.1, 0.05)


def make_data(data: str, shape: str, pairs: int) -> Figures:
    """`data` with both manifests, every feature as a float32 .npy and packed, and a base model of this shape."""
    import torch

    from tts_kernel.data.features.pack import pack
    from tts_kernel.models.indextts2.gpt import UnifiedVoice
    from tts_kernel.runs import write_yaml

    root, config = Path(data), SHAPES[shape]
    make_features(root, config, (pairs + HELD_OUT) // PAIRS_PER_TARGET)
    pack(root)
    (root / BASE).parent.mkdir()
    torch.manual_seed(0)
    torch.save({"model": UnifiedVoice(config).state_dict()}, root / BASE)
    write_yaml(root / "base" / "config.yaml", {"gpt": config.to_mapping()})
    return {"pairs": pairs}


def make_features(root: Path, config: GPTConfig, count: int) -> None:
    """Arrays of `count` clips, and their pairs: the last clips' are held out."""
    clips, random = make_clips(count), np.random.default_rng(5)
    for kind in ("text_ids", "codes", "condition", "emo_vec", "mel"):
        (root / kind).mkdir(parents=True)
    code_chain = random.integers(0, config.num_codes, (config.num_codes, _FOLLOWERS))
    text_chain = random.integers(2, config.number_text_tokens, (config.number_text_tokens, _FOLLOWERS))
    voices = random.standard_normal((len(clips.speakers.dictionary), 80))
    frames = np.rint(clips.seconds * FRAMES_PER_SECOND).astype(int)
    names = clips.ids.to_pylist()
    for number, (clip, speaker) in enumerate(zip(names, clips.speakers.indices.to_pylist(), strict=True)):
        mel = voices[speaker] + random.standard_normal((frames[number], 80))
        arrays = {
            "text_ids": _walk(text_chain, clips.text_tokens[number], 2, random),
            "codes": _walk(code_chain, clips.codes[number], 0, random),
            "condition": random.standard_normal((config.condition_num_latent, config.model_dim)).astype(np.float32),
            "emo_vec": random.standard_normal(config.model_dim).astype(np.float32),
            "mel": mel.astype(np.float32),
        }
        for kind, array in arrays.items():
            np.save(root / kind / f"{clip}.npy", array)
    lengths = dict(zip(names, frames.tolist(), strict=True))
    rows = [json.loads(line) for part in make_rows(clips, count * PAIRS_PER_TARGET) for line in part.to_pylist()]
    for row in rows:
        row |= {"target_mel_path": f"mel/{row['target_id']}.npy", "target_mel_len": lengths[row["target_id"]]}
    held = {row["target_id"] for row in rows[-HELD_OUT:]}
    write_rows(root / VALIDATION, [row for row in rows if row["target_id"] in held])
    write_rows(root / TRAIN, [row for row in rows if not {row["target_id"], row["prompt_id"]} & held])


def write_rows(path: Path, rows: list[dict[str, object]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def _walk(chain: np.ndarray, length: int, start: int, random: np.random.Generator) -> np.ndarray:
    """(length,) tokens, each one of the four that may follow the one before."""
    choices = random.choice(_FOLLOWERS, length, p=_CHANCES)
    tokens = np.empty(length, dtype=np.int64)
    token = start + int(random.integers(0, 64))
    for place, choice in enumerate(choices):
        tokens[place] = token
        token = int(chain[token, choice])
    return tokens
