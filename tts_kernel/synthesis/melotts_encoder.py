"""Where the text encoder of a MeloTTS checkpoint lies, for those who do not name it."""

from __future__ import annotations

import json
from pathlib import Path

from tts_kernel.recipes.melotts import demo
from tts_kernel.runs import project_path

FOLDER = "bge-m3"


def find_encoder(checkpoint: Path, config_path: Path) -> Path | None:
    """The folder `bge-m3` beside the config, or beside the checkpoint or in the two folders above it; else the encoder
    of the run that the checkpoint lies in. None where there is neither."""
    above = checkpoint.absolute().parents[:3]
    for folder in (config_path.absolute().parent, *above):
        if (folder / FOLDER).is_dir():
            return folder / FOLDER
    for folder in above:
        try:
            settings = json.loads((folder / "settings.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        if isinstance(settings, dict) and isinstance(settings.get("encoder"), str):
            if settings["encoder"]:
                return project_path(settings["encoder"])
            return demo.open_demo() / FOLDER if settings.get("data") == "" else None
    return None
