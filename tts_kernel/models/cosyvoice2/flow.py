"""CosyVoice2's flow model: speech tokens at 25 Hz, a prompt and a speaker -> 24 kHz mel at 50 frames a second.

Source: CosyVoice 2 (arXiv 2412.10117), section 2.4; names of weights from parity case layout_full, numbers from
flow_small.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from tts_kernel.models.cosyvoice2.config import FlowConfig
from tts_kernel.models.cosyvoice2.encoder import UpsamplingEncoder
from tts_kernel.models.cosyvoice2.estimator import CausalEstimator
from tts_kernel.models.cosyvoice2.masks import real_positions
from tts_kernel.models.flow_matching import ConditionalFlowMatching, Conditions, Draws, Estimate

MAX_FRAMES = 15_000  # of the fixed start noise: five minutes
LONGEST_PREFIX = 0.3  # share of an utterance that may be its own prompt in training


@dataclass(frozen=True)
class TrainingDraws:
    """Every random choice of one training step."""

    streaming: bool  # whether the whole batch is seen in chunks
    prefix: Tensor  # (batch,) frames of the target that are given as prompt
    flow: Draws


def draw(
    mel: Tensor, mel_lengths: Tensor, generator: torch.Generator | None = None, streaming: bool | None = None
) -> TrainingDraws:
    """For a batch of mels (batch, frames, n_mels): as the reference draws, half of the batches in chunks (unless
    `streaming` says which), half of the utterances with a prompt of up to 30 % of their frames. The generator is the
    CPU's, so that the same seed gives the same draws on any device."""
    batch = len(mel)
    chances = torch.rand(1 + 4 * batch, generator=generator)
    prompted, share, time, chance = chances[1:].view(4, batch)
    longest = (LONGEST_PREFIX * mel_lengths.cpu()).long()
    prefix = (share * (longest + 1)).long().masked_fill(prompted < 0.5, 0)
    noise = torch.randn(batch, mel.shape[2], mel.shape[1], generator=generator)
    flow = Draws(*(part.to(mel.device, mel.dtype) for part in (time, noise, chance)))
    chosen = bool(chances[0] < 0.5) if streaming is None else streaming
    return TrainingDraws(chosen, prefix.to(mel.device), flow)


