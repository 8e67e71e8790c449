"""Mels of 24 kHz mp3 in one thread: the plain way, the extraction job, and the floor under both.

python -m benchmarks.data.mel FOLDER --clips 96
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.data.measure import Figures, measure
from benchmarks.data.result import Result, Sizes, below, more

RATE, MEL_RATE = 24_000, 22_050  # Hz
N_FFT, HOP, N_MELS = 1024, 256, 80
CLIPS, ROUNDS = 96, 7
# What librosa calls kaiser_best: as steep as soxr's HQ, down to -140 dB. torchaudio documents these numbers.
EQUAL_QUALITY = {
    "lowpass_filter_width": 64,
    "rolloff": 0.9475937167399596,
    "resampling_method": "sinc_interp_kaiser",
    "beta": 14.769656459379492,
}


def make_clips(folder: Path, count: int = CLIPS, seed: int = 0) -> list[Path]:
    """`count` mp3 files of 3 to 12 s: a gliding voice-like tone with syllables, breath and pauses; made once."""
    import soundfile

    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"clip{number:04d}.mp3" for number in range(count)]
    for number, path in enumerate(paths):
        if path.exists():
            continue
        generator = np.random.default_rng([seed, number])
        seconds = np.arange(int(RATE * generator.uniform(3, 12))) / RATE
        pitch = generator.uniform(90, 250) * (1 + 0.2 * np.sin(2 * np.pi * generator.uniform(0.3, 1) * seconds))
        phase = 2 * np.pi * np.cumsum(pitch) / RATE
        voice = sum(np.sin(harmonic * phase) / harmonic for harmonic in range(1, 24))
        syllables = np.clip(np.sin(2 * np.pi * generator.uniform(2, 4) * seconds) + 0.4, 0, None)
        breath = generator.standard_normal(len(seconds)) * (0.003 + 0.03 * np.clip(0.3 - syllables, 0, None))
        soundfile.write(path, (0.12 * voice * syllables + breath).astype(np.float32), RATE)
    return paths


def plain(clips: Sequence[Path], folder: Path, **resampling: Any) -> None:
    """Decode, build a resampler and a transform, transform one clip, save one file. Without arguments the resampler is
    torchaudio's default, which is quick and folds what lies above 11 kHz back."""
    import soundfile
    import torch
    from torchaudio.transforms import MelSpectrogram, Resample

    for path in clips:
        samples, rate = soundfile.read(path, dtype="float32")
        signal = Resample(rate, MEL_RATE, **resampling)(torch.from_numpy(samples)[None])
        transform = MelSpectrogram(MEL_RATE, N_FFT, win_length=N_FFT, hop_length=HOP, n_mels=N_MELS, power=2.0)
        mel = transform(signal).clamp(min=1e-5).log()
        np.save(folder / f"{path.stem}.npy", mel[0].T.contiguous().numpy())


def plain_equal(clips: Sequence[Path], folder: Path) -> None:
    """The same with a filter as good as ours."""
    plain(clips, folder, **EQUAL_QUALITY)


def ours(clips: Sequence[Path], folder: Path) -> None:
    """What a worker of the job does: everything from the file to the finished shard, checksums included."""
    import pyarrow as pa

    from tts_kernel.audio.spectrogram import indextts2_mel
    from tts_kernel.data.extract.clip_work import Extractor, Slice, Work, make_shard

    mel = indextts2_mel().clip_mel()
    work = Work(folder, clips[0].parent, Extractor(("mel",), mel, mel.sample_rate), half=False)
    names = [path.stem for path in clips]
    rows = {"row": range(len(clips)), "clip": names, "audio": [str(path) for path in clips], "have": [0] * len(clips)}
    outcome = make_shard(Slice("mel", pa.table({name: list(values) for name, values in rows.items()})), work)
    assert outcome.made == len(clips), outcome


def floor(clips: Sequence[Path], folder: Path) -> None:
    """Decode, and transform frames that lie ready: neither resampling nor windows, filters, logarithms, files."""
    import soundfile
    from scipy.fft import rfft

    frames = np.random.default_rng(0).standard_normal((64, N_FFT)).astype(np.float32)
    for path in clips:
        samples, rate = soundfile.read(path, dtype="float32")
        count = int(len(samples) / rate * MEL_RATE) // HOP + 1
        for start in range(0, count, len(frames)):
            rfft(frames[: count - start], axis=1)


