"""Small corpora for the tests of data/corpora: a few clips of silence with texts that are hard to write."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import soundfile

from tts_kernel.data import corpora
from tts_kernel.data.corpora import Account, Imported, Utterances

KINDS = ("emilia", "ljspeech", "melotts", "cosyvoice2", "kaldi", "folder")

# What a layout can hold of a clip that has everything.
HOLDS = {
    "emilia": {"id", "text", "speaker", "language", "duration", "sample_rate", "recording"},
    "ljspeech": {"id", "text"},
    "melotts": {"id", "text", "speaker", "language"},
    "cosyvoice2": {"id", "text", "speaker"},
    "kaldi": {"id", "text", "speaker", "language", "duration"},
    "folder": {"id", "text", "speaker"},
}

AWKWARD = [
    '"quoted" from end to end"',
    '"one quotation mark',
    "it's, well; a: comma",
    "한국어 문장입니다.",
    "中文，全角标点。",
    "かな と カナ ー",
    "emoji 🙂 and flags 🇰🇷",
    "tab\tinside and  two blanks",
    r"back\slash \n \u0041 and \"",
    "e\u0301 combining, \u200bzero width, \u2028 separator",
    "#comment? <html> {braces} %s $(echo x) `x`",
    "1,5",
    "null",
    "-1",
    "x",
]


def random_text(chance: random.Random) -> str:
    """Any characters but line ends, '|' and outer blanks, which most layouts cannot hold."""
    alphabet = "aB3 \"'\\,;:/\t한글漢字かなé\u0301🙂{}[]<>$%#\u3000\u00a0\u2028"
    return "x" + "".join(chance.choices(alphabet, k=chance.randint(0, 30))) + "."


def write_wav(path: Path, samples: int = 1600, rate: int = 16000, subtype: str = "PCM_16") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    wav = np.random.default_rng(samples).uniform(-0.5, 0.5, samples)
    soundfile.write(path, wav, rate, subtype=subtype)
    return path


def small_corpus(root: Path, texts: list[str] = AWKWARD) -> Utterances:
    """One clip per text, of different lengths, in an order that is not sorted, two thirds with a known speaker."""
    # 7 has no factor in common with the numbers of texts in use
    names = [f"clip-{7 * number % len(texts):03d}é" for number in range(len(texts))]
    for number, name in enumerate(names):
        write_wav(root / "audio" / f"{name}.wav", 800 + number)
    return Utterances.of(
        root,
        id=names,
        audio=[f"audio/{name}.wav" for name in names],
        text=texts,
        speaker=[f"스피커_{number % 3}" for number in range(len(texts))],
        language=[("ko", "en")[number % 2] for number in range(len(texts))],
        recording=[f"video {number // 4}" for number in range(len(texts))],
    ).with_durations()


def write(kind: str, utterances: Utterances, folder: Path, **options: object) -> Account:
    return getattr(corpora, f"write_{kind}")(utterances, folder, **options)


def read(kind: str, path: Path, **options: object) -> Imported:
    """Import, and check what is always so of an account."""
    imported = getattr(corpora, f"read_{kind}")(path, **options)
    account = imported.account
    assert account.kept == len(imported.utterances)
    assert account.read == account.kept + sum(drop.count for drop in account.drops.values()), str(account)
    assert all(0 < len(drop.examples) <= drop.count for drop in account.drops.values()), str(account)
    return imported


def reasons(imported: Imported) -> dict[str, int]:
    return {reason: drop.count for reason, drop in imported.account.drops.items()}


def rows(utterances: Utterances, names: set[str]) -> dict[str, tuple[object, ...]]:
    """The clips by id, with the values of these columns in alphabetical order."""
    table = utterances.table.select(sorted(names))
    return {row["id"]: tuple(row.values()) for row in table.to_pylist()}


def samples_of(utterances: Utterances) -> dict[str, list[int]]:
    """The clips by id, with their samples."""
    ids = utterances.strings("id").to_pylist()
    paths = utterances.paths()
    return {name: soundfile.read(path, dtype="int16")[0].tolist() for name, path in zip(ids, paths, strict=True)}
