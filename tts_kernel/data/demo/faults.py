"""The demo corpus with every fault planted that an audit can find, and a list of where: `faults.json`.

    planted        kind -> the ids that the audit must name, in no order: pairs, clips, speakers, recordings, or
                   `file:line` for lines that cannot be read
    not_planted    kind -> why not

Kinds are those of data/audit/kinds.py. Every fault has clips of its own, so that no two blur each other.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import uuid
from collections import defaultdict
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

from tts_kernel.audio.wav import resample
from tts_kernel.data.demo import corpus
from tts_kernel.data.demo.copies import MANIFESTS, DemoCopy, Row
from tts_kernel.data.demo.sentences import SENTENCES

TIMES = 2  # clips or pairs for each fault, where one is not as good
SAMPLE_RATE = corpus.SAMPLE_RATE
NOT_PLANTED = {
    "line_too_long": "the line would be larger than the corpus",
    "line_no_rows": "a manifest without pairs has no other fault",
    "shard_damaged": "the demo's features are not packed",
    "mapping_unusable": "a mapping that cannot be read cannot be compared with the speakers",
    "mapping_low": "the mapping that misses one speaker and names a stranger covers the rest",
}

Planted = dict[str, list[str]]


def open_faulty(cache_root: Path) -> Path:
    """Folder of the full demo corpus with faults under `cache_root`, made on first use and kept."""
    clean = corpus.open_corpus(cache_root)
    digest = hashlib.sha256(clean.name.encode())
    for source in ("faults", "copies"):
        digest.update((Path(__file__).parent / f"{source}.py").read_bytes().replace(b"\r\n", b"\n"))
    folder = Path(cache_root) / f"demo-faults-{digest.hexdigest()[:12]}"
    return folder if (folder / "faults.json").is_file() else plant(clean, folder)


def plant(clean: Path, folder: Path) -> Path:
    """Copy the demo corpus `clean` to `folder` and plant the faults in the copy. It is built next to `folder` and
    renamed at the end; two processes may do this at once. Raises ValueError if the corpus has too few clips."""
    building = folder.with_name(f".{folder.name}.{uuid.uuid4().hex[:8]}")
    try:
        corpus = DemoCopy(clean, building)
        planted: Planted = defaultdict(list)
        for sow in (_recordings, _sounds, _features, _texts, _pairs, _splits, _speakers, _order, _lines):
            sow(corpus, planted)
        corpus.write()
        values = {"planted": planted, "not_planted": NOT_PLANTED}
        (building / "faults.json").write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")
        try:
            os.rename(building, folder)  # refuses a folder that is not empty
        except OSError:
            if not (folder / "faults.json").is_file():
                raise
    finally:
        shutil.rmtree(building, ignore_errors=True)
    return folder


def _korean(row: Row) -> bool:
    return row.get("language") == "ko"


def _like(row: Row, *names: str) -> Callable[[Row], bool]:
    """Whether another row has the same values of these fields."""
    return lambda other: all(other[name] == row[name] for name in names)


def _always(data: bytes) -> Callable[[bytes], bytes]:
    return lambda _: data


def _recordings(corpus: DemoCopy, planted: Planted) -> None:
    """Every clip is a recording of its own, but for one that was cut into a clip of each split."""
    for rows in corpus.rows.values():
        for row in rows:
            row["recording"] = f"recording_{row['target_id']}"
    for split in MANIFESTS:
        corpus.change(corpus.take(split), recording="recording_in_both")
    planted["leak_recording"].append("recording_in_both")


def _sounds(corpus: DemoCopy, planted: Planted) -> None:
    """Files that are gone or damaged, and sounds that no one would want."""

    def some(kind: str) -> list[str]:
        clips = [corpus.take(suits=_korean) for _ in range(TIMES)]
        planted[kind] += clips
        return clips

    for clip in some("audio_missing"):
        corpus.damage(clip, "audio")
    for clip, data in zip(some("audio_unreadable"), (b"", b"<html>not found</html>" * 99), strict=True):
        corpus.damage(clip, "audio", _always(data))
    for clip in some("audio_truncated"):
        corpus.damage(clip, "audio", lambda data: data[: int(0.6 * len(data))])
    for clip in some("audio_not_finite"):
        _write_float(corpus, clip)
    for clip in some("audio_silent"):
        corpus.sound(clip, np.zeros_like)
    for clip in some("audio_length"):
        corpus.sound(clip, lambda wav: wav[: int(0.6 * len(wav))])
    for clip in some("audio_short"):
        corpus.sound(clip, lambda wav: wav[len(wav) // 2 :][: SAMPLE_RATE // 4])
        corpus.follow_sound(clip)
        corpus.text(clip, "일")
    for clip in some("audio_long"):
        times = 1 + 31 * SAMPLE_RATE // corpus.row(clip)["target_mel_len"] // 256
        text = corpus.row(clip)["text"]
        corpus.sound(clip, partial(np.tile, reps=times))
        corpus.follow_sound(clip)
        corpus.text(clip, " ".join([text] * times))
    for clip in some("audio_rate_low"):
        corpus.sound(clip, lambda wav: _resampled(wav, 8_000), 8_000)
    for clip in some("audio_rates"):
        corpus.sound(clip, lambda wav: _resampled(wav, 44_100), 44_100)
    for clip in some("audio_channels"):
        _write_stereo(corpus, clip)
    for clip in some("audio_quiet"):
        corpus.sound(clip, lambda wav: 10 ** (-52 / 20) / np.sqrt(np.mean(wav**2)) * wav)
    for clip in some("audio_clipped"):
        corpus.sound(clip, lambda wav: np.clip(20 * wav, -1, 1))
    for clip in some("audio_silence"):
        corpus.sound(clip, lambda wav: np.concatenate([wav, np.zeros(2 * SAMPLE_RATE, wav.dtype)]))
        corpus.follow_sound(clip)
    for _ in range(TIMES):
        first, again = corpus.take(suits=_korean), corpus.take(suits=_korean)
        _copy_sound(corpus, first, again)
        planted["audio_repeated"].append(again)
    for _ in range(TIMES):
        first, again = corpus.take(suits=_korean), corpus.take(suits=_korean)
        corpus.change(again, target_audio_path=corpus.row(first)["target_audio_path"])
        planted["audio_shared"].append(again)


def _resampled(wav: np.ndarray, rate: int) -> np.ndarray:
    return np.clip(resample(wav, SAMPLE_RATE, rate), -1, 1)


def _write_float(corpus: DemoCopy, clip: str) -> None:
    import soundfile

    path = corpus.file(clip, "audio")
    samples, rate = soundfile.read(path, dtype="float32")
    samples[len(samples) // 2] = np.nan
    path.unlink()
    soundfile.write(path, samples, rate, subtype="FLOAT")


def _write_stereo(corpus: DemoCopy, clip: str) -> None:
    import soundfile

    path = corpus.file(clip, "audio")
    samples, rate = soundfile.read(path, dtype="float32")
    path.unlink()
    soundfile.write(path, np.stack([samples, samples], axis=1), rate, subtype="PCM_16")


def _copy_sound(corpus: DemoCopy, source: str, clip: str) -> None:
    corpus.damage(clip, "audio", _always(corpus.file(source, "audio").read_bytes()))
    corpus.follow_sound(clip)


def _features(corpus: DemoCopy, planted: Planted) -> None:
    """Arrays that are gone, damaged, or of another shape than the others and the manifest say."""

    def some(kind: str) -> list[str]:
        clips = [corpus.take() for _ in range(TIMES)]
        planted[kind] += clips
        return clips

    for clip in some("feature_missing"):
        corpus.damage(clip, "mel")
    for clip in some("feature_unreadable"):
        corpus.damage(clip, "semantic", lambda data: data[: len(data) // 2])
    for clip in some("feature_not_finite"):
        corpus.array(clip, "mel", lambda mel: np.where(np.arange(len(mel))[:, None] == 3, np.float32(np.nan), mel))
    for clip in some("feature_length"):
        corpus.array(clip, "mel", lambda mel: mel[:-1])
    for clip in some("feature_width"):
        corpus.array(clip, "semantic", lambda values: np.concatenate([values, values[:, :8]], axis=1))
    for clip in some("feature_ids"):
        corpus.array(clip, "codes", lambda codes: codes - codes.max() - 1)


def _texts(corpus: DemoCopy, planted: Planted) -> None:
    """Texts that are empty, dirty, foreign, repeated or another clip's."""

    def some(kind: str) -> list[str]:
        clips = [corpus.take(suits=_korean) for _ in range(TIMES)]
        planted[kind] += clips
        return clips

    for clip in some("text_empty"):
        corpus.text(clip, "...")
    for clip, mark in zip(some("text_control"), ("\x07", "\u200b"), strict=True):
        corpus.text(clip, corpus.row(clip)["text"].replace(" ", f"{mark} ", 1))
    for clip in some("text_unknown"):
        corpus.text(clip, f"{corpus.row(clip)['text']} ☃")
    for clip in some("text_ids_differ"):
        corpus.array(clip, "text_ids", lambda ids: ids[::-1].copy())
    for clip in some("text_language"):
        corpus.change(clip, language="zh")
    for clip, language in zip(some("text_no_language"), (None, ""), strict=True):
        corpus.change(clip, language=language)
    for number, clip in enumerate(some("text_tempo")):
        corpus.text(clip, " ".join(SENTENCES["ko"][number : number + 6]))
    for _ in range(TIMES):
        first = corpus.take(suits=_korean)
        first, again = corpus.in_order(first, corpus.take(suits=_like(corpus.row(first), "speaker", "style")))
        corpus.text(again, corpus.row(first)["text"])
        corpus.change(again, language=corpus.row(first)["language"])
        planted["text_repeated"].append(again)


