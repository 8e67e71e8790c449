"""A MeloTTS generator from its checkpoint and the config.json of its training, ready to speak."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from tts_kernel.audio.wav import Hz
from tts_kernel.models.config_types import ConfigError
from tts_kernel.models.melotts.config_values import PublicConfig, read_config
from tts_kernel.models.melotts.layers import fold_weight_norm
from tts_kernel.models.melotts.synthesizer import Synthesizer
from tts_kernel.models.melotts.weights import BY_NUMBER, SECOND_FEATURES, SPEAKERS, load_weights
from tts_kernel.models.melotts.weights import SYMBOLS as SYMBOL_TABLE
from tts_kernel.models.weights import CheckpointError, LoadReport, plain_names, read_checkpoint, state_of
from tts_kernel.text.symbols import MELOTTS, SYMBOLS, Symbols

log = logging.getLogger(__name__)

LATEST = "G_latest.pth"


@dataclass(frozen=True)
class Generator:
    model: Synthesizer  # in eval mode, weight norm folded
    symbols: Symbols
    speakers: dict[str, int]  # numbers by name; empty where config.json lists none
    sample_rate: Hz
    text_encoder: str  # BGEM3.identity of its training; empty where config.json does not say
    reads_features: bool  # False after a training with other text encoders than BGE-M3
    report: LoadReport  # what became of every tensor of the checkpoint

    @property
    def numbers(self) -> set[int]:
        """Speakers that have been trained, as far as config.json says."""
        return set(self.speakers.values()) or set(range(self.model.config.n_speakers))


def open_generator(model_path: Path, config_path: Path) -> Generator:
    """`model_path` as `find_generator` takes it. Symbols and speakers that a config does not name, as the one a
    training starts from, are those of the config.json beside the checkpoint; without either the symbols are MeloTTS's
    or ours, whichever are as many. How many tones and languages there are the checkpoint says.
    Raises ConfigError for a config.json that is missing or wrong; CheckpointError naming all that the two disagree
    about, and for a checkpoint that is missing, damaged or of another kind."""
    path = find_generator(model_path)
    public = _with_names(read_config(config_path), path.with_name("config.json"))
    tables = _table_sizes(path)
    symbols = _symbols(public, tables.get(SYMBOL_TABLE), path, config_path)
    said = {SYMBOL_TABLE: (len(symbols), "symbols"), SPEAKERS: (public.model.n_speakers, "speakers (n_speakers)")}
    wrong = [
        f"{tables[name]} {what}, {config_path} says {size}"
        for name, (size, what) in said.items()
        if tables.get(name, size) != size
    ]
    if wrong:
        raise CheckpointError(f"{path}: has {'; has '.join(wrong)}; take the config.json of the same training")
    tones, languages = (tables.get(name, 1) for name in BY_NUMBER)
    sizes = replace(public.model, n_vocab=len(symbols), num_tones=tones, num_languages=languages, ja_bert_channels=0)
    model = Synthesizer(sizes)
    names = public.speakers or None
    report = load_weights(model, path, file_speakers=names, model_speakers=names)
    reads = not any(name.startswith(SECOND_FEATURES) for name in report.dropped)
    log.info("%s: %s", path, report)
    if not reads:
        log.warning("%s was trained with other text encoders than BGE-M3, and speaks without their features", path)
    model = fold_weight_norm(model).eval().requires_grad_(False)
    return Generator(model, symbols, public.speakers, public.sampling_rate, public.text_encoder, reads, report)


def find_generator(path: Path) -> Path:
    """A file as it is; of a folder, or the `checkpoints` in it, the `G_latest.pth`, else the `G_*.pth` of most steps.
    Raises CheckpointError where there is none."""
    if not path.is_dir():
        return path
    for folder in (path, path / "checkpoints"):
        if (folder / LATEST).is_file():
            return folder / LATEST
        steps = {int(found[1]): file for file in folder.glob("G_*.pth") if (found := re.search(r"_(\d+)$", file.stem))}
        if steps:
            return steps[max(steps)]
    raise CheckpointError(f"{path}: no {LATEST} and no G_<step>.pth, there or in checkpoints/; name the checkpoint")


def _with_names(public: PublicConfig, beside: Path) -> PublicConfig:
    if (public.symbols and public.speakers) or not beside.is_file():
        return public
    other = read_config(beside)
    return replace(
        public,
        symbols=public.symbols or other.symbols,
        speakers=public.speakers or other.speakers,
        text_encoder=public.text_encoder or other.text_encoder,
    )


def _table_sizes(path: Path) -> dict[str, int]:
    """Rows of the tables that a checkpoint has."""
    state = plain_names(state_of(read_checkpoint(path), str(path)))
    return {name: len(state[name]) for name in (SYMBOL_TABLE, SPEAKERS, *BY_NUMBER) if name in state}


def _symbols(public: PublicConfig, rows: int | None, path: Path, config_path: Path) -> Symbols:
    if public.symbols:
        try:
            return Symbols(public.symbols)
        except ValueError as error:
            raise ConfigError(f"{config_path}: {error}") from error
    known: Mapping[int | None, Symbols] = {len(MELOTTS): Symbols(MELOTTS), len(SYMBOLS): SYMBOLS, None: SYMBOLS}
    if rows not in known:
        raise CheckpointError(
            f"{path}: has {rows} symbols, which {config_path} does not list (symbols), expected {len(MELOTTS)} as "
            f"MeloTTS or {len(SYMBOLS)} as we; take the config.json of the same training"
        )
    return known[rows]
