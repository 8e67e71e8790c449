from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from tts_kernel.models.gradient_reversal import GradientReversal, SpeakerClassifier


@pytest.mark.parametrize("strength", [0.0, 0.3, 1.0])
def test_reversal_keeps_the_value_and_flips_and_scales_the_gradient(strength: float) -> None:
    x, layer = torch.tensor([[1.0, -2.0]], requires_grad=True), GradientReversal()
    layer.strength = strength
    y = layer(x)
    (y * torch.tensor([3.0, 5.0])).sum().backward()
    assert torch.equal(y, x)
    torch.testing.assert_close(x.grad, -strength * torch.tensor([[3.0, 5.0]]))


def test_reversal_does_nothing_until_its_strength_is_set() -> None:
    x = torch.ones(2, requires_grad=True)
    GradientReversal()(x).sum().backward()
    assert torch.equal(x.grad, torch.zeros(2))


def test_classifier_behind_the_reversal_learns_while_its_input_unlearns() -> None:
    torch.manual_seed(0)
    encoder, reversal, classifier = nn.Linear(4, 6), GradientReversal(), SpeakerClassifier(6, 3)
    x, labels = torch.randn(5, 4), torch.tensor([0, 1, 2, 0, 1])
    cross_entropy(classifier(encoder(x)), labels).backward()
    plain = [p.grad.clone() for p in (*encoder.parameters(), *classifier.parameters())]
    encoder.zero_grad(), classifier.zero_grad()
    reversal.strength = 0.5
    cross_entropy(classifier(reversal(encoder(x))), labels).backward()
    reversed_ = [p.grad for p in (*encoder.parameters(), *classifier.parameters())]
    for expected, found in zip([-0.5 * plain[0], -0.5 * plain[1], *plain[2:]], reversed_, strict=True):
        torch.testing.assert_close(found, expected)
    assert plain[0].abs().max() > 0


def test_standardised_adversary_is_not_fooled_by_shrinking_or_shifting() -> None:
    torch.manual_seed(0)
    x = torch.randn(16, 8)
    plain, standardised = SpeakerClassifier(8, 3), SpeakerClassifier(8, 3, standardise=True)
    torch.testing.assert_close(standardised(0.05 * x + 3.0), standardised(x), atol=0.02, rtol=0.0)
    assert (plain(0.05 * x + 3.0) - plain(x)).abs().max() > 0.1


def test_one_row_is_judged_by_the_running_statistics_and_leaves_them() -> None:
    torch.manual_seed(0)
    classifier = SpeakerClassifier(8, 3, standardise=True)
    for _ in range(50):
        classifier(2.0 + 3.0 * torch.randn(32, 8))
    x, mean = torch.randn(1, 8), classifier.norm.running_mean.clone()
    training = classifier(x)
    assert torch.equal(classifier.norm.running_mean, mean)
    torch.testing.assert_close(training, classifier.eval()(x))
    assert not torch.allclose(training, SpeakerClassifier.forward(classifier, x + 1.0))


def test_published_layout_has_no_norm() -> None:
    names = {"fc1.weight", "fc1.bias", "fc2.weight", "fc2.bias"}
    assert SpeakerClassifier(8, 3).state_dict().keys() == names
    assert SpeakerClassifier(8, 3, standardise=True).state_dict().keys() > names
