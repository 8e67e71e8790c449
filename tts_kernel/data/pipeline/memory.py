"""Memory that a batch takes while the published models are trained, estimated from their sizes.

Counted are the values that the backward pass needs of each layer, with fused attention and without recomputation; it
is right within a factor of about two. Weights are counted whole, adapters' own optimiser state is small beside them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tts_kernel.data.pipeline.plan import Counted

Gigabytes = float
GB = 1e9
BYTES = {"float32": 4, "bfloat16": 2}
LLM_PARAMETERS, FLOW_PARAMETERS = 506e6, 113e6  # CosyVoice2-0.5B
_LLM_LAYERS, _WIDTH, _KEYS, _HIDDEN, _SPEECH_VOCABULARY = 24, 896, 128, 4864, 6564
_ENCODER_WIDTH, _ENCODER_HIDDEN = 512, 2048
_SLOW_LAYERS, _FAST_LAYERS = 6, 4  # of the flow's encoder, at the rate of tokens and of frames
_BLOCKS, _RESNETS, _CHANNELS, _INNER, _FEED_FORWARD = 56, 14, 256, 512, 1024  # of its estimator


def llm_values(positions: np.ndarray) -> np.ndarray:
    """Values kept for so many positions (text, speech, two marks): norms, attention, the gated feed-forward, logits."""
    layer = 6 * _WIDTH + 2 * _KEYS + 4 * _HIDDEN
    return positions * (_LLM_LAYERS * layer + 2 * _SPEECH_VOCABULARY)


def flow_values(frames: np.ndarray) -> np.ndarray:
    """Values kept for so many mel frames: encoder layers, then transformer blocks and convolutions of the estimator."""
    encoder = 6 * _ENCODER_WIDTH + 2 * _ENCODER_HIDDEN
    estimator = _BLOCKS * (4 * _CHANNELS + 4 * _INNER + 2 * _FEED_FORWARD) + _RESNETS * 12 * _CHANNELS
    return frames * (encoder * (_FAST_LAYERS + _SLOW_LAYERS / 2) + estimator)


@dataclass(frozen=True)
class Memory:
    """Of the largest batch of an epoch, and of the weights beside it."""

    llm: Gigabytes
    flow: Gigabytes
    llm_weights: Gigabytes
    flow_weights: Gigabytes

    @property
    def largest(self) -> Gigabytes:
        """What one device needs at least, where one of the two is trained at a time."""
        return max(self.llm + self.llm_weights, self.flow + self.flow_weights)


def memory_of(counted: Counted, precision: str) -> Memory:
    """Raises KeyError for a precision other than float32 and bfloat16."""
    size = BYTES[precision] / GB
    weights = LLM_PARAMETERS * size, FLOW_PARAMETERS * size
    if not len(counted):
        return Memory(0.0, 0.0, *weights)
    row = counted.lengths.text_tokens[counted.order] + counted.frames // 2 + 2  # positions
    positions = np.maximum.reduceat(row, counted.starts) * counted.sizes()
    llm, flow = llm_values(positions).max() * size, flow_values(counted.padded_frames()).max() * size
    return Memory(float(llm), float(flow), *weights)
