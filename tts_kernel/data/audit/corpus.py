"""The data that an audit looks at: found, opened, and refused at once where something that was named is not there."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

from tts_kernel.data.audit.rows import Rows, Split
from tts_kernel.data.audit.settings import AuditError, AuditSettings
from tts_kernel.data.demo import corpus as demo
from tts_kernel.data.demo.faults import open_faulty
from tts_kernel.data.files import UnsafePathError, inside
from tts_kernel.data.manifest import import_manifest
from tts_kernel.runs import cache_folder, project_path
from tts_kernel.text.tokenizer import TextTokenizer

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Corpus:
    """What is audited."""

    root: Path
    rows: Rows
    tokenizer: TextTokenizer | None
    mapping: Path | None  # speaker_mapping.json

    def __str__(self) -> str:
        lines = []
        for split in self.rows.splits:
            left_out = sum(count for reason, count in split.problems.counts.items() if reason != "outside")
            pairs = f"{len(split.manifest):,} pairs"
            lines.append(f"{split.name}: {pairs} in {split.manifest.path.name}, lines left out: {left_out:,}")
        vocabulary = f"{self.tokenizer.vocab_size:,} tokens" if self.tokenizer else "none"
        return "\n".join(
            [*lines, f"tokenizer: {vocabulary}; speaker mapping: {self.mapping.name if self.mapping else 'none'}"]
        )


def open_corpus(settings: AuditSettings) -> Corpus:
    """Open what the settings name; without `data` the demo, made on first use. Raises AuditError if something is not
    there, ManifestError or TokenizerError if it cannot be read at all."""
    if not settings.data:
        log.info("demo: opening it in %s; it is made on first use, in about 20 s", cache_folder())
        root = (open_faulty if settings.demo_faults else demo.open_corpus)(cache_folder())
    else:
        root = project_path(settings.data)
    if not root.is_dir():
        raise AuditError(f"{root}: no such folder; data names the folder that holds the manifests")
    problems = []
    manifests = {"train": settings.train_manifest, "validation": settings.validation_manifest}
    paths = {}
    for split, name in manifests.items():
        if not name:
            continue
        try:
            paths[split] = inside(root, name)
        except UnsafePathError as error:
            problems.append(f"{split}_manifest: {error}")
            continue
        if not paths[split].is_file():
            there = ", ".join(sorted(path.name for path in root.glob("*.jsonl"))) or "none"
            hint = ", or leave it empty to audit one manifest" if split == "validation" else ""
            problems.append(f"{split}_manifest: {paths[split]} is not there; manifests in this folder: {there}{hint}")
    named = {"tokenizer": settings.tokenizer, "speaker_mapping": settings.speaker_mapping}
    found: dict[str, Path | None] = {}
    for parameter, usual in (("tokenizer", "bpe.model"), ("speaker_mapping", "speaker_mapping.json")):
        path = project_path(named[parameter]) if named[parameter] else root / usual
        if named[parameter] and not path.is_file():
            problems.append(f"{parameter}: {path} is not there; leave it empty for {usual} of the data folder")
        found[parameter] = path if path.is_file() else None
    if problems:
        raise AuditError("\n".join(problems))
    splits = tuple(Split(name, *import_manifest(path)) for name, path in paths.items())
    tokenizer = TextTokenizer(found["tokenizer"]) if found["tokenizer"] else None
    return Corpus(root, Rows(splits), tokenizer, found["speaker_mapping"])
