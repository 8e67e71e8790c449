"""A folder of tiny random models, as a download or an export would lie there, and voices for them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from tests.models.cosyvoice2.tiny_models import FLOW, HIFT, LLM, flow, llm, vocoder
from tts_kernel.models.cosyvoice2.generation import Sampling
from tts_kernel.models.cosyvoice2.llm import SpeechLanguageModel
from tts_kernel.synthesis.cosyvoice2 import Synthesizer
from tts_kernel.synthesis.model_folder import Sizes, write_sizes
from tts_kernel.synthesis.voice import Prompt, Voice
from tts_kernel.text.tokenizer import train_tokenizer

TEXT = "a big dog ran. did you see it? yes, i did."
SIZES = Sizes(LLM, FLOW, HIFT)
PER_LETTER = 4
SHORT = Sampling(max_token_text_ratio=PER_LETTER)


def encode(text: str) -> list[int]:
    """A token per letter, its place in the alphabet."""
    return [ord(letter) - 96 for letter in text.lower() if "a" <= letter <= "z"]


def speaking_llm(**changes: Any) -> SpeechLanguageModel:
    """It never ends by itself before the limit: lengths are known."""
    model = llm(**changes)
    with torch.no_grad():
        model.llm_decoder.bias[model.stop_tokens.start :] = -1e3
    return model


def ending_llm() -> SpeechLanguageModel:
    """It ends as early as it may: after two speech tokens per text token."""
    model = speaking_llm()
    with torch.no_grad():
        model.llm_decoder.bias[model.stop_tokens.start] = 1e3
    return model


def synthesizer(**changes: Any) -> Synthesizer:
    """Speaks PER_LETTER speech tokens per letter."""
    return replace(Synthesizer(speaking_llm(), flow(), vocoder(), encode, SHORT, steps=2), **changes)


def lora_voice(seed: int = 3) -> Voice:
    return Voice(torch.randn(6, generator=seeded(seed)))


def zero_shot_voice(tokens: int = 6) -> Voice:
    speech = torch.randint(0, 30, (tokens,), generator=seeded(4))
    prompt = Prompt("so it is", speech, torch.randn(2 * tokens, 8, generator=seeded(5)))
    return Voice(torch.randn(6, generator=seeded(6)), prompt)


def seeded(seed: int = 1) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def save(model: nn.Module, path: Path, **more: int) -> Path:
    torch.save({**model.state_dict(), **more}, path)
    return path


def make_folder(folder: Path) -> Path:
    """config.yaml, llm.pt, flow.pt, hift.pt and bpe.model."""
    folder.mkdir(parents=True, exist_ok=True)
    write_sizes(folder, SIZES)
    save(ending_llm(), folder / "llm.pt")
    save(flow(), folder / "flow.pt")
    save(vocoder(), folder / "hift.pt")
    train_tokenizer([TEXT, "so it is"], folder / "bpe.model", vocab_size=30)
    return folder


def trained_on(model: nn.Module, seed: int = 9) -> nn.Module:
    """The model after something moved its weights a little, as a merged adapter has."""
    random = seeded(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * parameter.abs().median() * torch.randn(parameter.shape, generator=random))
    return model
