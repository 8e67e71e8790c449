"""speaker_config.json: the voices that a server offers, and where their files are.

    {"speakers": {NAME: {"type": "lora", "llm_lora_model_path": ..., "flow_lora_model_path": ...,
                         "spk_embedding_path": ..., "description": ..., "active": ...}}, "default_speaker": NAME}

Paths are relative to the file, so that its folder can be moved, or absolute. JSON has no comments and neither has this
file: other servers read it, too, and adding a speaker would lose them.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path, PureWindowsPath
from typing import Any

from tts_kernel.runs import write_atomically

NAME = "speaker_config.json"
PATHS = ("llm_lora_model_path", "flow_lora_model_path", "spk_embedding_path")


class SpeakerError(ValueError):
    """Speakers that cannot be offered, or one that is not; the message lists every problem."""


@dataclass(frozen=True)
class Speaker:
    """One entry as it is written."""

    type: str  # "lora": merged checkpoints of its own, and an embedding
    llm_lora_model_path: str
    flow_lora_model_path: str
    spk_embedding_path: str  # spk2embedding.pt, which holds the speaker's name
    description: str
    active: bool  # whether it is offered


@dataclass(frozen=True)
class SpeakerConfig:
    path: Path
    speakers: dict[str, Speaker]
    default_speaker: str

    @property
    def active(self) -> list[str]:
        return [name for name, speaker in self.speakers.items() if speaker.active]

    def file(self, name: str, field: str) -> Path:
        """Where one of a speaker's PATHS leads."""
        return self.path.parent / getattr(self.speakers[name], field)


def read_speaker_config(path: Path) -> tuple[SpeakerConfig, list[str]]:
    """The entries that can be read and what is wrong with the file: keys, types, files of active speakers that are not
    there, a default speaker that is not offered, none that is. Raises SpeakerError if it is missing or no JSON, with
    the line of a comment, and for names that occur twice."""
    path = Path(path)
    values = _read_json(path)
    given = values.get("speakers")
    problems = [f"{key}: not a known key" for key in values.keys() - {"speakers", "default_speaker"}]
    if not isinstance(given, dict):
        problems.append(f"speakers: found {type(given).__name__}, expected an object with an entry per speaker")
        given = {}
    speakers = {name: speaker for name, entry in given.items() if (speaker := _speaker(name, entry, problems))}
    default = values.get("default_speaker")
    config = SpeakerConfig(path, speakers, default if isinstance(default, str) else "")
    if not config.active:
        problems.append(f"no speaker is active among {_listed(list(given))}; set active to true for one at least")
    if not isinstance(default, str) or default not in given:
        problems.append(f"default_speaker: found {default!r}, expected one of {_listed(config.active)}")
    elif default in speakers and not speakers[default].active:
        problems.append(f"default_speaker: {default!r} is not active; name one of {_listed(config.active)}")
    for name in config.active:
        for field in PATHS:
            if not config.file(name, field).is_file():
                problems.append(f"speakers.{name}.{field}: {_missing(path, getattr(speakers[name], field))}")
    return config, problems


def add_speaker(path: Path, name: str, speaker: Speaker, default: bool = False) -> None:
    """Write an entry into the file, new or there already, whole or not at all; the other entries stay as they are.
    The first speaker is the default one. Raises SpeakerError for a file that cannot be read."""
    path = Path(path)
    new: dict[str, Any] = {"speakers": {}, "default_speaker": name}
    values = _read_json(path) if path.exists() else new
    if not isinstance(values.get("speakers"), dict):
        raise SpeakerError(f"{path}: no object 'speakers' to add {name!r} to; repair the file or take it away")
    values["speakers"][name] = asdict(speaker)
    if default or "default_speaker" not in values:
        values["default_speaker"] = name
    write_atomically(path, json.dumps(values, indent=2, ensure_ascii=False) + "\n")


def _read_json(path: Path) -> dict[str, Any]:
    twice: list[str] = []

    def gather(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        names = [name for name, _ in pairs]
        twice.extend(sorted({name for name in names if names.count(name) > 1}))
        return dict(pairs)

    try:
        text = path.read_text(encoding="utf-8-sig")
        values = json.loads(text, object_pairs_hook=gather)
    except FileNotFoundError as error:
        raise SpeakerError(f"{path}: no such file; expected a {NAME}") from error
    except json.JSONDecodeError as error:
        line = text.splitlines()[error.lineno - 1].strip() if text.strip() else ""
        if text.startswith(("//", "/*", "#"), error.pos):
            reason = f"a comment ({line:.60}), and JSON has none; move its words into a description"
        else:
            reason = f"no JSON ({error.msg}: {line:.60})"
        raise SpeakerError(f"{path}:{error.lineno}: {reason}") from error
    except (UnicodeDecodeError, RecursionError, OSError) as error:
        raise SpeakerError(f"{path}: cannot be read ({error}); expected JSON in UTF-8") from error
    if twice:
        raise SpeakerError(
            f"{path}: {_listed(twice)} more than once; each name is one entry, remove or rename the others"
        )
    if not isinstance(values, dict):
        raise SpeakerError(
            f"{path}: holds a {type(values).__name__}, expected an object with speakers, default_speaker"
        )
    return values


def _speaker(name: str, entry: Any, problems: list[str]) -> Speaker | None:
    """The entry, or None and problems more."""
    where = f"speakers.{name}"
    if not isinstance(entry, dict):
        problems.append(f"{where}: found {type(entry).__name__}, expected an object")
        return None
    kinds = {item.name: bool if item.name == "active" else str for item in fields(Speaker)}
    found = [f"{where}.{key}: missing" for key in kinds if key not in entry]
    found += [f"{where}.{key}: not a known key" for key in entry if key not in kinds]
    for key, kind in kinds.items():
        if key in entry and not isinstance(entry[key], kind):
            found.append(f"{where}.{key}: found {entry[key]!r}, expected {'true or false' if kind is bool else 'text'}")
    if entry.get("type", "lora") != "lora":
        found.append(f"{where}.type: found {entry['type']!r}, expected 'lora'")
    problems += found
    return None if found else Speaker(**entry)


def _missing(path: Path, given: str) -> str:
    """What to do about a file that is not where an entry says: perhaps it lies with the configuration."""
    parts = [part for part in PureWindowsPath(given).parts if not part.endswith(("/", "\\", ":"))]  # of any system
    tails = ["/".join(parts[start:]) for start in range(len(parts)) if ".." not in parts[start:]]
    near = next((tail for tail in tails if tail != given and (path.parent / tail).is_file()), None)
    if near:
        return f"{given} is not on this machine, but {near} lies beside {path.name}; write {json.dumps(near)}"
    return f"{given} does not exist, nor does such a file beside {path.name}; copy it there, or set active to false"


def _listed(names: list[str]) -> str:
    return ", ".join(map(repr, names)) or "none"
