"""What a vector still tells: a fresh linear probe, trained on half of the held-out clips, tested on the other half."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

REPEATS = 10  # random halves, each used both ways round
FEWEST = 4  # clips of a class: two in each half


@dataclass(frozen=True)
class ProbeResult:
    """Accuracy of a linear probe on unseen clips."""

    accuracy: float  # mean over halves
    spread: float  # standard deviation over halves
    chance: float  # share of the most frequent class
    clips: int
    classes: int
    left_out: int = 0  # clips of classes too small to probe

    def kept(self, before: ProbeResult) -> float:
        """How much of the distance to chance is left: 1 as before, 0 at chance."""
        return (self.accuracy - self.chance) / max(before.accuracy - before.chance, 1e-9)


class ProbeError(ValueError):
    """Too few clips or classes to measure anything."""


def linear_probe(vectors: np.ndarray, labels: Sequence[str], seed: int = 0) -> ProbeResult:
    """vectors (clips, dim), one label per clip. Logistic regression on standardised vectors; halves are stratified.
    Clips of classes with fewer than FEWEST clips are left out and counted.
    Raises ProbeError if fewer than two classes remain."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedKFold
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    names, classes, counts = np.unique(np.asarray(labels), return_inverse=True, return_counts=True)
    if len(vectors) != len(classes):
        raise ProbeError(f"{len(vectors)} vectors, {len(classes)} labels")
    if (counts >= FEWEST).sum() < 2:
        raise ProbeError(
            f"{len(names)} classes, the largest with {counts.max() if len(counts) else 0} of {len(classes)} clips; "
            f"expected at least 2 classes of at least {FEWEST} clips: hold out more"
        )
    enough = counts[classes] >= FEWEST
    left_out = int((~enough).sum())
    vectors = vectors[enough]
    names, classes, counts = np.unique(np.asarray(labels)[enough], return_inverse=True, return_counts=True)
    if not np.isfinite(vectors).all():
        raise ProbeError(f"{int((~np.isfinite(vectors)).any(axis=1).sum())} of {len(vectors)} vectors are not finite")
    scores = []
    for repeat in range(REPEATS):
        halves = StratifiedKFold(n_splits=2, shuffle=True, random_state=seed + repeat)
        for train, test in halves.split(vectors, classes):
            probe = make_pipeline(StandardScaler(), LogisticRegression(max_iter=300, C=0.1))
            scores.append(probe.fit(vectors[train], classes[train]).score(vectors[test], classes[test]))
    chance = float(counts.max() / counts.sum())
    return ProbeResult(float(np.mean(scores)), float(np.std(scores)), chance, len(classes), len(names), left_out)
