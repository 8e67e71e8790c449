"""Prompt/target pairs as memory-mapped columns, imported from JSON lines and written back."""

from tts_kernel.data.manifest.fields import ManifestError, PathRule, Problem, Problems
from tts_kernel.data.manifest.manifest import Manifest, digest, import_manifest, read_manifest, write_manifest

__all__ = [
    "Manifest",
    "ManifestError",
    "PathRule",
    "Problem",
    "Problems",
    "digest",
    "import_manifest",
    "read_manifest",
    "write_manifest",
]
