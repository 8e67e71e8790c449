"""Speech tokens and speaker embeddings of a corpus, written as the shards that CosyVoice2's pipeline reads."""

from tts_kernel.data.voices.extracted import Extractor
from tts_kernel.data.voices.onnx_files import OnnxError, OnnxExtractor
from tts_kernel.data.voices.prepare import prepare
from tts_kernel.data.voices.stand_ins import StandIns

__all__ = ["Extractor", "OnnxError", "OnnxExtractor", "StandIns", "prepare"]
