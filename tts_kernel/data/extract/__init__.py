"""One array per clip: parallel jobs that are started again where they stopped."""

from tts_kernel.data.extract.clip_work import Extractor
from tts_kernel.data.extract.job import ExtractionReport
from tts_kernel.data.extract.run import extract, extract_mels

__all__ = ["ExtractionReport", "Extractor", "extract", "extract_mels"]
