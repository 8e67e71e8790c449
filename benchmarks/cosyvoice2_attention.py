"""Attention of CosyVoice2's three networks at their published sizes: the fused formulation beside the plain one.

python -m benchmarks.cosyvoice2_attention        # writes the section "Attention" of docs/benchmarks/cosyvoice2.md
python -m benchmarks.cosyvoice2_attention --seconds 5 --rounds 3 --output attention.md
"""

from __future__ import annotations

import argparse
import logging
import math
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

import torch
from torch import Tensor, nn
from transformers import Qwen2Config, Qwen2Model

from benchmarks.cosyvoice2_page import PAGE, put, section, spread
from benchmarks.data.report import row
from tts_kernel.models.cosyvoice2 import encoder, estimator
from tts_kernel.models.cosyvoice2.config import BackboneConfig, EncoderConfig, EstimatorConfig
from tts_kernel.models.cosyvoice2.masks import attention_mask, real_positions

TITLE = "Attention"
METHOD = (
    "Made by `python -m benchmarks.cosyvoice2_attention`: one layer of each network at its published size, a batch of "
    "two utterances of which one is shorter, so that padding is masked. `plain` computes all scores, masks them, takes "
    "their softmax and weights the values, each with a tensor of its own; of Qwen2 it is transformers' eager "
    "attention. Both take the same weights and inputs in turns and agree within 1e-4. Medians of {rounds} rounds, CPU "
    "time of one thread, which other programs hardly change; in brackets the range of nine of ten rounds' ratios."
)
Call = Callable[[], Tensor]
BATCH = 2
TOKEN_RATE, FRAME_RATE = 25, 50  # Hz
log = logging.getLogger("benchmarks.cosyvoice2_attention")


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
    """Milliseconds of CPU time."""
    began = time.process_time()
    if backward:
        call().sum().backward()
    else:
        with torch.inference_mode():
            call()
    return 1e3 * (time.process_time() - began)


def compare(name: str, fused: Call, plain: Call, rounds: int, backward: bool) -> str:
    """A line of the table. Raises AssertionError if the two differ."""
    with torch.no_grad():
        torch.testing.assert_close(fused(), plain(), atol=1e-4, rtol=1e-4)
    times = [(timed(plain, backward), timed(fused, backward)) for _ in range(rounds + 1)][1:]
    slow, quick = (statistics.median(values) for values in zip(*times, strict=True))
    ratios = spread([one / other for one, other in times], "x")
    line = (name, "training" if backward else "inference", f"{slow:.1f} ms", f"{quick:.1f} ms", ratios)
    log.info("%-22s%-12s%12s%12s   %s", *line)
    return row(line)


def table(seconds: list[float], rounds: int) -> list[str]:
    """Lines of the section."""
    lines = [row(("what", "way", "plain", "fused", "quicker")), row(["---", "---", *["---:"] * 3])]
    for length in seconds:
        for title, make in (("estimator", estimator_attention), ("encoder", encoder_attention)):
            fused = make(length)

            def plain(fused: Call = fused) -> Tensor:
                with plainly():
                    return fused()

            lines += [compare(f"{title}, {length:g} s", fused, plain, rounds, backward) for backward in (False, True)]
        fused, eager = (backbone_layer(length, kind) for kind in ("sdpa", "eager"))
        lines += [compare(f"Qwen2 layer, {length:g} s", fused, eager, rounds, way) for way in (False, True)]
    return lines


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.cosyvoice2_attention", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--seconds", type=float, nargs="+", default=[5.0, 10.0, 20.0], help="of speech per utterance")
    parser.add_argument("--rounds", type=int, default=7, help="whose median is shown")
    parser.add_argument("--output", type=Path, default=PAGE)
    given = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    torch.set_num_threads(1)
    lines = table(given.seconds, given.rounds)
    put(given.output, TITLE, section(TITLE, METHOD.format(rounds=given.rounds), lines))
    return 0


if __name__ == "__main__":
    sys.exit(main())
