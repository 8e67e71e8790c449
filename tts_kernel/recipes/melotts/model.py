"""The three networks of a run: their sizes, their first weights, and where those of a checkpoint fit."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from tts_kernel.models.config_types import ConfigError
from tts_kernel.models.melotts.config import DurationDiscriminatorConfig, SynthesizerConfig
from tts_kernel.models.melotts.config_values import read_config
from tts_kernel.models.melotts.discriminators import DurationDiscriminator, MultiPeriodDiscriminator
from tts_kernel.models.melotts.synthesizer import Synthesizer
from tts_kernel.models.melotts.weights import load_weights
from tts_kernel.recipes.melotts.guide_config import GuideConfig
from tts_kernel.recipes.melotts.settings import Settings
from tts_kernel.runs import project_path
from tts_kernel.text.symbols import SYMBOLS, Symbols

log = logging.getLogger(__name__)

NARROW = 8  # the demo's discriminators have an eighth of the published widths
# The published architecture, for two minutes on two cores.
DEMO = SynthesizerConfig(
    inter_channels=16,
    hidden_channels=32,
    filter_channels=64,
    n_layers=3,
    p_dropout=0.0,
    gin_channels=32,
    resblock_kernel_sizes=(3, 5),
    resblock_dilation_sizes=((1, 3), (1, 3)),
    upsample_rates=(8, 8, 8),
    upsample_kernel_sizes=(16, 16, 16),
    upsample_initial_channel=128,
)


class Networks(nn.Module):
    """Under the names of their files."""

    def __init__(self, config: SynthesizerConfig, *, narrow: int = 1, durations: bool = True) -> None:
        super().__init__()
        self.G = Synthesizer(config)
        self.D = MultiPeriodDiscriminator(narrow)
        self.DUR = DurationDiscriminator(DurationDiscriminatorConfig.beside(config)) if durations else None

    def parts(self) -> dict[str, nn.Module]:
        return {name: part for name, part in self.named_children() if part is not None}


def sizes(settings: Settings, config: GuideConfig | None, width: int) -> SynthesizerConfig:
    """Of the generator, for text features of this width. Raises ConfigError where a config says otherwise."""
    base = config.model if config else DEMO if settings.model == "demo" else SynthesizerConfig()
    if config and base.bert_channels != width:
        raise ConfigError(
            f"{settings.config}: bert_channels is {base.bert_channels}, the text encoder's features have {width}"
        )
    return replace(
        base,
        n_vocab=len(symbols_of(config)),
        n_speakers=settings.n_speakers,
        bert_channels=width,
        segment_size=settings.segment_frames,
    )


def symbols_of(config: GuideConfig | None) -> Symbols:
    """The table of a config that lists one, else ours."""
    return Symbols(config.symbols) if config and config.symbols else SYMBOLS


def build_networks(
    settings: Settings, config: SynthesizerConfig, symbols: Symbols, speakers: Mapping[str, int], text_encoder: str
) -> Networks:
    """With fresh weights, or those of the checkpoints that the settings name. Raises CheckpointError for one that does
    not fit; symbols and speakers find their rows by name, through the config.json beside the generator's file.
    `text_encoder` is the `BGEM3.identity` of the run's."""
    torch.manual_seed(settings.seed)
    narrow = NARROW if settings.model == "demo" else 1
    networks = Networks(config, narrow=narrow, durations=settings.duration_discriminator)
    if settings.base_generator:
        path = project_path(settings.base_generator)
        log.info("%s: %s", path, _load_generator(networks.G, path, symbols, speakers, text_encoder))
    for name, base in (("D", settings.base_discriminator), ("DUR", settings.base_duration)):
        network = networks.parts().get(name)
        if base and network is not None:
            assert isinstance(network, MultiPeriodDiscriminator | DurationDiscriminator)
            log.info("%s: %s", base, load_weights(network, project_path(base)))
    return networks


def _load_generator(
    model: Synthesizer, path: Path, symbols: Symbols, speakers: Mapping[str, int], text_encoder: str
) -> object:
    """By the rules of models/melotts/weights.py. What reads features of another text encoder starts fresh: a public
    model's, and a run's of ours where its config.json names another."""
    beside = path.with_name("config.json")
    if not beside.is_file():
        return load_weights(model, path)
    public = read_config(beside)
    return load_weights(
        model,
        path,
        file_symbols=public.symbols or None,
        model_symbols=symbols.names if public.symbols else None,
        file_speakers=public.speakers or None,
        model_speakers=speakers if public.speakers else None,
        new_features=public.model.ja_bert_channels > 0 or public.text_encoder not in ("", text_encoder),
    )
