"""The files of a CosyVoice2 folder, as downloaded or exported, and the models in them.

config.yaml                     sizes of the models (sections llm, flow, hift); what is not there is CosyVoice2-0.5B's.
                                `hift: griffin-lim` does without a vocoder's weights
llm.pt, flow.pt, hift.pt        weights under the published names
bpe.model or CosyVoice-BlankEN/  text tokenizer: SentencePiece, or Qwen2's; a tokenizer.json beside the weights will do
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import torch
import yaml

from tts_kernel.audio.wav import Hz
from tts_kernel.data.pipeline import Encoder
from tts_kernel.data.pipeline.lengths import RATE
from tts_kernel.models.config_types import ConfigError
from tts_kernel.models.cosyvoice2.config import FlowConfig, HiftConfig, LLMConfig
from tts_kernel.models.cosyvoice2.config_values import config_from_mapping, to_mapping
from tts_kernel.models.cosyvoice2.flow import TokenToMel
from tts_kernel.models.cosyvoice2.hift import HiftGenerator
from tts_kernel.models.cosyvoice2.llm import SpeechLanguageModel
from tts_kernel.models.cosyvoice2.weights import load_weights
from tts_kernel.models.weights import CheckpointError, LoadReport
from tts_kernel.runs import write_yaml
from tts_kernel.synthesis.griffin_lim import GriffinLim

log = logging.getLogger(__name__)

CONFIG, TOKENIZERS = "config.yaml", ("bpe.model", "CosyVoice-BlankEN", "tokenizer.json")
GRIFFIN_LIM = "griffin-lim"  # in the place of section hift
Model = TypeVar("Model", SpeechLanguageModel, TokenToMel, HiftGenerator)
Made = TypeVar("Made")
_SECTIONS: dict[str, Any] = {"llm": LLMConfig, "flow": FlowConfig, "hift": HiftConfig}


@dataclass(frozen=True)
class Sizes:
    """Of the three models; the defaults are CosyVoice2-0.5B's."""

    llm: LLMConfig = field(default_factory=LLMConfig)
    flow: FlowConfig = field(default_factory=FlowConfig)
    hift: HiftConfig | None = field(default_factory=HiftConfig)  # None for Griffin-Lim, which has no weights

    @property
    def sample_rate(self) -> Hz:
        """Of what the vocoder makes."""
        return RATE if self.hift is None else self.hift.sampling_rate


def read_sizes(folder: Path) -> Sizes:
    """Of config.yaml, or the published ones where there is none. Raises ConfigError naming the file and every unknown
    or wrong setting."""
    path = folder / CONFIG
    if not path.is_file():
        log.info("%s: no %s, so the models are taken to have CosyVoice2-0.5B's sizes", folder, CONFIG)
        return Sizes()
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not YAML: {error}") from error
    if not isinstance(values, dict) or not values.keys() <= _SECTIONS.keys():
        found = ", ".join(map(str, values)) if isinstance(values, dict) else type(values).__name__
        raise ConfigError(f"{path}: found {found}, expected the sections llm, flow and hift")
    made: dict[str, Any] = {}
    problems = []
    for name, section in values.items():
        if name == "hift" and section == GRIFFIN_LIM:
            made[name] = None
        elif not isinstance(section, dict):
            problems.append(f"{name} is {section!r}, expected a section")
        else:
            try:
                made[name] = config_from_mapping(_SECTIONS[name], section, where=name)
            except ConfigError as error:
                problems.append(str(error))
    if problems:
        raise ConfigError(f"{path}: {'; '.join(problems)}")
    return Sizes(**made)


def write_sizes(folder: Path, sizes: Sizes) -> None:
    """config.yaml, whole or not at all."""
    sections = {name: getattr(sizes, name) for name in _SECTIONS}
    write_yaml(
        folder / CONFIG, {name: to_mapping(section) if section else GRIFFIN_LIM for name, section in sections.items()}
    )


def tokenizer_path(folder: Path) -> Path:
    """What `Encoder.of` opens. Raises FileNotFoundError naming what was sought."""
    for name in TOKENIZERS:
        if (folder / name).exists():
            return folder if name == "tokenizer.json" else folder / name
    raise FileNotFoundError(f"{folder}: no tokenizer; expected one of {', '.join(TOKENIZERS)}")


def open_tokenizer(folder: Path) -> Callable[[str], list[int]]:
    """Text -> ids. Raises FileNotFoundError, or ValueError naming the file."""
    return Encoder.of(tokenizer_path(folder)).encode


def open_model(model: Model, path: Path, device: torch.device | str = "cpu") -> Model:
    """Weights into a new model, strictly; in eval mode. Raises CheckpointError, also for LoRA weights that were never
    merged: without them the voice would be the base model's."""
    log.info("%s: %s", path, _load(model, path))
    return model.eval().to(device)


def _load(model: Model, path: Path) -> LoadReport:
    report = load_weights(model, path)
    if report.unmerged:
        names = f"{report.unmerged[0]} and {len(report.unmerged) - 1} more"
        raise CheckpointError(
            f"{path}: holds LoRA weights that were never merged ({names}); merge them and export again"
        )
    return report


def open_vocoder(
    sizes: HiftConfig | None, path: Path, device: torch.device | str = "cpu"
) -> HiftGenerator | GriffinLim:
    """hift.pt, or Griffin-Lim where the sizes say so. Raises CheckpointError."""
    return GriffinLim().to(device) if sizes is None else open_model(HiftGenerator(sizes), path, device)


def attempt(problems: list[str], make: Callable[[], Made]) -> Made | None:
    """What `make` makes, or None and one problem more: so that all of them can be said at once."""
    try:
        return make()
    except (ValueError, OSError) as error:
        problems.append(str(error))
        return None


def check_weights(kind: type[Model], sizes: LLMConfig | FlowConfig | HiftConfig, path: Path) -> None:
    """As `open_model`, of a model that takes no memory: names and shapes. Raises CheckpointError."""
    with torch.device("meta"):
        model = kind(sizes)  # type: ignore[arg-type]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="for .*: copying from a non-meta parameter")
        _load(model, path)
