"""What generator and discriminators are trained on. Every loss is computed in float32.

Sources: VITS (arXiv 2106.06103, sections 2.1 and 2.3) for reconstruction, KL divergence and least squares, HiFi-GAN
(arXiv 2010.05646, section 2.4) for feature matching, VITS2 (arXiv 2307.16430, section 2.1) for durations. Settled by
parity case discriminators_small.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import l1_loss

from tts_kernel.models.melotts.discriminators import DurationDiscriminator, Judgement
from tts_kernel.models.melotts.synthesizer import Training


def discriminator_loss(real: list[Judgement], synthetic: list[Judgement]) -> tuple[Tensor, list[Tensor], list[Tensor]]:
    """Least squares, towards one for recordings and zero for synthetic voices: the sum over discriminators, and each
    one's two parts."""
    of_real = [(1.0 - said.logits.float()).square().mean() for said in real]
    of_synthetic = [said.logits.float().square().mean() for said in synthetic]
    return _total(of_real) + _total(of_synthetic), of_real, of_synthetic


def generator_loss(synthetic: list[Judgement]) -> tuple[Tensor, list[Tensor]]:
    """Least squares towards one: the sum over discriminators, and each one's part."""
    each = [(1.0 - said.logits.float()).square().mean() for said in synthetic]
    return _total(each), each


def feature_loss(real: list[Judgement], synthetic: list[Judgement]) -> Tensor:
    """Twice the mean distance of every layer's output between a recording and its synthetic voice, summed."""
    pairs = [
        (of_real, of_synthetic)
        for one, other in zip(real, synthetic, strict=True)
        for of_real, of_synthetic in zip(one.maps, other.maps, strict=True)
    ]
    return 2.0 * _total([l1_loss(other.float(), one.float().detach()) for one, other in pairs])


def mel_loss(recorded: Tensor, synthetic: Tensor) -> Tensor:
    """Mean distance of two log mels (batch, n_mels, frames), before its weight `c_mel`."""
    return l1_loss(synthetic.float(), recorded.float())


def kl_loss(z_p: Tensor, logs_q: Tensor, m_p: Tensor, logs_p: Tensor, mask: Tensor) -> Tensor:
    """KL divergence of the posterior from the prior, estimated by the sample, per real frame: summed over channels.
    (batch, channels, frames) each, mask (batch, 1, frames)."""
    z_p, logs_q, m_p, logs_p = z_p.float(), logs_q.float(), m_p.float(), logs_p.float()
    divergence = logs_p - logs_q - 0.5 + 0.5 * (z_p - m_p).square() * (-2.0 * logs_p).exp()
    return (divergence * mask).sum() / mask.sum()


def judge_durations(
    discriminator: DurationDiscriminator, said: Training, *, for_generator: bool, reference: bool = False
) -> tuple[Tensor, Tensor]:
    """Probabilities (batch, tokens, 1) for recorded and predicted durations of one training step. With `for_generator`
    gradients go on into the duration predictor. As the `reference` calls it the two change places, so that its
    generator step judges durations which no weight had a part in, and the speaker is left out."""
    predicted = said.predicted_log_durations
    predicted = predicted if for_generator else predicted.detach()
    if reference:
        return discriminator(said.prior.hidden, said.prior.mask, predicted, said.log_durations)
    return discriminator(said.prior.hidden, said.prior.mask, said.log_durations, predicted, said.speaker)


def duration_discriminator_loss(
    recorded: Tensor, predicted: Tensor, mask: Tensor, reference: bool = False
) -> tuple[Tensor, Tensor, Tensor]:
    """Least squares over real tokens, towards one for recorded and zero for predicted durations: the mean over rows,
    and each row's two parts (batch,). Probabilities (batch, tokens, 1), mask (batch, 1, tokens). The `reference` counts
    padding as tokens and adds rows up."""
    of_recorded = _per_row((1.0 - recorded.float()).square(), mask, reference)
    of_predicted = _per_row(predicted.float().square(), mask, reference)
    each = of_recorded + of_predicted
    return each.sum() if reference else each.mean(), of_recorded, of_predicted


def duration_generator_loss(predicted: Tensor, mask: Tensor, reference: bool = False) -> Tensor:
    """Least squares towards one over real tokens; the `reference` as in `duration_discriminator_loss`."""
    each = _per_row((1.0 - predicted.float()).square(), mask, reference)
    return each.sum() if reference else each.mean()


def _per_row(errors: Tensor, mask: Tensor, count_padding: bool) -> Tensor:
    """Mean over tokens: (batch, tokens, 1), (batch, 1, tokens) -> (batch,)."""
    if count_padding:
        return errors.mean(dim=(1, 2))
    real = mask.transpose(1, 2)
    return (errors * real).sum(dim=(1, 2)) / real.sum(dim=(1, 2))


def _total(losses: list[Tensor]) -> Tensor:
    return sum(losses[1:], start=losses[0])
