from __future__ import annotations

from pathlib import Path

import pytest

from tests.audited import add_audio, change_rows
from tests.data.pipeline.written import WORDS, pipeline
from tts_kernel.data.pipeline import read_lengths, read_list
from tts_kernel.data.pipeline.batches import PipelineDataset
from tts_kernel.data.voices import demo
from tts_kernel.text.tokenizer import train_tokenizer


@pytest.fixture
def made(tiny_corpus: Path) -> Path:
    """The demo of the tiny corpus, whose voice is sp1."""
    add_audio(tiny_corpus)
    for name in ("gpt_pairs_train.jsonl", "gpt_pairs_val.jsonl"):
        change_rows(tiny_corpus, lambda rows: [row.update(text="say it") for row in rows], name)
    train_tokenizer(["say it again"], tiny_corpus / "bpe.model", 14)
    folder = tiny_corpus.parent / "made"
    demo.make_demo(tiny_corpus, tiny_corpus.parent / "building", folder, voice="sp1", codes=8)
    (tiny_corpus.parent / "building").rename(folder)
    return folder


def test_one_voice_is_held_apart_and_every_clip_is_in_one_shard(made: Path) -> None:
    sizes = {}
    for group in ("others/train", "others/cv", "voice/train", "voice/cv"):
        lengths = read_lengths(made / group, WORDS)
        sizes[group] = len(lengths)
        assert set(lengths.speaker_names) == ({"sp1"} if group.startswith("voice") else {"sp0", "sp2"})
        assert not lengths.trimmed.any()
    assert sizes == {"others/train": 8, "others/cv": 4, "voice/train": 4, "voice/cv": 2}
    every = [read_lengths(made / name, WORDS).utterances.tolist() for name in ("data.list", "cv.list")]
    assert [len(names) for names in every] == [12, 6]
    assert len({*every[0], *every[1]}) == 18


def test_its_lists_name_the_folder_that_it_ends_in(made: Path) -> None:
    assert all(str(path).startswith(f"{made}/") for path in read_list(made / "data.list"))
    assert "building" not in (made / "voice" / "train" / "data.list").read_text(encoding="utf-8")


def test_its_rows_are_read_as_batches_need_them(made: Path) -> None:
    spoken = PipelineDataset(pipeline(), read_lengths(made / "data.list", WORDS), WORDS).spoken(0)
    assert len(spoken.mel) == 2 * len(spoken.speech_tokens)
    assert spoken.speech_tokens.max() < 8
    assert (made / "bpe.model").is_file()
    assert (made / "stand_ins.npz").is_file()
