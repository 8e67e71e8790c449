"""What the networks share: masks, a norm over channels, and weight norm under its published names."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Module = TypeVar("Module", bound=nn.Module)


def real_positions(lengths: Tensor, size: int) -> Tensor:
    """(batch,) -> (batch, 1, size), True before each row's length."""
    return torch.arange(size, device=lengths.device) < lengths[:, None, None]


class ChannelNorm(nn.Module):
    """Layer norm over the channels of (batch, channels, n), its weights under their published names."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gamma, self.beta = nn.Parameter(torch.ones(channels)), nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        return F.layer_norm(x.transpose(1, 2), self.gamma.shape, self.gamma, self.beta).transpose(1, 2)


class Normed(nn.Module):
    """A convolution under weight norm: a direction `weight_v` and a length `weight_g` for each entry of the weight's
    first dimension, which is what the published files hold; torch's own parametrization has other names. `fold` merges
    both into `weight` for inference. Source: Salimans and Kingma 2016 (arXiv 1602.07868)."""

    weight: nn.Parameter  # once folded

    def __init__(self, conv: nn.Conv1d | nn.Conv2d | nn.ConvTranspose1d) -> None:
        super().__init__()
        assert conv.bias is not None
        self.bias = conv.bias
        value = conv.weight.detach()
        length = torch.linalg.vector_norm(value, dim=tuple(range(1, value.dim())), keepdim=True)
        self.weight_g, self.weight_v = nn.Parameter(length), nn.Parameter(value)
        self.convolve = _convolution(conv)

    def forward(self, x: Tensor) -> Tensor:
        return self.convolve(x, self.effective_weight(), self.bias)

    def effective_weight(self) -> Tensor:
        return self.weight if "weight" in self._parameters else torch._weight_norm(self.weight_v, self.weight_g, 0)

    @torch.no_grad()
    def fold(self) -> None:
        """Keep the product only: quicker, and no longer what a checkpoint for training holds."""
        if "weight" not in self._parameters:
            self.weight = nn.Parameter(self.effective_weight().clone())
            del self.weight_g, self.weight_v


def _convolution(conv: nn.Conv1d | nn.Conv2d | nn.ConvTranspose1d) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    settings = {"stride": conv.stride, "padding": conv.padding, "groups": conv.groups, "dilation": conv.dilation}
    if isinstance(conv, nn.ConvTranspose1d):
        return partial(F.conv_transpose1d, **settings)  # type: ignore[arg-type]
    return partial(F.conv2d if isinstance(conv, nn.Conv2d) else F.conv1d, **settings)


def fold_weight_norm(model: Module) -> Module:
    """`model`, every convolution under weight norm folded in place."""
    for module in model.modules():
        if isinstance(module, Normed):
            module.fold()
    return model


def zeroed(conv: nn.Conv1d) -> nn.Conv1d:
    """The last layer of a flow's network: zero, so that its map starts the same for every input."""
    nn.init.zeros_(conv.weight)
    assert conv.bias is not None
    nn.init.zeros_(conv.bias)
    return conv