WAYS: dict[str, Callable[[Sequence[Path], Path], None]] = {
    "plain": plain,
    "plain_equal": plain_equal,
    "ours": ours,
    "floor": floor,
}


def fold_back(resample: Callable[[np.ndarray], np.ndarray]) -> float:
    """Level in dB at which a tone of 11.5 kHz, above half of 22,050 Hz, comes back through a resampler."""
    tone = np.sin(2 * np.pi * 11_500 * np.arange(2 * RATE) / RATE).astype(np.float32)
    back = resample(tone)[MEL_RATE // 2 : -MEL_RATE // 2].astype(np.float64)
    return float(10 * np.log10(2 * np.mean(back**2)))


def aliases() -> Figures:
    import torch
    from torchaudio.transforms import Resample

    from tts_kernel.audio import wav

    return {
        "plain": fold_back(lambda tone: Resample(RATE, MEL_RATE)(torch.from_numpy(tone)).numpy()),
        "ours": fold_back(lambda tone: wav.resample(tone, RATE, MEL_RATE)),
    }


def rates(folder: str, clips: int = CLIPS, rounds: int = ROUNDS) -> Figures:
    """Clips per second of each way in one thread: medians of rounds that take turns. `_wall` by the clock, the rest
    by the processor's time, which other programs on the machine do not change. And the largest difference of a mel
    from torch's, for the same 22,050 Hz waveform."""
    import torch
    from threadpoolctl import threadpool_limits

    torch.set_num_threads(1)
    paths = make_clips(Path(folder) / "mp3", clips)
    spent: dict[str, list[float]] = {}
    with threadpool_limits(1):
        for round_ in range(rounds + 1):
            for name, way in WAYS.items():
                with tempfile.TemporaryDirectory(dir=folder) as out:
                    start, cpu = time.perf_counter(), time.process_time()
                    way(paths, Path(out))
                    seconds = {name: time.process_time() - cpu, f"{name}_wall": time.perf_counter() - start}
                if round_:  # the first one loads libraries and fills caches
                    for key, value in seconds.items():
                        spent.setdefault(key, []).append(value)
        difference = _difference(paths[:8])
    return {key: clips / statistics.median(values) for key, values in spent.items()} | {"difference": difference}


def _difference(paths: Sequence[Path]) -> float:
    import torch

    from tts_kernel.audio import wav
    from tts_kernel.audio.spectrogram import indextts2_mel

    mel, found = indextts2_mel(), []
    with torch.inference_mode():
        for path in paths:
            samples, _ = wav.read(path, MEL_RATE)
            torchs = mel(torch.from_numpy(samples)[None])[0].T.numpy()
            found.append(float(np.abs(mel.of_clip(samples) - torchs).max()))
    return max(found)


TITLE = "Mel extraction"
METHOD = """24 kHz mp3 of 3 to 12 s to log-mels at 22,050 Hz, one thread. The plain way decodes, builds a torchaudio
resampler and transform for every clip, and saves a .npy. Ours is a worker of the job, from the file to the finished
shard: soxr HQ, checksums, the data on the disk. torchaudio's default filter is cheaper than soxr's and lets more
through that folds back; the line below the target gives the plain way one of equal quality (kaiser_best). The floor
decodes and transforms ready frames, nothing else. By processor time, so that the rest of the machine does not count;
medians of rounds that take turns."""


def run(sizes: Sizes) -> list[Result]:
    amount = {"clips": CLIPS, "rounds": ROUNDS} if sizes.full else {"clips": 16, "rounds": 3}
    found = measure(rates, 1, folder=sizes.folder / "mel", **amount)
    alias = measure(aliases, 1)
    return [
        more("mels per core", found["plain"], found["ours"], 1.8),
        more("mels per core, resamplers of equal quality", found["plain_equal"], found["ours"]),
        more("mels per second by the clock, with the disk", found["plain_wall"], found["ours_wall"]),
        more("share of the floor (decode and FFT alone)", found["floor"], found["ours"]),
        Result("what folds back of a tone of 11.5 kHz", f"{alias['plain']:.0f} dB", f"{alias['ours']:.0f} dB"),
        below("largest difference from torch's mel", found["difference"], 2e-4, ""),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure mel extraction in one thread.")
    parser.add_argument("folder", type=Path, help="scratch; the mp3 files stay")
    parser.add_argument("--clips", type=int, default=CLIPS)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    options = parser.parse_args()
    print(json.dumps(rates(os.fspath(options.folder), options.clips, options.rounds), indent=1))


if __name__ == "__main__":
    main()
