"""What an audit depends on; equal to the parameters of notebooks/00_data_audit.ipynb."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator
from pydantic.dataclasses import dataclass as checked_dataclass

from tts_kernel.settings import STRICT

Seconds = Annotated[float, Field(ge=0)]
Share = Annotated[float, Field(ge=0, le=1)]
Rate = Annotated[float, Field(ge=0)]
FailOn = Literal["error", "warning", "never"]


class AuditError(ValueError):
    """Data that cannot be audited, or that `fail_on` does not let pass."""


@checked_dataclass(frozen=True, config=STRICT)
class AuditSettings:
    """Everything that decides what an audit finds."""

    run_name: str = ""  # empty for audit-<UTC time>
    data: str = ""  # data folder (layout: data/demo/corpus.py); empty for the embedded demo corpus
    demo_faults: bool = False  # the demo with every kind of fault planted in it
    train_manifest: str = "gpt_pairs_train.jsonl"  # in the data folder
    validation_manifest: str = "gpt_pairs_val.jsonl"  # in the data folder; empty for none
    speaker_mapping: str = ""  # {name: id}; empty for the data folder's speaker_mapping.json, if it has one
    tokenizer: str = ""  # SentencePiece model; empty for the data folder's bpe.model, if it has one
    allow_outside_paths: bool = False  # whether paths may leave the data folder
    sample: Annotated[int, Field(ge=0)] = 2000  # clips whose audio and features are opened; 0 for all
    check_audio: bool = True
    check_features: bool = True
    workers: Annotated[int, Field(ge=1, le=256)] = 2  # processes that open files
    seed: Annotated[int, Field(ge=0)] = 0  # of the sample
    min_duration: Seconds = 0.4  # seconds
    max_duration: Annotated[float, Field(gt=0)] = 30.0  # seconds
    max_silence: Seconds = 1.0  # seconds at either end
    min_level: Annotated[float, Field(le=0)] = -45.0  # dB below full scale, RMS of the speech
    max_clipping: Share = 0.001  # share of samples in flat tops at full scale
    min_sample_rate: Annotated[int, Field(ge=0)] = 16_000  # Hz
    min_chars_per_second: Rate = 1.0  # letters and digits
    max_chars_per_second: Annotated[float, Field(gt=0)] = 30.0
    tempo_factor: Annotated[float, Field(gt=1)] = 3.0  # times the language's median tempo, either way
    max_unknown_tokens: Share = 0.0  # share of a text's tokens
    min_speaker_coverage: Share = 0.5  # share of pairs with a mapped speaker
    fail_on: FailOn = "error"  # the mildest finding that fails a headless run

    @model_validator(mode="after")
    def _consistent(self) -> AuditSettings:
        problems = []
        if self.demo_faults and self.data:
            problems.append(f"demo_faults: found True with data {self.data!r}; faults are planted in the demo only")
        for low, high in (("min_duration", "max_duration"), ("min_chars_per_second", "max_chars_per_second")):
            if getattr(self, low) >= getattr(self, high):
                problems.append(
                    f"{low} and {high}: found {getattr(self, low)} and {getattr(self, high)}, expected the first below "
                    "the second"
                )
        if self.train_manifest == self.validation_manifest:
            problems.append(
                f"validation_manifest: found {self.validation_manifest!r}, the manifest to train on; name the held-out "
                "one, or leave it empty"
            )
        if not self.train_manifest:
            problems.append("train_manifest: found empty; name a manifest in the data folder")
        if problems:
            raise ValueError("\n  ".join(problems))
        return self
