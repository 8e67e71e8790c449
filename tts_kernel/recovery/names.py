"""What other trainers call a metric, and what it is called here.

The guide's trainer for IndexTTS-2 writes train/gradient_norm_preclip, CosyVoice TRAIN/grad_norm, TensorBoard's table
for it is named after train_grad_norm; every history has train/grad_norm.
"""

from __future__ import annotations

import re

_SUBSETS = {"train": "train", "training": "train"}
_SUBSETS |= dict.fromkeys(("val", "valid", "validation", "cv", "dev", "eval"), "val")
_RENAMED = {
    "learning_rate": "lr",
    "gradient_norm": "grad_norm",
    "gradient_norm_preclip": "grad_norm",
    "gpu_memory_allocated_gb": "memory_gb",
    "gpu_memory_gb": "memory_gb",
    "code_loss": "mel_loss",
    "semantic_loss": "mel_loss",
}
_OTHER_UNITS = {"steps_per_min": ("steps_per_second", 1 / 60), "samples_per_sec": ("pairs_per_second", 1.0)}
_OF_TRAINING = {
    "loss",
    "text_loss",
    "mel_loss",
    "gpt_loss",
    "speaker_loss",
    "speaker_acc",
    "mel_top1",
    "lr",
    "grad_norm",
}
_OF_TRAINING |= {"grl_lambda", *_RENAMED, *_OTHER_UNITS}
_FLAT = re.compile(r"(train|val)_(?=[a-z])", re.IGNORECASE)


def house_name(name: str, subset: str = "") -> tuple[str, float]:
    """Of a metric, and the factor that brings its values to the unit of that name. `subset` is what its source says
    beside the name: "TRAIN", "val". A name that is not known stays as it is."""
    if subset and "/" not in name:
        name = f"{subset}/{name}"
    elif flat := _FLAT.match(name):
        name = f"{flat[1]}/{name[flat.end() :]}"
    elif name.lower() in _OF_TRAINING:
        name = f"train/{name}"
    begin, slash, rest = name.partition("/")
    if not slash or begin.lower() not in _SUBSETS:
        return name, 1.0
    rest = rest.lower().removeprefix(f"{begin.lower()}_")  # val/val_time
    rest, factor = _OTHER_UNITS.get(rest, (_RENAMED.get(rest, rest), 1.0))
    return f"{_SUBSETS[begin.lower()]}/{rest}", factor
