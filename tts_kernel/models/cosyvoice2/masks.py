"""Which positions an attention may look at: real ones, and in streaming those of its own and of earlier chunks."""

from __future__ import annotations

import torch
from torch import Tensor


def real_positions(lengths: Tensor, size: int) -> Tensor:
    """(batch,) -> (batch, size), True before each length."""
    return torch.arange(size, device=lengths.device) < lengths[:, None]


def attention_mask(real: Tensor, chunk: int = 0, left_chunks: int = -1) -> Tensor | None:
    """real (batch, n) -> (batch, 1, 1 or n, n), True where a row's position (third) may look at a column (fourth).

    With `chunk`, no further than the end of its own chunk and the `left_chunks` chunks before it (-1 for all), so that
    what follows can come later. None, which keeps attention on its quickest kernels, where all may look at all."""
    if not chunk:
        return None if bool(real.all()) else real[:, None, None]
    place = torch.arange(real.shape[1], device=real.device) // chunk
    ahead = place[None] > place[:, None]
    behind = place[None] < place[:, None] - left_chunks if left_chunks >= 0 else torch.zeros_like(ahead)
    itself = torch.eye(len(place), dtype=torch.bool, device=real.device)  # padding that sees nothing would be NaN
    return ((real[:, None] & ~(ahead | behind)) | itself)[:, None]
