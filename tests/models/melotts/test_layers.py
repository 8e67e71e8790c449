from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from tts_kernel.models.melotts.layers import ChannelNorm, Normed, fold_weight_norm, real_positions

CONVOLUTIONS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "dilated": (lambda: nn.Conv1d(4, 6, 3, padding=2, dilation=2), (2, 4, 9)),
    "grouped": (lambda: nn.Conv1d(4, 6, 5, 2, padding=2, groups=2), (2, 4, 9)),
    "transposed": (lambda: nn.ConvTranspose1d(4, 3, 8, 4, padding=2), (2, 4, 5)),
    "of columns": (lambda: nn.Conv2d(4, 6, (5, 1), (3, 1), padding=(2, 0)), (2, 4, 9, 3)),
}


def twins(name: str) -> tuple[Normed, nn.Module, Tensor]:
    """Ours and torch's under weight norm, with the same weights, and an input."""
    make, shape = CONVOLUTIONS[name]
    torch.manual_seed(1)
    plain = make()
    ours = Normed(plain)  # type: ignore[arg-type]
    with torch.no_grad():
        ours.weight_g *= 1.5
    theirs = weight_norm(make())
    parts = {
        "parametrizations.weight.original0": ours.weight_g,
        "parametrizations.weight.original1": ours.weight_v,
        "bias": ours.bias,
    }
    theirs.load_state_dict(parts)
    return ours, theirs, torch.randn(shape)


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_weight_norm_is_torchs_under_the_published_names(name: str) -> None:
    ours, theirs, x = twins(name)
    torch.testing.assert_close(ours(x), theirs(x))
    assert set(ours.state_dict()) == {"bias", "weight_g", "weight_v"}


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_folding_changes_the_names_and_not_the_sound(name: str) -> None:
    ours, _, x = twins(name)
    before = ours(x)
    folded = fold_weight_norm(nn.Sequential(ours))
    torch.testing.assert_close(folded(x), before)
    assert set(folded.state_dict()) == {"0.bias", "0.weight"}
    torch.testing.assert_close(fold_weight_norm(folded)(x), before)


def test_a_fresh_convolution_keeps_its_weight() -> None:
    conv = nn.Conv1d(4, 6, 3)
    torch.testing.assert_close(Normed(conv).effective_weight(), conv.weight)


def test_channels_are_normalised_as_a_layer_norm_does() -> None:
    ours, theirs = ChannelNorm(5), nn.LayerNorm(5)
    with torch.no_grad():
        ours.gamma.copy_(torch.arange(5.0))
        theirs.weight.copy_(torch.arange(5.0))
    x = torch.randn(2, 5, 7)
    torch.testing.assert_close(ours(x), theirs(x.transpose(1, 2)).transpose(1, 2))


def test_a_mask_is_true_before_each_length() -> None:
    assert real_positions(torch.tensor([3, 0, 1]), 3).tolist() == [[[True] * 3], [[False] * 3], [[True, False, False]]]
