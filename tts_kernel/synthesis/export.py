"""A trained voice into a folder that speaks by itself, beside those that are there already.

speaker_config.json, spk2embedding.pt    all voices of the folder
voices/NAME/llm.pt, flow.pt              merged checkpoints of one
config.yaml, hift.pt, the tokenizer      of the base model, for all voices (synthesis/model_folder.py)
.export                                  empty; locked while a voice is added
"""

from __future__ import annotations

import fcntl
import logging
import os
import re
import shutil
from functools import partial
from pathlib import Path

from torch import Tensor

from tts_kernel.data.features.folder_lock import locked
from tts_kernel.models.cosyvoice2.config import ConfigError
from tts_kernel.models.cosyvoice2.flow import TokenToMel
from tts_kernel.models.cosyvoice2.hift import HiftGenerator
from tts_kernel.models.cosyvoice2.llm import SpeechLanguageModel
from tts_kernel.synthesis import embeddings, speaker_config
from tts_kernel.synthesis.model_folder import (
    CONFIG,
    Sizes,
    attempt,
    check_weights,
    read_sizes,
    tokenizer_path,
    write_sizes,
)
from tts_kernel.synthesis.speaker_config import Speaker, SpeakerError, add_speaker, read_speaker_config
from tts_kernel.synthesis.voice import Voice, check_voice

log = logging.getLogger(__name__)

_FOLDER_NAME = re.compile(r"\w[\w.-]{0,63}")  # letters of any script: what becomes a folder's name
_NO_TOKENIZER = ("*.safetensors", "*.bin", "*.pt", "*.pth", ".git*")  # CosyVoice-BlankEN holds a language model, too


def export_voice(
    folder: Path,
    name: str,
    *,
    llm: Path,
    flow: Path,
    embedding: Tensor,
    base: Path,
    description: str = "",
    active: bool = True,
    default: bool = False,
) -> Path:
    """Add a voice to `folder`, new or with other voices: merged checkpoints `llm` and `flow`, embedding (dim,); what
    voices share comes from the folder `base`. An earlier voice of this name is replaced. Returns the path of
    speaker_config.json, which is written last, so that it never names what is not there yet.
    Raises SpeakerError listing all that is wrong, before anything is written."""
    folder, base = Path(folder), Path(base)
    sizes = _checked(folder, name, Path(llm), Path(flow), embedding, base)
    home = folder / "voices" / name
    home.mkdir(parents=True, exist_ok=True)
    with locked(folder / ".export", fcntl.LOCK_EX, patient=True):  # two runs may end at once
        _copy_base(folder, base, sizes)
        _copy(Path(llm), home / "llm.pt")
        _copy(Path(flow), home / "flow.pt")
        embeddings.add_embedding(folder / embeddings.NAME, name, embedding)
        inside = home.relative_to(folder).as_posix()
        entry = Speaker("lora", f"{inside}/llm.pt", f"{inside}/flow.pt", embeddings.NAME, description, active)
        add_speaker(folder / speaker_config.NAME, name, entry, default)
    log.info("voice %s exported to %s", name, folder)
    return folder / speaker_config.NAME


def _checked(folder: Path, name: str, llm: Path, flow: Path, embedding: Tensor, base: Path) -> Sizes:
    """Sizes of the base. Raises SpeakerError."""
    problems: list[str] = []
    if not _FOLDER_NAME.fullmatch(name):
        problems.append(f"name {name!r}: expected letters, digits, '.', '_' and '-', starting with a letter or digit")
    try:
        sizes = read_sizes(base)
        if (folder / CONFIG).is_file() and read_sizes(folder) != sizes:
            problems.append(f"{folder} holds voices of models with other sizes than {base}; export to another folder")
    except ConfigError as error:
        raise SpeakerError(f"voice {name!r} is not exported:\n  {error}") from error
    attempt(problems, lambda: check_weights(SpeechLanguageModel, sizes.llm, llm))
    attempt(problems, lambda: check_weights(TokenToMel, sizes.flow, flow))
    attempt(problems, lambda: check_voice(Voice(embedding), sizes.flow))
    attempt(problems, lambda: tokenizer_path(base))
    if (hift := sizes.hift) is not None:
        attempt(problems, lambda: check_weights(HiftGenerator, hift, base / "hift.pt"))
    there = ((speaker_config.NAME, read_speaker_config), (embeddings.NAME, embeddings.read_embeddings))
    for file, read in there:  # what the voice is to join must be readable
        if (folder / file).exists():
            attempt(problems, partial(read, folder / file))
    if problems:
        raise SpeakerError("\n  ".join([f"voice {name!r} is not exported:", *problems]))
    return sizes


def _copy_base(folder: Path, base: Path, sizes: Sizes) -> None:
    """What the folder does not have yet."""
    tokenizer = tokenizer_path(base)
    files = [base / "hift.pt"] if sizes.hift is not None else []
    if tokenizer.is_dir():
        target = folder / "CosyVoice-BlankEN"
        if not target.exists():
            building = target.with_name(f".{target.name}.{os.getpid()}")
            shutil.copytree(tokenizer, building, ignore=shutil.ignore_patterns(*_NO_TOKENIZER))
            os.rename(building, target)
    else:
        files.append(tokenizer)
    for file in files:
        if not (folder / file.name).exists():
            _copy(file, folder / file.name)
    if not (folder / CONFIG).is_file():
        write_sizes(folder, sizes)


def _copy(source: Path, target: Path) -> None:
    """Whole or not at all."""
    if target.exists() and source.samefile(target):
        return
    scratch = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        shutil.copyfile(source, scratch)
        os.replace(scratch, target)
    finally:
        scratch.unlink(missing_ok=True)