def _pairs(corpus: DemoCopy, planted: Planted) -> None:
    """Prompts that are the target, another speaker's or not there; rows that lack a path, repeat or disagree."""

    def some(kind: str) -> list[Row]:
        rows = [corpus.row(corpus.take()) for _ in range(TIMES)]
        planted[kind] += [row["id"] for row in rows]
        return rows

    for row in some("prompt_is_target"):
        corpus.prompt(row, row["target_id"])
    for row in some("prompt_other_speaker"):
        stranger = next(other for other in corpus.rows["train"] if other["speaker"] != row["speaker"])
        corpus.prompt(row, stranger["target_id"])
    for number, row in enumerate(some("prompt_missing")):
        corpus.prompt(row, f"{row['speaker']}_nowhere_{number}")
        planted["prompt_unknown"].append(row["id"])
    row = corpus.row(corpus.take())
    del row["prompt_semantic_path"], row["prompt_semantic_len"]
    planted["prompt_missing"].append(row["id"])
    for row in some("field_missing"):
        del row["target_semantic_path"], row["target_semantic_len"]
    for _ in range(TIMES):
        row = corpus.row(corpus.take())
        corpus.rows["train"].append(row | {"id": f"{row['id']}_again"})
        planted["pair_repeated"].append(f"{row['id']}_again")
    for _ in range(TIMES):
        clip = corpus.take()
        *_, (_, last) = corpus.of(clip)
        last["style"] = "whispered"
        planted["clip_disagrees"].append(clip)


