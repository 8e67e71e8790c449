"""Generator and discriminators from the lists to their checkpoints: what runs, in the order it runs."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import asdict, dataclass, fields

import torch

from tts_kernel.data.buckets import BucketPlan
from tts_kernel.data.loader import LoaderSettings
from tts_kernel.data.sampler import BatchPlan
from tts_kernel.models.melotts.config import SynthesizerConfig
from tts_kernel.models.melotts.config_values import to_mapping
from tts_kernel.optim.optimizers import build as build_optimizer
from tts_kernel.optim.schedules import by_epoch
from tts_kernel.recipes.melotts import demo
from tts_kernel.recipes.melotts.corpus import Corpus, fingerprint, open_corpus, padding_of, plan_of, training_plan
from tts_kernel.recipes.melotts.guide_config import merged, read_guide_config, write_public_config
from tts_kernel.recipes.melotts.model import build_networks, sizes, symbols_of
from tts_kernel.recipes.melotts.objective import VoiceObjective
from tts_kernel.recipes.melotts.samples import Samples
from tts_kernel.recipes.melotts.settings import Settings
from tts_kernel.runs import Run, project_path
from tts_kernel.text.symbols import Symbols
from tts_kernel.training.gan_trainer import adversarial_updater, network_files
from tts_kernel.training.launch.hold import held
from tts_kernel.training.outcome import LoopSettings, Outcome
from tts_kernel.training.processes import Processes, check_processes
from tts_kernel.training.speed import SpeedSettings, autocast, choose_device, switched
from tts_kernel.training.trainer import Trainer

BETAS, EPS = (0.8, 0.99), 1e-9


@dataclass(frozen=True)
class Prepared:
    """A run that may start: its input is checked, nothing has been trained."""

    asked: Settings  # as the user gave them
    settings: Settings  # with the config's values, and the demo's folders where none were named
    corpus: Corpus
    symbols: Symbols
    config: SynthesizerConfig
    plan: BatchPlan | BucketPlan
    horizon: int  # updates that the run is planned for

    def __str__(self) -> str:
        settings = self.settings
        updates = self.plan.updates_per_epoch()
        return "\n".join(
            [
                str(self.corpus),
                f"{len(self.symbols)} symbols, {len(self.corpus.speakers)} of {settings.n_speakers} speakers",
                f"{self.horizon:,} updates: {settings.epochs:,} epochs of {updates:,} batches of {settings.batch_size} "
                f"clips, {padding_of(self.plan):.1%} of them padding",
                *([str(self.plan)] if isinstance(self.plan, BucketPlan) else []),
            ]
        )


def prepare(settings: Settings, run: Run) -> Prepared:
    """Open and check everything the run reads but the checkpoints' tensors. Raises SettingsError and ConfigError for
    the config, CorpusError for the lists, EncoderError for the text encoder, and ValueError for a device or precision
    that is not there."""
    check_processes(settings.processes, settings.device)
    autocast(choose_device(settings.device), settings.precision)
    asked, settings = settings, filled_in(settings)
    config = read_guide_config(project_path(settings.config)) if settings.config else None
    if config:
        settings = merged(settings, config.settings, settings.config)
    corpus = open_corpus(settings, config)
    plan = training_plan(corpus.train, settings.batch_size, settings.seed, settings.batching)
    horizon = plan.updates_per_epoch() * settings.epochs
    size = sizes(settings, config, corpus.store.encoder.width)
    return Prepared(asked, settings, corpus, symbols_of(config), size, plan, horizon)


def filled_in(settings: Settings) -> Settings:
    """With the demo's corpus and text encoder where no data were named; both are made on first use."""
    return demo.fill_in(settings)


def train(prepared: Prepared, run: Run, processes: Processes | None = None) -> Outcome:
    """Train, or go on where `run` stands, together with the other processes of this run if there are any. Leaves
    checkpoints, metrics and samples. Raises RunError for a run in use, CheckpointError for a base that does not fit,
    TrainingError for a resume that contradicts its checkpoint: all before the first step."""
    settings = prepared.settings
    processes = processes or Processes.from_environment(settings.device)
    with held(run) if processes.main else nullcontext(), switched(_speed_settings(settings), processes.device):
        trainer = make_trainer(prepared, run, processes)
        trainer.resume_if_started()
        if processes.main:  # only now: a resume that was refused leaves the run's own record as it is
            run.save_settings(prepared.asked)
            corpus = prepared.corpus
            write_public_config(
                run.checkpoints / "config.json",
                settings,
                prepared.config,
                prepared.symbols,
                corpus.speakers,
                corpus.store.encoder.identity,
            )
        return trainer.fit()


