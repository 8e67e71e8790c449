"""What a run can say: fixed sentences as sound at every validation, their mels, and how a held-out clip is aligned."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from torch import Tensor

from tts_kernel.audio.spectrogram import melotts_mel
from tts_kernel.audio.wav import write
from tts_kernel.data.sampler import PlannedBatch, Position
from tts_kernel.data.spoken import SpokenDataset
from tts_kernel.data.spoken.sounds import RATE
from tts_kernel.models.melotts.alignment import alignment_scores, path_of
from tts_kernel.models.melotts.soft_alignment import soft_alignment
from tts_kernel.models.melotts.synthesizer import Synthesizer
from tts_kernel.models.melotts.text_encoder import Text
from tts_kernel.recipes.melotts.corpus import SPOKEN
from tts_kernel.recipes.melotts.objective import text_of
from tts_kernel.recipes.melotts.settings import Settings
from tts_kernel.runs import Run
from tts_kernel.training.shown import SAMPLES, sample_file

log = logging.getLogger(__name__)


class Samples:
    """Called with the step after every validation, the model in eval mode; TensorBoard also shows what it leaves in
    `samples/`. It draws from generators of its own, so that training is the same with and without it."""

    def __init__(self, model: Synthesizer, held: SpokenDataset, run: Run, settings: Settings) -> None:
        self.model, self.held, self.run, self.settings = model, held, run, settings
        self.mel = melotts_mel()

    @torch.inference_mode()
    def __call__(self, step: int) -> None:
        folder = self.run.folder
        (folder / SAMPLES).mkdir(exist_ok=True)
        spoken: dict[str, np.ndarray] = {}
        for number, (code, text) in enumerate(SPOKEN[: self.settings.samples]):
            name = f"{number}_{code.lower()}"
            try:
                spoken[name] = self.say(text, code, number)
            except ValueError as error:  # durations that have not been learned yet
                log.info("step %d: %s is not spoken: %s", step, name, error)
                continue
            write(sample_file(folder, step, f"{name}.wav"), spoken[name], RATE)
        if spoken:
            draw_mels(
                {
                    name: self.mel(torch.from_numpy(wav)[None])[0]
                    for name, wav in spoken.items()
                    if len(wav) > RATE // 20
                },
                sample_file(folder, step, "mels.png"),
            )
        likely, path = self.alignment(0)
        arrays = sample_file(folder, step, "alignment.npz")
        np.savez_compressed(arrays, likely=likely.numpy(), path=path.numpy())
        draw_alignment(likely, path, sample_file(folder, step, "alignment.png"))

    def say(self, text: str, code: str, number: int) -> np.ndarray:
        """(samples,) in [-1, 1] by one of the run's speakers. Raises ValueError for a sentence without end."""
        said = self.held.store.sentence(self.held.store.name(text, code))
        device = next(self.model.parameters()).device
        names = sorted(self.held.speakers)
        speaker = self.held.speakers[names[number % len(names)]]
        ids = (torch.from_numpy(value)[None].to(device) for value in (said.phones, said.tones, said.languages))
        phones, tones, languages = ids
        length = torch.tensor([len(said.phones)], device=device)
        sentence = Text(phones, length, tones, languages, torch.from_numpy(said.features)[None].to(device))
        speech = self.model.infer(
            sentence,
            torch.tensor([speaker], device=device),
            generator=torch.Generator().manual_seed(self.settings.seed),
        )
        return speech.audio[0, : int(speech.lengths[0])].float().clamp(-1.0, 1.0).cpu().numpy()

    def alignment(self, row: int) -> tuple[Tensor, Tensor]:
        """Of a held-out clip: the probability of every token at each frame, and the path that was found,
        (frames, tokens) each."""
        device = next(self.model.parameters()).device
        batch = self.held[PlannedBatch(np.array([row]), Position())].to(device)
        text = text_of(batch)
        draws = self.model.draw(text, batch.spectrograms, torch.Generator().manual_seed(self.settings.seed))
        said = self.model(
            text, batch.spectrograms, batch.frame_lengths, batch.speakers, alignment_noise=0.0, draws=draws
        )
        scores = alignment_scores(said.z_p, said.prior.mean, said.prior.log_deviation)
        likely = soft_alignment(scores, text.lengths, batch.frame_lengths)
        return likely[0].cpu(), path_of(said.durations, scores.shape[1])[0].cpu()


def draw_mels(mels: dict[str, Tensor], path: Path) -> None:
    """Log mels (n_mels, frames) side by side."""
    figure = Figure(figsize=(3.2 * max(len(mels), 1), 2.6), layout="constrained")
    for place, (name, mel) in enumerate(mels.items()):
        axis = figure.add_subplot(1, len(mels), place + 1)
        axis.imshow(mel.numpy(), origin="lower", aspect="auto", interpolation="none", vmin=-11.5, vmax=2.0)
        axis.set(title=name, xlabel="frame", ylabel="mel band" if place == 0 else "")
    _save(figure, path)


def draw_alignment(likely: Tensor, path: Tensor, target: Path) -> None:
    """Probabilities and the path, (frames, tokens) each."""
    figure = Figure(figsize=(9.0, 3.4), layout="constrained")
    for place, (title, values) in enumerate((("probability", likely), ("the likeliest path", path))):
        axis = figure.add_subplot(1, 2, place + 1)
        axis.imshow(values.T.numpy(), origin="lower", aspect="auto", interpolation="none", vmin=0.0, vmax=1.0)
        axis.set(title=title, xlabel="frame", ylabel="phone, with blanks" if place == 0 else "")
    _save(figure, target)


def _save(figure: Figure, path: Path) -> None:
    FigureCanvasAgg(figure)
    figure.savefig(path, dpi=90)
