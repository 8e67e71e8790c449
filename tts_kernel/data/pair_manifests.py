"""From a corpus and its extracted features to the two manifests that training reads.

    python -m tts_kernel.data.pair_manifests DATA emilia SOURCE --hold-out 0.01 --by recording

DATA holds text_ids and codes of the clips, packed or as .npy; SOURCE is the corpus in one of the layouts of
data/corpora, whose ids are the clips' names. Clips without features are left out and counted.
"""

from __future__ import annotations

import argparse
import os
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tts_kernel.data import corpora
from tts_kernel.data.features import Features
from tts_kernel.data.manifest import Manifest, write_manifest
from tts_kernel.data.manifest.fields import FEW_VALUES, ManifestError, PathRule
from tts_kernel.data.manifest.importing import KEY
from tts_kernel.data.pairs import CODES, TEXT, Paired, PairError, PairLimits, make_pairs
from tts_kernel.data.split import HoldOutBy, held_units, leaks, recordings
from tts_kernel.data.string_keys import string_keys

TRAIN, VALIDATION = "gpt_pairs_train.jsonl", "gpt_pairs_val.jsonl"
_RULES = {
    "target_text_ids_path": PathRule("text_ids/", "target_id", ".npy"),
    "target_codes_path": PathRule("codes/", "target_id", ".npy"),
    "prompt_condition_path": PathRule("condition/", "prompt_id", ".npy", where="prompt_condition_len"),
    "prompt_emo_vec_path": PathRule("emo_vec/", "target_id", ".npy"),
}


@dataclass(frozen=True)
class Written:
    """What became of a corpus's clips."""

    train: Paired
    validation: Paired
    without_features: int
    held_out: int  # clips
    clips: int  # with features, on both sides
    outside: bool  # whether the audio lies outside the data folder

    def __str__(self) -> str:
        lines = [
            f"{TRAIN}: {len(self.train):,} pairs; {VALIDATION}: {len(self.validation):,} pairs of {self.held_out:,} "
            f"held-out clips ({self.held_out / self.clips:.1%})"
        ]
        if self.outside:
            lines.append(
                "the audio lies outside the data folder: extract with --allow-outside-paths, set allow_outside_paths"
            )
        if self.without_features:
            lines.append(f"{self.without_features:,} clips left out: no text_ids or no codes")
        for name, side in (("training", self.train), ("held-out", self.validation)):
            lines += [f"{count:,} {name} clips are no target: {reason}" for reason, count in side.dropped.items()]
        return "\n".join(lines)


def write_pairs(
    data: Path,
    utterances: corpora.Utterances,
    limits: PairLimits,
    share: float = 0.01,
    by: HoldOutBy = "recording",
    latents: int = 32,  # of prompt_condition, what the model has
) -> Written:
    """Write both manifests of `data`. Whole units of `share` of the clips are held out before clips are paired, so a
    pair never has a clip of each side. Raises PairError where no pairs can be made, ManifestError for a manifest that
    is there already or units that cannot be told."""
    for name in (TRAIN, VALIDATION):
        if (data / name).exists():
            raise ManifestError([f"{data / name}: exists; move it away first, runs may have begun with it"])
    if utterances.has("start").any():
        clip = utterances.table.filter(pa.array(utterances.has("start"))).column("id")[0].as_py()
        raise PairError(
            f"clip {clip!r} is a part of a longer recording; a pair names whole files. Cut the clips first: "
            "python -m tts_kernel.data.corpora KIND SOURCE folder TARGET"
        )
    if not 0 < share <= 0.5:
        raise PairError(f"a share of {share} cannot be held out; expected more than 0, at most 0.5")
    clips = with_lengths(data, utterances)
    if not len(clips):
        raise PairError(f"{data}: none of the {len(utterances)} clips has text_ids and codes; extract them first")
    if by == "recording":
        names = _recordings(clips)
        clips = clips.set_column(clips.column_names.index("recording"), "recording", names)
    units = string_keys(clips.column("id" if by == "clip" else by))
    held = np.isin(units, held_units(units, share))
    if not held.any():
        count = len(np.unique(units))
        raise ManifestError([f"{data}: {count} {by}s, too few to hold out {share:.0%} by {by}; expected at least 2"])
    sides = [clips.filter(pa.array(~held)), clips.filter(pa.array(held))]
    pairs = [make_pairs(side, limits) for side in sides]
    manifests = [
        _manifest(side, paired, utterances.root, data / name, latents)
        for side, paired, name in zip(sides, pairs, (TRAIN, VALIDATION), strict=True)
    ]
    train, validation = manifests
    if found := leaks(train, validation, by):
        raise ManifestError([f"{data}: held out and trained on at once: {found}; repair the corpus's ids"])
    for manifest in manifests:
        write_manifest(manifest, manifest.path)
    outside = (
        _prefix(utterances.root, data).startswith("..") or pc.any(pc.starts_with(clips.column("audio"), "/")).as_py()
    )
    return Written(pairs[0], pairs[1], len(utterances) - len(clips), int(held.sum()), len(clips), outside)


