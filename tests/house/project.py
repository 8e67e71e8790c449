"""Where things lie in this repository, for the house tests."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "tts_kernel"
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


def modules(package: Path) -> list[Path]:
    """Every Python file of a package; a package without any is a mistake of the caller."""
    found = sorted(package.rglob("*.py"))
    assert found, f"no Python file under {package}: the test would pass by looking at nothing"
    return found


def module_name(path: Path, package: Path) -> str:
    """Dotted name: .../tts_kernel/audio/wav.py -> tts_kernel.audio.wav, a package's __init__.py -> the package."""
    parts = path.relative_to(package.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
