"""A trained voice into a folder that speaks by itself, beside those that are there already.

speaker_config.json, spk2embedding.pt    all voices of the folder
voices/NAME/llm.pt, flow.pt              merged checkpoints of one
config.yaml, hift.pt, the tokenizer      of the base model, for all voices (synthesis/model_folder.py)
.export                                  empty; locked while a voice is added
"""

from __future__ import annotations

import fcntl
import filecmp
import logging
import os
import re
import shutil
from functools import partial
from pathlib import Path

from torch import Tensor

from tts_kernel.data.features.folder_lock import locked
from tts_kernel.models.config_types import ConfigError
from tts_kernel.models.cosyvoice2.flow import TokenToMel
from tts_kernel.models.cosyvoice2.hift import HiftGenerator
from tts_kernel.models.cosyvoice2.llm import SpeechLanguageModel
from tts_kernel.synthesis import embeddings, speaker_config
from tts_kernel.synthesis.model_folder import (
    CONFIG,
    TOKENIZERS,
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
# Of a tokenizer's folder, which may hold a language model, too, or be the base's own.
_TOKENIZER = (
    *("tokenizer.json", "tokenizer_config.json", "vocab.json", "merges.txt", "special_tokens_map.json"),
    *("added_tokens.json", "chat_template.jinja", "config.json", "generation_config.json"),
)


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
    if (shared := attempt(problems, lambda: _shared(base, sizes))) is not None:
        problems += _of_another_base(folder, shared)
    if (hift := sizes.hift) is not None:
        attempt(problems, lambda: check_weights(HiftGenerator, hift, base / "hift.pt"))
    there = ((speaker_config.NAME, read_speaker_config), (embeddings.NAME, embeddings.read_embeddings))
    for file, read in there:  # what the voice is to join must be readable
        if (folder / file).exists():
            attempt(problems, partial(read, folder / file))
    if problems:
        raise SpeakerError("\n  ".join([f"voice {name!r} is not exported:", *problems]))
    return sizes


def _shared(base: Path, sizes: Sizes) -> dict[str, Path]:
    """The files that all voices of a folder share, by their place in it. Raises FileNotFoundError without tokenizer."""
    tokenizer = tokenizer_path(base)
    shared = {tokenizer.name: tokenizer}
    if tokenizer.is_dir():
        there = [name for name in _TOKENIZER if (tokenizer / name).is_file()]
        shared = {(tokenizer / name).relative_to(base).as_posix(): tokenizer / name for name in there}
    return shared if sizes.hift is None else shared | {"hift.pt": base / "hift.pt"}


def _of_another_base(folder: Path, shared: dict[str, Path]) -> list[str]:
    """Files of the folder that are not the base's, with which the voice would sound wrong and nobody would know why."""
    expected = {Path(name).parts[0] for name in shared}
    others = [folder / name for name in TOKENIZERS if (folder / name).exists() and name not in expected]
    for name, source in shared.items():
        if (folder / name).is_file() and source.is_file() and not filecmp.cmp(folder / name, source, shallow=False):
            others.append(folder / name)
    return [f"{path} belongs to voices of another base; export to another folder" for path in others]


def _copy_base(folder: Path, base: Path, sizes: Sizes) -> None:
    """What the folder does not have yet."""
    for name, source in _shared(base, sizes).items():
        if not (folder / name).exists():
            (folder / name).parent.mkdir(exist_ok=True)
            _copy(source, folder / name)
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