def with_lengths(data: Path, utterances: corpora.Utterances) -> pa.Table:
    """The clips that have text and codes, with the columns text_len (tokens) and code_len (frames)."""
    features, table = Features(data), utterances.table
    for kind, name in (("text_ids", TEXT), ("codes", CODES)):
        found = features.lengths(kind)
        place = pc.index_in(table.column("id"), value_set=found.column("clip").combine_chunks())
        table = table.append_column(name, found.column("frames").combine_chunks().take(place))
    return table.filter(pc.and_(table.column(TEXT).is_valid(), table.column(CODES).is_valid()))


def _recordings(clips: pa.Table) -> pa.ChunkedArray:
    names = pc.coalesce(clips.column("recording"), recordings(clips.column("id")))
    if names.null_count:
        clip = clips.column("id")[int(np.argmin(names.is_valid().to_numpy()))].as_py()
        hint = "hold out by speaker or clip, or fill the column recording"
        raise ManifestError([f"clip {clip!r} does not tell its recording; {hint}"])
    return names


def _manifest(clips: pa.Table, paired: Paired, root: Path, path: Path, latents: int) -> Manifest:
    text = pa.large_string()
    target, prompt = clips.take(pa.array(paired.target)), clips.take(pa.array(paired.prompt))
    ids = pc.binary_join_element_wise(target.column("id"), prompt.column("id"), pa.scalar("__", text))
    # Where the audio lies as seen from the manifest; outside of its folder only readers that were allowed to follow.
    prefix = _prefix(root, path.parent)
    columns = {
        "id": ids,
        "target_id": target.column("id"),
        "prompt_id": prompt.column("id"),
        "speaker": target.column("speaker"),
        "language": target.column("language"),
        "recording": target.column("recording"),
        "prompt_recording": prompt.column("recording"),
        "text": target.column("text"),
        "target_text_len": target.column(TEXT).cast(pa.int32()),
        "target_code_len": target.column(CODES).cast(pa.int32()),
        "prompt_condition_len": pa.array(np.full(len(paired), latents, np.int32)),
        "target_audio_path": _below(prefix, target.column("audio")),
        "prompt_audio_path": _below(prefix, prompt.column("audio")),
        KEY: pa.array(string_keys(ids)),
    }
    filled = {name: column for name, column in columns.items() if column.null_count < max(len(column), 1)}
    stored = {name: column.dictionary_encode() if name in FEW_VALUES else column for name, column in filled.items()}
    return Manifest(pa.table(stored).combine_chunks(), path, _RULES)


def _prefix(root: Path, folder: Path) -> str:
    return os.path.relpath(root, folder).replace(os.sep, "/")


def _below(prefix: str, audio: pa.ChunkedArray) -> pa.ChunkedArray:
    if prefix == ".":
        return audio
    text = pa.large_string()
    joined = pc.binary_join_element_wise(pa.scalar(prefix, text), audio, pa.scalar("/", text))
    return pc.if_else(pc.starts_with(audio, "/"), audio, joined)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tts_kernel.data.pair_manifests", description="Pair the clips of a corpus for training."
    )
    parser.add_argument("data", type=Path, help="folder with the features; the manifests go there")
    parser.add_argument("kind", choices=corpora.KINDS, help="layout of the corpus")
    parser.add_argument("source", type=Path, help="the corpus")
    parser.add_argument("--pairs-per-target", type=int, default=2)
    parser.add_argument("--min-text", type=int, default=1, help="text tokens of a target")
    parser.add_argument("--min-codes", type=int, default=12, help="codes of a target, 25 a second")
    parser.add_argument("--max-pairs", type=int, default=0, help="of each side; 0 for no cap")
    parser.add_argument("--hold-out", type=float, default=0.01, help="share of the clips to validate on")
    parser.add_argument("--by", choices=("clip", "recording", "speaker"), default="recording")
    parser.add_argument("--latents", type=int, default=32, help="of a prompt's condition")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args(arguments)
    try:
        imported = getattr(corpora, f"read_{given.kind}")(given.source)
        sys.stdout.write(f"{imported.account}\n")
        limits = PairLimits(given.pairs_per_target, given.min_text, given.min_codes, given.max_pairs, given.seed)
        written = write_pairs(given.data, imported.utterances, limits, given.hold_out, given.by, given.latents)
    except (corpora.CorpusError, PairError, ManifestError) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    sys.stdout.write(f"{written}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