class TokenToMel(nn.Module):
    """Tokens are embedded and encoded into a rough mel, `mu`, from which flow matching makes the mel."""

    start_noise: Tensor  # (1, n_mels, MAX_FRAMES): the same for every utterance, so that chunks fit together

    def __init__(self, config: FlowConfig) -> None:
        super().__init__()
        self.config = config
        n_mels = config.output_size
        self.input_embedding = nn.Embedding(config.vocab_size, config.input_size)
        self.spk_embed_affine_layer = nn.Linear(config.spk_embed_dim, n_mels)
        self.encoder = UpsamplingEncoder(
            config.input_size, config.token_mel_ratio, config.pre_lookahead_len, config.encoder
        )
        self.encoder_proj = nn.Linear(config.encoder.output_size, n_mels)
        self.decoder = ConditionalFlowMatching(
            CausalEstimator(n_mels, config.estimator),
            sigma_min=config.cfm_params.sigma_min,
            training_cfg_rate=config.cfm_params.training_cfg_rate,
            inference_cfg_rate=config.cfm_params.inference_cfg_rate,
        )
        seeded = torch.Generator("cpu").manual_seed(0)  # the reference's noise, without touching the global seed
        noise = torch.randn(1, n_mels, MAX_FRAMES, generator=seeded, device="cpu")
        self.register_buffer("start_noise", noise, persistent=False)

    def forward(
        self,
        tokens: Tensor,
        token_lengths: Tensor,
        mel: Tensor,
        mel_lengths: Tensor,
        speaker_embedding: Tensor,
        draws: TrainingDraws,
    ) -> Estimate:
        """tokens (batch, n), mel (batch, token_mel_ratio * n, n_mels), speaker_embedding (batch, spk_embed_dim) ->
        the velocity and its target. Raises ValueError naming utterances whose frames are not `token_mel_ratio` times
        their tokens: trim the longer of the two when the batch is made."""
        expected = token_lengths * self.config.token_mel_ratio
        wrong = (mel_lengths != expected).nonzero()[:, 0].tolist()
        if wrong:
            shown = ", ".join(
                f"utterance {row}: {int(mel_lengths[row])} frames for {int(token_lengths[row])} tokens"
                for row in wrong[:4]
            )
            raise ValueError(
                f"{len(wrong)} utterances have other than {self.config.token_mel_ratio} frames per token ({shown}); "
                "trim tokens or mel when the batch is made"
            )
        real_tokens = real_positions(token_lengths, tokens.shape[1])
        mu = self.encoder_proj(self.encoder(self.embed(tokens, real_tokens), real_tokens, streaming=draws.streaming))
        target = mel.transpose(1, 2)
        given = real_positions(draws.prefix, mel.shape[1])[:, None]
        conditions = Conditions(mu.transpose(1, 2), self.speaker(speaker_embedding), target * given)
        real = real_positions(expected, mel.shape[1])[:, None].to(mel.dtype)
        return self.decoder(target, real, conditions, draws.flow, draws.streaming)

    @torch.inference_mode()
    def infer(
        self,
        tokens: Tensor,
        prompt_tokens: Tensor,
        prompt_mel: Tensor,
        speaker_embedding: Tensor,
        *,
        streaming: bool = False,
        more_to_come: bool = False,
        steps: int = 10,
    ) -> Tensor:
        """One utterance: tokens (1, n), the prompt's tokens (1, m) and mel (1, frames, n_mels), both may be empty,
        speaker_embedding (1, spk_embed_dim) -> mel (1, n_mels, token_mel_ratio * n) without the prompt's frames.

        `streaming` sees chunks, so that what was made stays as it is when more tokens come, once prompt and tokens fill
        whole chunks. With `more_to_come` the last `pre_lookahead_len` tokens only tell what follows, and get no frames
        yet.
        Raises ValueError if too few tokens are left, or more frames than the start noise has."""
        ratio, ahead = self.config.token_mel_ratio, self.config.pre_lookahead_len
        everything = torch.cat([prompt_tokens, tokens], dim=1)
        count = everything.shape[1] - (ahead if more_to_come else 0)
        frames = ratio * count
        if count < 1 or frames > self.start_noise.shape[-1] or frames < prompt_mel.shape[1]:
            raise ValueError(
                f"{everything.shape[1]} tokens make {frames} frames of which {prompt_mel.shape[1]} are the prompt's; "
                f"expected 1 to {self.start_noise.shape[-1]} frames, and no fewer than the prompt's. Split the text, "
                "or wait for more tokens"
            )
        embedded = self.embed(everything, torch.ones_like(everything, dtype=torch.bool))
        context = embedded[:, count:] if more_to_come else None
        real = torch.ones_like(everything[:, :count], dtype=torch.bool)
        mu = self.encoder_proj(self.encoder(embedded[:, :count], real, context, streaming)).transpose(1, 2)
        prompt = torch.zeros_like(mu)
        prompt[:, :, : prompt_mel.shape[1]] = prompt_mel.transpose(1, 2)
        conditions = Conditions(mu, self.speaker(speaker_embedding), prompt)
        noise = self.start_noise[:, :, :frames].to(mu.dtype)
        mel = self.decoder.solve(noise, torch.ones_like(mu[:, :1]), conditions, steps, streaming)
        return mel[:, :, prompt_mel.shape[1] :]

    def embed(self, tokens: Tensor, real: Tensor) -> Tensor:
        """(batch, n) -> (batch, n, input_size), 0 on padding: what lies behind the last token is silence to it."""
        return self.input_embedding(tokens) * real[..., None]

    def speaker(self, embedding: Tensor) -> Tensor:
        """(batch, spk_embed_dim) of any length -> (batch, n_mels)."""
        return self.spk_embed_affine_layer(normalize(embedding, dim=1))
