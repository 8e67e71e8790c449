"""Histories of training runs whose truth is known: a loss that falls, what may happen to it, and noise.

Time runs from 0 to 1 over the run and heights are in units of the loss's whole drop. All ranges were written down
before anything was measured, and a history depends on its seed alone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from tts_kernel.recovery.history import Series

HEALTHY = ("plain", "plateau", "restarts", "decay", "spikes")
ALONE = ("jump", "ramp", "runaway", "saturating", "drift", "over-fitting", "explosion", "two")
DIVERGED = (*ALONE, "plateau, ramp", "restarts, ramp")
INTERVALS = (1, 5, 10, 20, 50, 100, 500)  # steps between two logged points
_FEWEST, _MOST = 200, 50_000  # logged points


@dataclass(frozen=True)
class Truth:
    """Of a simulated history; places are logged points."""

    kind: str
    level: np.ndarray  # (points,) the loss without noise
    onset: int | None  # where the rise that lasts begins; None for a healthy run
    best: int  # where the loss without noise is lowest, before the onset
    drop: float  # of the loss, from its start to its floor
    noise: float  # standard deviation of a point
    memory: float  # points of correlated noise that tell as much as one of independent noise
    spikes: int

    @property
    def clear(self) -> float:
        """What the noise leaves of the divergence: standard errors by which the whole of it stands out."""
        if self.onset is None:
            return 0.0
        above = self.level[self.onset :] - self.level[self.onset]
        return float(np.sqrt(np.nansum(above**2) / self.memory) / self.noise)


def simulate(seed: int, kind: str) -> tuple[Series, Truth]:
    """One history of one of the kinds."""
    random = np.random.default_rng([seed, (HEALTHY + DIVERGED).index(kind)])
    count = int(log_uniform(random, _FEWEST, _MOST))
    time = (np.arange(count) + 1) / count
    drop, floor = random.uniform(1, 6), random.uniform(0.3, 4)
    fall = _fall(random)
    curve = _with_habits(random, kind, fall)
    level, onset = curve(time), None
    spikes = _spikes(random, time) if kind in ("spikes", "two", "jump", "drift") or random.random() < 0.3 else []
    if kind in DIVERGED:
        level, onset = _diverge(random, kind, curve, time)
    best = int(np.nanargmin(level if onset is None else level[: onset + 1]))
    ended = time[onset] if onset is not None else 1.0
    heights = [height for middle, height in spikes if middle < ended]
    level = floor + drop * level
    noise = drop * log_uniform(random, 0.003, 0.15)
    errors, memory = correlated(random, count)
    if random.random() < 0.3:  # louder where the loss is higher
        errors = errors * np.clip(np.nan_to_num(level, nan=floor) / (floor + 0.3 * drop), 0.3, 3)
    values = level + drop * np.sum([np.zeros(count), *heights], axis=0) + noise * errors
    truth = Truth(kind, level, onset, best, drop, noise, memory, len(heights))
    return Series(_steps(random, count), values, np.full(count, np.nan)), truth


def log_uniform(random: np.random.Generator, low: float, high: float) -> float:
    return float(np.exp(random.uniform(np.log(low), np.log(high))))


def _steps(random: np.random.Generator, count: int) -> np.ndarray:
    """Every so many; in one run of ten, another number from some point on."""
    gaps = np.full(count, random.choice(INTERVALS), np.int64)
    if random.random() < 0.1:
        gaps[int(random.uniform(0.2, 0.8) * count) :] = random.choice(INTERVALS)
    return np.cumsum(gaps)


def _fall(random: np.random.Generator) -> Callable[[np.ndarray], np.ndarray]:
    """From about 1 to about 0: a power law, two exponentials, or an exponential after a slow start."""
    shape, speed = random.integers(3), log_uniform(random, 2, 60)
    power, share, slow = random.uniform(0.3, 1.2), random.uniform(0.4, 0.9), log_uniform(random, 0.5, 4)
    delay = random.uniform(0.005, 0.04)
    if shape == 0:
        return lambda time: (1 + speed * time) ** -power
    if shape == 1:
        return lambda time: share * np.exp(-speed * time) + (1 - share) * np.exp(-slow * time)
    return lambda time: np.exp(-speed * np.clip(time - delay, 0, None)) * 0.8 + 0.2 * (1 - 0.8 * time)


def _with_habits(
    random: np.random.Generator, kind: str, fall: Callable[[np.ndarray], np.ndarray]
) -> Callable[[np.ndarray], np.ndarray]:
    """The falling loss with what healthy runs do: stay for a while or for good, restart warm, fall faster late."""
    if kind.startswith("plateau"):
        begin, length = random.uniform(0.1, 0.6), random.choice([random.uniform(0.1, 0.5), 1.0])
        return lambda time: fall(np.where(time < begin, time, np.maximum(begin, time - length)))
    if kind.startswith("restarts"):
        period, longer = random.uniform(0.07, 0.25), random.choice([1.0, 1.0, 1.5, 2.0])
        height, fade, quick = random.uniform(0.05, 0.4), random.uniform(0.6, 1.0), random.uniform(0.01, 0.06)
        return lambda time: fall(time) + _cycles(time, period, longer, height, fade, quick)
    if kind == "decay":
        begin, gain = random.uniform(0.4, 0.9), random.uniform(0.05, 0.4)
        stairs = random.random() < 0.5
        width = 0.005 if stairs else 1 - begin
        return lambda time: fall(time) - gain * np.clip((time - begin) / width, 0, 1)
    return fall


def _cycles(time: np.ndarray, period: float, longer: float, height: float, fade: float, quick: float) -> np.ndarray:
    """Warm restarts: up quickly, down over the cycle as the cosine of the rate."""
    above, begin = np.zeros_like(time), period
    while begin < 1:
        period *= longer
        phase = (time - begin) / period
        inside = (phase >= 0) & (phase < 1)
        shape = np.minimum(np.clip(phase / quick, 0, 1), 0.5 * (1 + np.cos(np.pi * np.clip(phase, 0, 1))))
        above += np.where(inside, height * shape, 0)
        begin, height = begin + period, height * fade
    return above


def _spikes(random: np.random.Generator, time: np.ndarray) -> list[tuple[float, np.ndarray]]:
    """Each with its place: up at once and back exponentially, up and down evenly, or a while at a height. All of them
    are back before the end: of one that is not, nobody knows whether it would be."""
    found = []
    for _ in range(1 + random.poisson(1.5)):
        height, width = log_uniform(random, 0.2, 5), log_uniform(random, 0.001, 0.03)
        middle, shape = random.uniform(0.03, 0.97 - 3 * width), random.integers(3)
        since = time - middle
        if shape == 0:
            form = np.where(since >= 0, np.exp(-np.clip(since, 0, None) / width), 0)
        elif shape == 1:
            form = np.clip(1 - np.abs(since) / width, 0, None)
        else:
            form = ((since >= 0) & (since < width)).astype(float)
        found.append((middle, height * form))
    return found


def _diverge(
    random: np.random.Generator, kind: str, curve: Callable[[np.ndarray], np.ndarray], time: np.ndarray
) -> tuple[np.ndarray, int]:
    """The level, and the last point before it rises for good. What diverges learns no more; only a drift is added to a
    loss that still falls, and begins where the sum of both is lowest."""
    begin, height = random.uniform(0.12, 0.92), log_uniform(random, 0.25, 3)
    level = curve(time)
    if kind == "two":
        level, begin = _diverged_once(random, level, time)
    since = np.clip(time - begin, 0, None)
    length = min(log_uniform(random, 0.005, 0.4), 1 - begin)
    onset = max(int(np.searchsorted(time, begin, side="right")) - 1, 0)
    if kind == "drift":
        above = random.uniform(0.2, 0.7) + level[onset] - level[-1]  # at the end, for all that it has fallen since
        level = level + above * (since / (1 - begin)) ** random.choice([0.7, 1.0, 1.5])
        return level, onset + int(np.argmin(level[onset:]))
    level = np.where(since > 0, level[onset], level)
    part = since / length
    if kind == "jump" or (kind == "two" and random.random() < 0.3):
        rise = (since > 0).astype(float)
    elif kind == "runaway":
        rise = np.clip(np.expm1(3 * np.clip(part, 0, 1)) / np.expm1(3), 0, 1)
    elif kind == "saturating":
        rise = 1 - np.exp(-3 * part)
    elif kind == "over-fitting":
        rise = (since / (1 - begin)) ** 2
    else:
        rise = np.clip(part, 0, 1)
    level = level + height * rise
    if kind == "explosion":
        level = np.where(part > random.uniform(0.2, 1), np.nan, level)
    return level, onset


def _diverged_once(random: np.random.Generator, level: np.ndarray, time: np.ndarray) -> tuple[np.ndarray, float]:
    """A divergence that was recovered from, by a rewind or by a lower rate, and where the next begins."""
    first, lasted, height = random.uniform(0.15, 0.45), random.uniform(0.04, 0.2), log_uniform(random, 0.25, 3)
    back = first + lasted
    up = height * np.clip((time - first) / (0.3 * lasted), 0, 1)
    down = np.exp(-np.clip(time - back, 0, None) / random.choice([1e-4, random.uniform(0.005, 0.03)]))
    return level + up * np.where(time < back, 1, down), random.uniform(back + 0.15, 0.92)


def correlated(random: np.random.Generator, count: int) -> tuple[np.ndarray, float]:
    """(points,) of about unit deviation, independent or with a memory of up to 1.5 % of the run; normal, heavy-tailed
    or skewed; in three of ten with outliers. And its memory."""
    family = random.choice(["normal", "normal", "heavy", "skewed"])
    if family == "heavy":
        errors = random.standard_t(3, count) / np.sqrt(3)
    elif family == "skewed":
        errors = (random.gamma(2, 1, count) - 2) / np.sqrt(2)
    else:
        errors = random.normal(size=count)
    memory = 1.0
    if random.random() < 0.5:
        memory = log_uniform(random, 1, max(1.5, 0.015 * count))
        keep = (memory - 1) / (memory + 1)  # of a point in the next: first-order autoregression
        errors = _filtered(errors * np.sqrt(1 - keep**2), keep)
    if random.random() < 0.3:
        places = random.random(count) < log_uniform(random, 0.001, 0.01)
        errors = errors + np.where(places, random.uniform(5, 30, count), 0)
    return errors, memory


def _filtered(drive: np.ndarray, keep: float) -> np.ndarray:
    """y[i] = keep * y[i - 1] + drive[i]."""
    values, last = drive.tolist(), 0.0
    for place, push in enumerate(values):
        last = keep * last + push
        values[place] = last
    return np.array(values)
