"""How alike a voice is to another: cosine of speaker embeddings, by any extractor that there is.

With campplus.onnx (data/voices/onnx_files.py) values compare with published ones; with the demo's statistics
(data/voices/stand_ins.py) only with each other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tts_kernel.audio.wav import Hz
from tts_kernel.data.voices import Extractor

Clip = tuple[np.ndarray, Hz]  # (samples,) in [-1, 1], and its rate


@dataclass(frozen=True)
class Similarity:
    """Generated clips against the mean of the real ones; None is not measured, which is not 0."""

    score: float | None  # mean cosine, in [-1, 1]
    spread: float | None = None  # standard deviation over generated clips
    real: float | None = None  # what a real clip scores against the mean of the others: as good as it can get
    clips: int = 0  # generated ones that were measured
    left_out: tuple[str, ...] = ()  # "generated 3: why"
    reason: str = ""  # why it was not measured

    def __str__(self) -> str:
        if self.score is None:
            return f"speaker similarity not measured: {self.reason}"
        best = f", real clips {self.real:.3f}" if self.real is not None else ""
        left = f"; left out: {'; '.join(self.left_out)}" if self.left_out else ""
        return f"speaker similarity {self.score:.3f} ± {self.spread:.3f} over {self.clips} clips{best}{left}"


def speaker_similarity(generated: Sequence[Clip], real: Sequence[Clip], extractor: Extractor | None) -> Similarity:
    """Of clips of any rate. Without an extractor, and where no clip of one side has an embedding, not measured."""
    if extractor is None:
        return Similarity(None, reason="no extractor; name campplus.onnx, or a demo's stand_ins.npz")
    left_out: list[str] = []
    made = _embeddings(generated, "generated", extractor, left_out)
    given = _embeddings(real, "real", extractor, left_out)
    if not len(made) or not len(given):
        reason = f"{len(made)} generated and {len(given)} real clips have an embedding; {'; '.join(left_out)}"
        return Similarity(None, left_out=tuple(left_out), reason=reason.rstrip("; "))
    scores = made @ _unit(given.mean(axis=0))
    among_real = _among(given) if len(given) > 1 else None
    return Similarity(float(scores.mean()), float(scores.std()), among_real, len(made), tuple(left_out))


def _among(given: np.ndarray) -> float:
    """Mean score of each clip against the mean of the others."""
    others = [np.delete(given, row, axis=0).mean(axis=0) for row in range(len(given))]
    return float(np.mean([clip @ _unit(mean) for clip, mean in zip(given, others, strict=True)]))


def _embeddings(clips: Sequence[Clip], side: str, extractor: Extractor, left_out: list[str]) -> np.ndarray:
    """(clips, dim) of length 1; clips that have none go into `left_out`."""
    found = []
    for number, (wav, rate) in enumerate(clips):
        try:
            embedding = extractor.embedding(wav, rate).astype(np.float64)
        except ValueError as error:  # too short for a window
            left_out.append(f"{side} {number}: {error}")
            continue
        if np.isfinite(embedding).all() and embedding.any():
            found.append(_unit(embedding))
        else:
            left_out.append(f"{side} {number}: its embedding is not finite, or zero")
    return np.stack(found) if found else np.zeros((0, 0))


def _unit(vector: np.ndarray) -> np.ndarray:
    return vector / max(float(np.linalg.norm(vector)), 1e-12)