def make_trainer(prepared: Prepared, run: Run, processes: Processes) -> Trainer:
    """The trainer of this run, its networks built; nothing is trained or resumed yet."""
    settings, corpus = prepared.settings, prepared.corpus
    encoder = corpus.store.encoder
    networks = build_networks(settings, prepared.config, prepared.symbols, corpus.speakers, encoder.identity)
    networks.to(processes.device)
    if processes.rank:
        torch.manual_seed(settings.seed + processes.rank)  # of dropout and draws; the weights are everyone's
    objective = VoiceObjective(networks, settings).to(processes.device)
    groups = [{"params": list(networks.parameters()), "lr": settings.learning_rate, "betas": BETAS, "eps": EPS}]
    groups[0]["weight_decay"] = settings.weight_decay
    updates = prepared.plan.updates_per_epoch()
    held_out = corpus.data(corpus.held, settings.keep_decoded / 2)
    optimizer, loop = build_optimizer("adamw", groups), _loop_settings(settings)
    return Trainer(
        run=run,
        objective=objective,
        optimizer=optimizer,
        rate=lambda step: by_epoch(step, updates=updates, decay=settings.lr_decay),
        data=corpus.data(corpus.train, settings.keep_decoded / 2),
        plan=prepared.plan,
        validation=(held_out, plan_of(corpus.held, settings.batch_size, shuffle=False)),
        settings=loop,
        processes=processes,
        identity={
            "model": to_mapping(prepared.config),
            "symbols": list(prepared.symbols.names),
            "speakers": corpus.speakers,
            "encoder": encoder.fingerprint,
            "validation": fingerprint(corpus.held),
            "rows": len(corpus.train),
            "batching": settings.batching,
            "losses": [settings.c_mel, settings.c_kl, settings.duration_discriminator, settings.reference_losses],
            "seed": settings.seed,
        },
        digest=lambda count: fingerprint(corpus.train, count),
        recorded=asdict(prepared.asked),
        updater=adversarial_updater(objective, optimizer, processes, loop),
        after_save=network_files(run.checkpoints, networks.parts(), loop.keep_checkpoints),
        after_validation=Samples(networks.G, held_out, run, settings) if settings.samples else None,
    )


def _speed_settings(settings: Settings) -> SpeedSettings:
    """The fields of the same names."""
    shared = {item.name for item in fields(SpeedSettings)} & {item.name for item in fields(Settings)}
    return SpeedSettings(**{name: getattr(settings, name) for name in shared})


def _loop_settings(settings: Settings) -> LoopSettings:
    """The fields of the same names."""
    shared = {item.name for item in fields(LoopSettings)} & {item.name for item in fields(Settings)}
    loader = LoaderSettings(**{item.name: getattr(settings, item.name) for item in fields(LoaderSettings)})
    return LoopSettings(loader=loader, **{name: getattr(settings, name) for name in shared})


def explain(outcome: Outcome, prepared: Prepared, run: Run) -> str:
    """How the run ended and what it left."""
    before, after = outcome.val_before, outcome.val_after
    lines = [f"{outcome.status}: {outcome.step:,} of {outcome.horizon:,} updates"]
    lines.append(f"mel loss of held-out clips: {before['val/loss']:.3f} before, {after['val/loss']:.3f} at the end")
    lines.append(
        f"share of a clip that its longest phone takes: {before['val/longest_phone']:.0%} before, "
        f"{after['val/longest_phone']:.0%} at the end"
    )
    lines.append(f"{run.checkpoints / 'G_latest.pth'}, its config.json beside it; spoken: {run.folder / 'samples'}")
    if outcome.status == "step limit reached":
        lines.append(f"run_name {run.name} with a higher max_steps goes on")
    return "\n".join(lines)
