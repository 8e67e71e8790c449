"""Attention of CosyVoice2's three networks at their published sizes: the fused formulation beside the plain one.

python -m benchmarks.cosyvoice2_attention --seconds 5 10 20 --rounds 7 --threads 1

Both take the same weights and inputs, in turns, and the median of each is shown with the ratio. `plain` computes all
scores, masks them, takes their softmax and weights the values, each with a tensor of its own. One layer at a time:
a batch of two utterances, one of them shorter, so that padding is masked.
"""

from __future__ import annotations

import argparse
import math
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from unittest import mock

import torch
from torch import Tensor, nn
from transformers import Qwen2Config, Qwen2Model

from tts_kernel.models.cosyvoice2 import encoder, estimator
from tts_kernel.models.cosyvoice2.config import BackboneConfig, EncoderConfig, EstimatorConfig
from tts_kernel.models.cosyvoice2.masks import attention_mask, real_positions

Call = Callable[[], Tensor]
BATCH = 2
TOKEN_RATE, FRAME_RATE = 25, 50  # Hz


def plain_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    scale: float | None = None,
) -> Tensor:
    """What `scaled_dot_product_attention` computes, one operation after the other."""
    scores = query @ key.transpose(-1, -2) * (1.0 / math.sqrt(query.shape[-1]) if scale is None else scale)
    if attn_mask is not None:
        is_mask = attn_mask.dtype == torch.bool
        scores = scores.masked_fill(~attn_mask, -torch.inf) if is_mask else scores + attn_mask
    return nn.functional.dropout(scores.softmax(-1), dropout_p) @ value


@contextmanager
def plainly() -> Iterator[None]:
    """Within it, the flow's two attentions are computed plainly."""
    with (
        mock.patch.object(encoder, "scaled_dot_product_attention", plain_attention),
        mock.patch.object(estimator, "scaled_dot_product_attention", plain_attention),
    ):
        yield


def lengths(size: int) -> Tensor:
    return torch.tensor([size, size - size // 5])


def estimator_attention(seconds: float) -> Call:
    config, frames = EstimatorConfig(), int(seconds * FRAME_RATE)
    layer = estimator.Attention(config.channels[0], config.num_heads, config.attention_head_dim, 0.0)
    x = torch.randn(BATCH, frames, config.channels[0], requires_grad=True)
    mask = attention_mask(real_positions(lengths(frames), frames))
    return lambda: layer(x, mask)


def encoder_attention(seconds: float) -> Call:
    """At the mel's rate, where most of the encoder's positions are."""
    config, frames = EncoderConfig(), int(seconds * FRAME_RATE)
    layer = encoder.RelativeAttention(config.output_size, config.attention_heads, 0.0)
    x = torch.randn(BATCH, frames, config.output_size, requires_grad=True)
    positions = encoder.relative_positions(frames, config.output_size)
    mask = attention_mask(real_positions(lengths(frames), frames))
    return lambda: layer(x, positions, mask)


def backbone_layer(seconds: float, kind: str) -> Call:
    """One whole layer of Qwen2 without padding's mask, which causal attention does not need."""
    config, tokens = BackboneConfig(), int(seconds * TOKEN_RATE)
    torch.manual_seed(0)
    model = Qwen2Model(
        Qwen2Config(
            vocab_size=8,
            hidden_size=config.hidden_size,
            intermediate_size=config.intermediate_size,
            num_hidden_layers=1,
            num_attention_heads=config.num_attention_heads,
            num_key_value_heads=config.num_key_value_heads,
            rope_parameters={"rope_type": "default", "rope_theta": config.rope_theta},
            attn_implementation=kind,
        )
    )
    x = torch.randn(BATCH, tokens, config.hidden_size, requires_grad=True)
    return lambda: model(inputs_embeds=x, use_cache=False).last_hidden_state


def timed(call: Call, backward: bool) -> float:
    began = time.perf_counter()
    if backward:
        call().sum().backward()
    else:
        with torch.inference_mode():
            call()
    return time.perf_counter() - began


def compare(name: str, fused: Call, plain: Call, rounds: int, backward: bool) -> str:
    """One line of the table: medians in milliseconds and their ratio. Raises AssertionError if the two differ."""
    with torch.no_grad():
        torch.testing.assert_close(fused(), plain(), atol=1e-4, rtol=1e-4)
    times: dict[str, list[float]] = {"fused": [], "plain": []}
    for _ in range(rounds + 1):
        times["fused"].append(timed(fused, backward))
        times["plain"].append(timed(plain, backward))
    found = {kind: 1e3 * statistics.median(values[1:]) for kind, values in times.items()}
    way = "training" if backward else "inference"
    return f"{name:22}{way:12}{found['plain']:10.1f}{found['fused']:10.1f}{found['plain'] / found['fused']:8.2f}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, nargs="+", default=[5.0, 10.0, 20.0], help="of speech per utterance")
    parser.add_argument("--rounds", type=int, default=7, help="whose median is shown")
    parser.add_argument("--threads", type=int, default=1)
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    print(f"{'':22}{'':12}{'plain':>10}{'fused':>10}{'ratio':>8}   milliseconds, median of {asked.rounds}")
    for seconds in asked.seconds:
        for title, make in (("estimator", estimator_attention), ("encoder", encoder_attention)):
            fused = make(seconds)

            def plain(fused: Call = fused) -> Tensor:
                with plainly():
                    return fused()

            for backward in (False, True):
                print(compare(f"{title} {seconds:g} s", fused, plain, asked.rounds, backward))
        fused, eager = (backbone_layer(seconds, kind) for kind in ("sdpa", "eager"))
        for backward in (False, True):
            print(compare(f"Qwen2 layer {seconds:g} s", fused, eager, asked.rounds, backward))
    return 0


if __name__ == "__main__":
    sys.exit(main())
