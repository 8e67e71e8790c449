"""Every layout gives back what it can hold, and any layout can be made from any other."""

from __future__ import annotations

import itertools
import random
from pathlib import Path

import numpy as np
import pytest
import soundfile

from tests.data.corpora.clips import HOLDS, KINDS, random_text, read, reasons, rows, samples_of, small_corpus, write

PAIRS = list(itertools.permutations(KINDS, 2))


def options_of(kind: str, tmp_path: Path, name: str) -> dict[str, object]:
    return {"audio_folder": tmp_path / name} if kind == "cosyvoice2" else {}


@pytest.mark.parametrize("kind", KINDS)
def test_a_corpus_reads_as_it_was_written(tmp_path: Path, kind: str) -> None:
    corpus = small_corpus(tmp_path / "source")
    account = write(kind, corpus, tmp_path / kind)
    assert (account.read, account.kept) == (len(corpus), len(corpus))
    imported = read(kind, tmp_path / kind, **options_of(kind, tmp_path, "audio"))
    assert reasons(imported) == {}
    assert rows(imported.utterances, HOLDS[kind]) == rows(corpus, HOLDS[kind])
    assert samples_of(imported.utterances) == samples_of(corpus)


@pytest.mark.parametrize(("first", "second"), PAIRS, ids=[f"{first}-{second}" for first, second in PAIRS])
def test_a_corpus_passes_through_two_layouts(tmp_path: Path, first: str, second: str) -> None:
    corpus = small_corpus(tmp_path / "source")
    write(first, corpus, tmp_path / first)
    between = read(first, tmp_path / first, **options_of(first, tmp_path, "one"), speaker="somebody").utterances
    write(second, between, tmp_path / second)
    last = read(second, tmp_path / second, **options_of(second, tmp_path, "two"))
    assert reasons(last) == {}
    assert rows(last.utterances, HOLDS[second]) == rows(between, HOLDS[second])
    assert rows(last.utterances, HOLDS[first] & HOLDS[second]) == rows(corpus, HOLDS[first] & HOLDS[second])
    assert samples_of(last.utterances) == samples_of(corpus)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", range(3))
def test_texts_of_any_characters_survive(tmp_path: Path, kind: str, seed: int) -> None:
    chance = random.Random(seed)
    corpus = small_corpus(tmp_path / "source", [random_text(chance) for _ in range(20)])
    write(kind, corpus, tmp_path / kind)
    imported = read(kind, tmp_path / kind, **options_of(kind, tmp_path, "audio"))
    assert rows(imported.utterances, {"id", "text"}) == rows(corpus, {"id", "text"})


@pytest.mark.parametrize("kind", KINDS)
def test_an_empty_corpus_is_written_and_read(tmp_path: Path, kind: str) -> None:
    corpus = small_corpus(tmp_path / "source")
    write(kind, corpus.take(np.array([], dtype=np.int64)), tmp_path / kind)
    assert len(read(kind, tmp_path / kind, **options_of(kind, tmp_path, "audio")).utterances) == 0


@pytest.mark.parametrize("kind", ["emilia", "melotts", "kaldi"])
def test_a_corpus_may_refer_to_audio_elsewhere(tmp_path: Path, kind: str) -> None:
    corpus = small_corpus(tmp_path / "source")
    write(kind, corpus, tmp_path / kind, audio="refer")
    assert reasons(read(kind, tmp_path / kind)) == {"outside": len(corpus)}
    imported = read(kind, tmp_path / kind, allow_outside=True)
    assert rows(imported.utterances, HOLDS[kind]) == rows(corpus, HOLDS[kind])
    assert samples_of(imported.utterances) == samples_of(corpus)


def test_mp3_becomes_wav_where_the_layout_is_wav(tmp_path: Path) -> None:
    (tmp_path / "mp3").mkdir()
    soundfile.write(tmp_path / "mp3" / "a.mp3", 0.1 * np.sin(np.arange(24000) / 20), 24000, format="MP3")
    (tmp_path / "mp3" / "a.txt").write_text("hello", encoding="utf-8")
    write("ljspeech", read("folder", tmp_path / "mp3").utterances, tmp_path / "lj")
    info = soundfile.info(str(tmp_path / "lj" / "wavs" / "a.wav"))
    assert (info.format, info.subtype, info.samplerate) == ("WAV", "PCM_16", 24000)
    assert abs(info.frames - 24000) < 2500  # the encoder pads
