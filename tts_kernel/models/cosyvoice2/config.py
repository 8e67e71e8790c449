"""Sizes of CosyVoice2's three models under their public names; the defaults are CosyVoice2-0.5B's.

Source of names and values: CosyVoice 2 (arXiv 2412.10117), parity cases layout_full, llm_small, flow_small, hift_small.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from tts_kernel.models.config_types import below_one, no_shares, refuse


@dataclass(frozen=True)
class BackboneConfig:
    """Qwen2-0.5B, in transformers' names."""

    vocab_size: int = 151_936
    hidden_size: int = 896
    intermediate_size: int = 4864
    num_hidden_layers: int = 24
    num_attention_heads: int = 14
    num_key_value_heads: int = 2
    max_position_embeddings: int = 32_768
    rope_theta: float = 1e6
    rms_norm_eps: float = 1e-6

    def __post_init__(self) -> None:
        problems = below_one(self)
        if not problems and self.hidden_size % self.num_attention_heads:
            problems.append(f"hidden_size {self.hidden_size} is no multiple of {self.num_attention_heads} heads")
        if not problems and self.num_attention_heads % self.num_key_value_heads:
            problems.append(f"{self.num_attention_heads} heads are no multiple of {self.num_key_value_heads} kv heads")
        refuse(problems)


@dataclass(frozen=True)
class LLMConfig:
    """Text -> speech tokens."""

    speech_token_size: int = 6561  # codes of the speech tokenizer; end, a spare one and fill follow
    mix_ratio: tuple[int, int] = (5, 15)  # text tokens to speech tokens where both are interleaved
    qwen2: BackboneConfig = field(default_factory=BackboneConfig)

    def __post_init__(self) -> None:
        problems = below_one(self)
        if len(self.mix_ratio) != 2 or min(self.mix_ratio, default=0) < 1:
            problems.append(f"mix_ratio is {list(self.mix_ratio)}, expected two numbers of at least 1")
        refuse(problems)


@dataclass(frozen=True)
class EncoderConfig:
    """The conformer encoder that doubles the frame rate."""

    output_size: int = 512
    attention_heads: int = 8
    linear_units: int = 2048
    num_blocks: int = 6  # at the token rate
    num_up_blocks: int = 4  # at the mel rate; fixed in the reference
    dropout_rate: float = 0.1
    positional_dropout_rate: float = 0.1
    attention_dropout_rate: float = 0.1
    static_chunk_size: int = 25  # tokens a streaming block sees at once: one second

    def __post_init__(self) -> None:
        problems = below_one(self) + no_shares(self, "rate")
        if not problems and (self.output_size % self.attention_heads or self.output_size % 2):
            problems.append(f"output_size {self.output_size} is no even multiple of {self.attention_heads} heads")
        refuse(problems)


@dataclass(frozen=True)
class EstimatorConfig:
    """The causal U-Net that estimates the velocity of the flow."""

    channels: tuple[int, ...] = (256,)  # one level: time is never halved
    dropout: float = 0.0
    attention_head_dim: int = 64
    n_blocks: int = 4  # transformer blocks behind each residual block
    num_mid_blocks: int = 12
    num_heads: int = 8
    static_chunk_size: int = 50  # frames a streaming block sees at once: one second
    num_decoding_left_chunks: int = -1  # earlier chunks it sees; -1 for all

    def __post_init__(self) -> None:
        problems = below_one(self, but=("num_decoding_left_chunks", "num_mid_blocks")) + no_shares(self, "dropout")
        if len(self.channels) != 1 or self.channels[0] < 1:
            problems.append(f"channels is {list(self.channels)}, expected one width: a causal estimator has one level")
        if self.num_decoding_left_chunks < -1 or self.num_mid_blocks < 0:
            problems.append("num_decoding_left_chunks is below -1 or num_mid_blocks below 0")
        refuse(problems)


@dataclass(frozen=True)
class CFMConfig:
    """Conditional flow matching and its guidance."""

    sigma_min: float = 1e-6
    training_cfg_rate: float = 0.2  # share of utterances trained without any condition
    inference_cfg_rate: float = 0.7  # how far to go beyond the conditional velocity

    def __post_init__(self) -> None:
        refuse(no_shares(self, "training_cfg_rate"))


@dataclass(frozen=True)
class FlowConfig:
    """Speech tokens -> 24 kHz mel."""

    input_size: int = 512  # width of a token's embedding
    output_size: int = 80  # mel bands
    spk_embed_dim: int = 192  # width of the speaker embedding
    vocab_size: int = 6561  # speech tokens
    token_mel_ratio: int = 2  # frames per token
    pre_lookahead_len: int = 3  # tokens of the future that each token sees
    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    cfm_params: CFMConfig = field(default_factory=CFMConfig)
    estimator: EstimatorConfig = field(default_factory=EstimatorConfig)

    def __post_init__(self) -> None:
        refuse(below_one(self))


@dataclass(frozen=True)
class F0Config:
    """The pitch predictor inside the vocoder."""

    cond_channels: int = 512

    def __post_init__(self) -> None:
        refuse(below_one(self))


@dataclass(frozen=True)
class HiftConfig:
    """24 kHz mel -> waveform."""

    in_channels: int = 80  # mel bands
    base_channels: int = 512
    nb_harmonics: int = 8  # beside the fundamental
    sampling_rate: int = 24_000
    nsf_alpha: float = 0.1  # amplitude of a sine
    nsf_sigma: float = 0.003  # deviation of the noise beside it
    nsf_voiced_threshold: float = 10.0  # Hz
    upsample_rates: tuple[int, ...] = (8, 5, 3)
    upsample_kernel_sizes: tuple[int, ...] = (16, 11, 7)
    n_fft: int = 16  # of the spectrum that is turned into a wave
    hop_len: int = 4
    resblock_kernel_sizes: tuple[int, ...] = (3, 7, 11)
    resblock_dilation_sizes: tuple[tuple[int, ...], ...] = ((1, 3, 5), (1, 3, 5), (1, 3, 5))
    source_resblock_kernel_sizes: tuple[int, ...] = (7, 7, 11)
    source_resblock_dilation_sizes: tuple[tuple[int, ...], ...] = ((1, 3, 5), (1, 3, 5), (1, 3, 5))
    lrelu_slope: float = 0.1
    audio_limit: float = 0.99
    f0_predictor: F0Config = field(default_factory=F0Config)

    def __post_init__(self) -> None:
        problems = below_one(self)
        stages = len(self.upsample_rates)
        for name, length in (
            ("upsample_kernel_sizes", stages),
            ("source_resblock_kernel_sizes", stages),
            ("source_resblock_dilation_sizes", stages),
            ("resblock_dilation_sizes", len(self.resblock_kernel_sizes)),
        ):
            if len(getattr(self, name)) != length:
                problems.append(f"{name} has {len(getattr(self, name))} entries, expected {length}")
        if self.base_channels % 2**stages:
            problems.append(f"base_channels {self.base_channels} cannot be halved {stages} times")
        refuse(problems)

    @property
    def samples_per_frame(self) -> int:
        samples = self.hop_len
        for rate in self.upsample_rates:
            samples *= rate
        return samples
