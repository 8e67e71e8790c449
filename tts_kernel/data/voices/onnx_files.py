"""The published extractors as the user has them: speech_tokenizer_v2.onnx and campplus.onnx, by onnxruntime.

Both are checked before the first clip: inputs and outputs by kind and shape, and what two seconds of sound come to.
Source: FunAudioLLM/CosyVoice, tools/extract_speech_token.py and tools/extract_embedding.py (what is fed to them).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tts_kernel.audio.spectrogram import WhisperLogMel, speaker_fbank
from tts_kernel.audio.wav import Hz, Seconds, resample_sinc
from tts_kernel.data.pipeline.lengths import EMBEDDING, TOKENS_PER_SECOND

RATE: Hz = 16_000
LONGEST: Seconds = 30.0  # of sound that the speech tokenizer takes
CODEBOOK = 6561
_PROBE: Seconds = 2.0


class OnnxError(ValueError):
    """An ONNX file that is missing, cannot be opened, or is another model or version."""


@dataclass(frozen=True)
class _Port:
    """An input or output: element type and shape, None where any size will do."""

    kind: str
    shape: tuple[int | None, ...]

    def fits(self, found: Any) -> bool:
        if found.type != self.kind or len(found.shape) != len(self.shape):
            return False
        pairs = zip(self.shape, found.shape, strict=True)
        return all(want is None or not isinstance(size, int) or size == want for want, size in pairs)


_TOKENIZER = [_Port("tensor(float)", (None, 128, None)), _Port("tensor(int32)", (None,))]
_ENCODER = [_Port("tensor(float)", (None, None, 80))]


class OnnxExtractor:
    """Speech tokens and speaker embeddings by the published models."""

    def __init__(self, speech_tokenizer: Path, campplus: Path) -> None:
        """Raises OnnxError listing what is wrong with either file, and where onnxruntime is not installed."""
        self._mel = WhisperLogMel()
        problems: list[str] = []
        self._tokenizer = _session(speech_tokenizer, "speech_tokenizer_v2.onnx", _TOKENIZER, problems)
        self._encoder = _session(campplus, "campplus.onnx", _ENCODER, problems)
        if not problems:
            noise = np.random.default_rng(0).normal(0, 0.01, int(_PROBE * RATE)).astype(np.float32)
            _probe(speech_tokenizer, lambda: self._check_tokens(noise), problems)
            _probe(campplus, lambda: self._check_embedding(noise), problems)
        if problems:
            raise OnnxError("\n".join(problems))

    def tokens(self, wav: np.ndarray, rate: Hz) -> np.ndarray:
        """(samples,) in [-1, 1] -> (25 a second,) int64; empty for more than 30 s, which the model cannot read."""
        wav = resample_sinc(wav, rate, RATE)
        if len(wav) > LONGEST * RATE:
            return np.zeros(0, np.int64)
        mel = np.ascontiguousarray(self._mel.of_clip(wav).T)[None]
        return self._run(self._tokenizer, mel, np.array([mel.shape[2]], np.int32)).reshape(-1).astype(np.int64)

    def embedding(self, wav: np.ndarray, rate: Hz) -> np.ndarray:
        """(samples,) in [-1, 1] -> (192,) float32, not normalised."""
        features = speaker_fbank(resample_sinc(wav, rate, RATE))
        return self._run(self._encoder, features[None]).reshape(-1).astype(np.float32)

    def _run(self, session: Any, *values: np.ndarray) -> np.ndarray:
        names = [port.name for port in session.get_inputs()]
        try:
            return np.asarray(session.run(None, dict(zip(names, values, strict=True)))[0])
        except Exception as error:  # as where it is opened; one clip of thousands must not end the others
            raise OnnxError(f"onnxruntime fails on it ({_first_line(error)})") from error

    def _check_tokens(self, noise: np.ndarray) -> str:
        found = self.tokens(noise, RATE)
        expected = int(_PROBE * TOKENS_PER_SECOND)
        if len(found) != expected:
            return f"makes {len(found)} tokens of {_PROBE:g} s, expected {expected}: is it speech_tokenizer_v1?"
        if found.min() < 0 or found.max() >= CODEBOOK:
            return f"makes tokens {found.min()} to {found.max()}, expected 0 to {CODEBOOK - 1}"
        return ""

    def _check_embedding(self, noise: np.ndarray) -> str:
        found = self.embedding(noise, RATE)
        return "" if found.shape == (EMBEDDING,) else f"makes embeddings of {len(found)} values, expected {EMBEDDING}"


def _session(path: Path, name: str, inputs: list[_Port], problems: list[str]) -> Any:
    """An open file whose inputs fit, or None and a problem more."""
    try:
        import onnxruntime
    except ImportError as error:
        raise OnnxError('ONNX files need onnxruntime, found none: pip install "tts_kernel[onnx]"') from error
    path = Path(path)
    if not path.is_file():
        problems.append(f"{path}: no such file; expected {name} from the folder of CosyVoice2-0.5B")
        return None
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1  # clips run side by side instead
    there = onnxruntime.get_available_providers()
    chosen = [name for name in ("CUDAExecutionProvider", "CPUExecutionProvider") if name in there]
    try:
        session = onnxruntime.InferenceSession(str(path), sess_options=options, providers=chosen)
    except Exception as error:  # onnxruntime has a class of its own for every kind of damage
        problems.append(f"{path}: cannot be opened ({_first_line(error)}); was it downloaded whole?")
        return None
    found = session.get_inputs()
    if len(found) != len(inputs) or not all(port.fits(given) for port, given in zip(inputs, found, strict=True)):
        said = ", ".join(f"{port.name} {port.type} {list(port.shape)}" for port in found)
        expected = ", ".join(f"{port.kind} {list(port.shape)}".replace("None", "any") for port in inputs)
        problems.append(f"{path}: takes {said}; {name} takes {expected}: it is another model or version")
    return session


def _probe(path: Path, look: Callable[[], str], problems: list[str]) -> None:
    try:
        problem = look()
    except Exception as error:  # as above
        problem = f"fails on {_PROBE:g} s of noise ({_first_line(error)})"
    if problem:
        problems.append(f"{path}: {problem}")


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)
