"""Lists and recordings as users bring them: what is used, what is left out with its reason, what stops everything."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

from tests.tiny_spoken import make_encoder, make_lists, tone
from tts_kernel.data.corpora.table import CorpusError
from tts_kernel.data.spoken import Clips, SpokenStore, read_clips
from tts_kernel.text.bge_m3 import BGEM3
from tts_kernel.text.symbols import SYMBOLS


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> BGEM3:
    return BGEM3(make_encoder(tmp_path_factory.mktemp("encoder") / "bge-m3"))


@pytest.fixture
def store(tmp_path: Path, encoder: BGEM3) -> SpokenStore:
    return SpokenStore(tmp_path / "store", encoder, SYMBOLS)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make_lists(tmp_path / "data")


def read(folder: Path, store: SpokenStore, *lines: str, segment_frames: int = 8) -> Clips:
    """With these lines as the whole list, or the list as it is."""
    path = folder / "train_list.txt"
    if lines:
        path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return read_clips(path, store, segment_frames=segment_frames, progress=False)


def test_a_list_in_the_guides_format_becomes_clips(folder: Path, store: SpokenStore) -> None:
    clips = read(folder, store)
    assert len(clips) == 8
    assert sorted(set(clips.speakers)) == ["S0", "S1"]
    assert clips.dropped == {}
    assert (clips.frames == [44_100 // 512, 48_510 // 512, 52_920 // 512] * 2 + [44_100 // 512, 48_510 // 512]).all()
    assert (clips.tokens % 2 == 1).all()  # a blank before, between and after


def test_a_language_that_is_left_out_is_detected(folder: Path, store: SpokenStore) -> None:
    given = read(folder, store, "wavs/00.wav|오늘 날씨가 좋네요.|S0|KR")
    detected = read(folder, store, "wavs/00.wav|오늘 날씨가 좋네요.|S0")
    one, other = (store.sentence(clips.sentences[0]).phones for clips in (given, detected))
    np.testing.assert_array_equal(one, other)


def test_every_bad_line_is_named_in_one_error(folder: Path, store: SpokenStore) -> None:
    with pytest.raises(CorpusError) as caught:
        read(
            folder,
            store,
            "wavs/00.wav|only two fields",
            "wavs/01.wav|a pipe | in the text|S0|EN",
            "wavs/02.wav|Hello there.|S0|XX",
            "wavs/03.wav|...|S0|EN",
            "wavs/04.wav|😀|S0|EN",
            "wavs/05.wav||S0|EN",
            "wavs/06.wav|Hello.||EN",
            "wavs/missing.wav|Hello.|S0|EN",
            "wavs/07.wav|Hello.|EN",
            "wavs/01.wav|one | pipe and no language|S0",
            "wavs/07.wav|Hello.|S0|EN|one too many",
            "wavs/07.wav",
        )
    told = str(caught.value)
    for expected in (
        "train_list.txt:1: 2 fields",
        "train_list.txt:2: 5 fields",
        "'XX'",
        "wavs/03.wav: '...': nothing to say",
        "wavs/04.wav",
        "wavs/05.wav",
        "wavs/06.wav: no speaker",
        "wavs/missing.wav does not exist",
        "wavs/07.wav: 'EN' stands where the speaker does",
        "'S0'",
        "train_list.txt:11: 5 fields",
        "train_list.txt:12: 1 field,",
    ):
        assert expected in told


def test_recordings_of_no_use_are_left_out_and_counted(folder: Path, store: SpokenStore) -> None:
    soundfile.write(folder / "wavs" / "00.wav", tone(0.05, 44_100), 44_100)
    soundfile.write(folder / "wavs" / "01.wav", np.zeros(44_100), 44_100)
    soundfile.write(folder / "wavs" / "02.wav", tone(0.2, 44_100), 44_100)
    clips = read(folder, store)
    assert len(clips) == 5
    assert clips.dropped == {
        "shorter than a segment of 0.09 s": 1,
        "silence only": 1,
        "more tokens than frames": 1,
    }
    assert "1 clips left out: silence only" in str(clips)


def test_a_list_of_which_nothing_is_left_is_refused(folder: Path, store: SpokenStore) -> None:
    with pytest.raises(CorpusError, match=r"no clip is left of 8 .*lower segment_size"):
        read(folder, store, segment_frames=1000)


def test_other_rates_and_channels_are_brought_to_one_and_counted(folder: Path, store: SpokenStore) -> None:
    soundfile.write(folder / "wavs" / "00.wav", tone(1.0, 22_050), 22_050)
    soundfile.write(folder / "wavs" / "01.wav", tone(1.0, 48_000, channels=2), 48_000)
    clips = read(folder, store)
    assert (clips.resampled, clips.mixed_down) == (2, 1)
    assert clips.frames[:2].tolist() == [86, 86]


def test_a_file_that_is_no_recording_is_named(folder: Path, store: SpokenStore) -> None:
    (folder / "wavs" / "03.wav").write_bytes(b"no sound at all")
    with pytest.raises(CorpusError, match=r"03\.wav: not readable as audio"):
        read(folder, store)