def _splits(corpus: DemoCopy, planted: Planted) -> None:
    """Clips, and sounds under another name, that are both trained and validated on."""
    for _ in range(TIMES):
        clip = corpus.take()
        row = corpus.row(clip)
        paired = {other["prompt_id"] for _, other in corpus.of(clip)} | {clip}
        same = (other for other in corpus.rows["validation"] if other["speaker"] == row["speaker"])
        prompt = next(other["target_id"] for other in same if other["target_id"] not in paired)
        leaked = row | {"id": f"{clip}__{prompt}"}
        corpus.prompt(leaked, prompt)
        corpus.rows["validation"].append(leaked)
        planted["leak_clip"].append(clip)
        planted["leak_recording"].append(row["recording"])
    for _ in range(TIMES):
        clip = corpus.take("validation", _korean)
        _copy_sound(corpus, corpus.take(suits=_korean), clip)
        planted["leak_audio"].append(clip)
    both = [{row["speaker"] for row in rows} for rows in corpus.rows.values()]
    planted["leak_speaker"] += sorted(both[0] & both[1])


def _speakers(corpus: DemoCopy, planted: Planted) -> None:
    """A mapping that misses the last speaker and has one whom nobody knows."""
    speakers = sorted({row["speaker"] for row in corpus.rows["train"]})
    mapping = {name: number for number, name in enumerate([*speakers[:-1], "nobody"])}
    (corpus.folder / "speaker_mapping.json").write_text(json.dumps(mapping) + "\n", encoding="utf-8")
    planted["mapping_unused"].append("nobody")
    planted["mapping_unmatched"].append(speakers[-1])


def _order(corpus: DemoCopy, planted: Planted) -> None:
    """Rows without a mel before the last rows, which have one."""
    waiting, stray = [corpus.take() for _ in range(TIMES)], [corpus.take() for _ in range(TIMES)]
    for clip in waiting:
        corpus.change(clip, target_mel_path=None, target_mel_len=None)
    last = {clip: place for place, clip in enumerate([*waiting, *stray], start=1)}
    corpus.rows["train"].sort(key=lambda row: last.get(row["target_id"], 0))
    for kind, clips in (("mel_missing", waiting), ("mel_unlisted", waiting), ("mel_order", stray)):
        planted[kind] += [row["id"] for clip in clips for _, row in corpus.of(clip)]


def _lines(corpus: DemoCopy, planted: Planted) -> None:
    """Lines that are no pair, and a path that climbs out of the folder. Nothing may move a row after this."""
    name, rows = MANIFESTS["train"], corpus.rows["train"]
    climbing = corpus.row(corpus.take())
    climbing["target_semantic_path"] = "../elsewhere.npy"
    planted["line_outside"].append(corpus.line_number(climbing))

    def plain(**changes: object) -> bytes:
        row = corpus.row(corpus.take()) | {"id": f"line_{len(corpus.tail)}"} | changes
        present = {key: value for key, value in row.items() if value is not None}
        return json.dumps(present, ensure_ascii=False).encode() + b"\n"

    for kind, line in (
        ("line_encoding", plain(style="caf\u00e9").replace("\u00e9".encode(), b"\xe9")),
        ("line_missing_field", plain(speaker=None)),
        ("line_wrong_type", plain(target_code_len="many")),
        ("line_length", plain(target_code_len=0)),
        ("line_duplicate_id", plain(id=rows[0]["id"])),
        ("line_not_json", plain()[:200]),  # the last line, torn
    ):
        corpus.tail.append(line)
        planted[kind].append(f"{name}:{len(rows) + len(corpus.tail)}")
    planted["feature_absent"] += ["condition", "emo_vec"]  # of the clean corpus, too
