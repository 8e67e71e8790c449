"""What a run reads: both lists, their speakers, and the sentences that are spoken while it trains."""

from __future__ import annotations

import hashlib
import logging
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from tts_kernel.data.buckets import BucketPlan, discards
from tts_kernel.data.corpora.table import CorpusError
from tts_kernel.data.sampler import BatchPlan, padding_waste
from tts_kernel.data.spoken import Clips, Spectrograms, SpokenDataset, SpokenStore, read_clips
from tts_kernel.recipes.melotts.guide_config import GuideConfig
from tts_kernel.recipes.melotts.model import symbols_of
from tts_kernel.recipes.melotts.settings import Settings
from tts_kernel.runs import cache_folder, project_path
from tts_kernel.text.bge_m3 import BGEM3
from tts_kernel.training.speed import choose_device

log = logging.getLogger(__name__)

Batching = Literal["windows", "buckets"]
WINDOW = 256  # batches among which a clip finds others of its length
SPOKEN = (  # language, text; the last one mixes languages
    ("KR", "오늘 날씨가 정말 좋네요."),
    ("EN", "The weather is very nice today."),
    ("ZH", "今天的天气真的很好。"),
    ("JP", "きょうは とても いい てんきですね。"),
    ("KR", "내일 meeting 시간을 알려 주세요."),
)


@dataclass(frozen=True)
class Corpus:
    """Both splits, ready for batches."""

    store: SpokenStore
    spectrograms: Spectrograms
    train: Clips
    held: Clips
    speakers: dict[str, int]  # rows of the speaker table

    def data(self, clips: Clips, gigabytes: float) -> SpokenDataset:
        return SpokenDataset(clips, self.store, self.speakers, self.spectrograms, gigabytes)

    def __str__(self) -> str:
        lines = [str(self.train), str(self.held)]
        lost = discards(self.train.frames)
        if lost:
            named = ", ".join(f"{count:,} of {reason}" for reason, count in lost.items())
            lines.append(f"MeloTTS's buckets would discard {sum(lost.values()):,} clips to train on: {named}")
        return "\n".join(lines)


def open_corpus(settings: Settings, config: GuideConfig | None) -> Corpus:
    """Read both lists, and compute what is not in the store yet. Raises CorpusError, EncoderError, and FeatureError for
    a recording that changes meanwhile."""
    device = choose_device(settings.device).type
    encoder = BGEM3(project_path(settings.encoder), device, half=device == "cuda")
    store = SpokenStore(_store_folder(settings), encoder, symbols_of(config))
    folder = project_path(settings.data)
    problems, splits = [], []
    for name in (settings.train_list, settings.val_list):
        try:
            splits.append(read_clips(folder / name, store, segment_frames=settings.segment_frames))
        except CorpusError as error:
            problems.append(str(error))
    if problems:
        raise CorpusError("\n".join(problems))
    train, held = splits
    store.fill([(text, code) for code, text in SPOKEN[: settings.samples]], progress=False)
    speakers = _numbered(train, held, settings, config.speakers if config else {})
    spectrograms = Spectrograms(store.folder / "spectrograms", settings.keep_on_disk)
    for clips in splits:
        log.info("%s: %s", clips.source.name, spectrograms.fill(clips))
    return Corpus(store, spectrograms, train, held, speakers)


def plan_of(clips: Clips, batch_size: int, seed: int = 0, *, shuffle: bool = True) -> BatchPlan:
    """Batches of clips of like lengths; every clip is used in every epoch."""
    count = len(clips)
    return BatchPlan(np.arange(count), clips.frames, count, batch_size, WINDOW * batch_size, seed, shuffle)


def training_plan(clips: Clips, batch_size: int, seed: int, batching: Batching) -> BatchPlan | BucketPlan:
    """Our "windows", see `plan_of`, or the reference's "buckets", which discard clips and repeat others, in an order
    that knows no seed. Raises CorpusError where they would discard all."""
    if batching == "windows":
        return plan_of(clips, batch_size, seed)
    plan = BucketPlan(np.arange(len(clips)), clips.frames, batch_size)
    try:
        plan.updates_per_epoch()
    except ValueError as error:
        raise CorpusError(f"{clips.source}: {error}") from error
    return plan


def padding_of(plan: BatchPlan | BucketPlan) -> float:
    """Share of a plan's positions that are padding."""
    return plan.padding_waste() if isinstance(plan, BucketPlan) else padding_waste(plan)


def fingerprint(clips: Clips, count: int | None = None) -> int:
    """Which clips these are, in which order and of what lengths and sentences."""
    found = zlib.crc32("\n".join([*clips.ids[:count], *clips.sentences[:count], *clips.speakers[:count]]).encode())
    return zlib.crc32(np.ascontiguousarray(clips.frames[:count]).tobytes(), found)


def _numbered(train: Clips, held: Clips, settings: Settings, known: dict[str, int]) -> dict[str, int]:
    """The config's numbers where it has some, else by name. Raises CorpusError where the table is too small, where a
    speaker has no number, and for one that is held out and never trained on."""
    own = sorted(set(train.speakers))
    strange = sorted(set(held.speakers) - set(own))
    numbers = dict(known) or {name: number for number, name in enumerate(own)}
    problems = []
    if strange:
        problems.append(f"{held.source}: {len(strange)} speakers who are not in {train.source.name}: {strange[:4]}")
    absent = [name for name in own if name not in numbers]
    if absent:
        problems.append(f"{settings.config}: spk2id lacks {len(absent)} speakers of the lists: {absent[:4]}")
    highest = max([*numbers.values(), len(own) - 1])
    if highest >= settings.n_speakers:
        problems.append(
            f"n_speakers: found {settings.n_speakers}, the lists have {len(own)} speakers numbered up to {highest}; "
            f"expected at least {highest + 1}"
        )
    if problems:
        raise CorpusError("\n  ".join(["the speakers cannot be trained on:", *problems]))
    return numbers


def _store_folder(settings: Settings) -> Path:
    if settings.store:
        return project_path(settings.store)
    where = hashlib.sha256(str(project_path(settings.data).resolve()).encode()).hexdigest()[:12]
    return cache_folder() / f"melotts-{where}"
