"""Memory that a batch takes while adapters of the published models are trained, estimated from its lengths alone.

What a step keeps for its backward pass grows with the positions of the LLM and the mel frames of the flow; attention's
share grows with their square. The numbers are what recipes/cosyvoice2/memory.py adds up for the published sizes with
adapters of rank 16, which a test compares. Attention counts as torch's plain path keeps it, so the estimate is high
for long utterances where fused kernels run.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tts_kernel.data.pipeline.plan import Counted

Gigabytes = float
GB = 1e9
RESERVE: Gigabytes = 1.0  # CUDA and its kernels
LLM_WEIGHTS: Gigabytes = 2.16  # float32, with the adapter, its gradients and moments
FLOW_WEIGHTS: Gigabytes = 0.50
ALLOWANCE = 1.5  # the recipe's, for gaps between tensors
_LLM_VALUES, _LLM_PAIRS = 0.9666e6, 366.3  # kept per position, and per pair of positions of a row
_FLOW_VALUES, _FLOW_PAIRS = 0.4418e6, 600.7  # the same of mel frames
# Autocast keeps float32 weights and a copy of them in bfloat16 for a step; norms and residuals stay float32. Measured
# with saved-tensor hooks on two layers of the LLM and the whole flow: 0.66 and 0.59 of the float32 activations.
WEIGHTS = {"float32": 1.0, "bfloat16": 1.5}
ACTIVATIONS = {"float32": 1.0, "bfloat16": 0.65}


def llm_bytes(rows: np.ndarray, positions: np.ndarray) -> np.ndarray:
    """float32 bytes for batches of so many rows, padded to so many positions (text, speech, two marks)."""
    return ALLOWANCE * 4 * rows * positions * (_LLM_VALUES + _LLM_PAIRS * positions)


def flow_bytes(rows: np.ndarray, frames: np.ndarray) -> np.ndarray:
    """The same of the flow, for rows padded to so many mel frames."""
    return ALLOWANCE * 4 * rows * frames * (_FLOW_VALUES + _FLOW_PAIRS * frames)


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
        return RESERVE + max(self.llm + self.llm_weights, self.flow + self.flow_weights)


def memory_of(counted: Counted, precision: str) -> Memory:
    """Raises KeyError for a precision other than float32 and bfloat16."""
    weights = LLM_WEIGHTS * WEIGHTS[precision], FLOW_WEIGHTS * WEIGHTS[precision]
    if not len(counted):
        return Memory(0.0, 0.0, *weights)
    rows, factor = counted.sizes(), ACTIVATIONS[precision] / GB
    positions = counted.lengths.text_tokens[counted.order] + counted.frames // 2 + 2
    longest = np.maximum.reduceat(positions, counted.starts), np.maximum.reduceat(counted.frames, counted.starts)
    llm, flow = llm_bytes(rows, longest[0]).max() * factor, flow_bytes(rows, longest[1]).max() * factor
    return Memory(float(llm), float(flow), *weights)
