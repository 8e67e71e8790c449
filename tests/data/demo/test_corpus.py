from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tts_kernel.audio import wav as audio
from tts_kernel.audio.spectrogram import indextts2_mel
from tts_kernel.audio.units import KMeansUnits, acoustic_features
from tts_kernel.data.demo import corpus as demo
from tts_kernel.data.demo.corpus import DemoCorpusError, make_corpus
from tts_kernel.data.demo.sentences import SENTENCES, SPEAKERS, STYLES, choose_sentences, plan
from tts_kernel.data.features import Features
from tts_kernel.data.features.shards import read_index
from tts_kernel.data.files import inside
from tts_kernel.text.tokenizer import TextTokenizer

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("espeakng_loader") is None, reason="the demo corpus needs the extra `demo`"
)

TINY: dict[str, int] = {"speakers": 2, "sentences": 6, "clips_per_style": 6, "codebook_size": 32, "vocab_size": 96}


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_corpus(tmp_path_factory.mktemp("demo") / "corpus", **TINY)


def pairs(corpus: Path, split: str) -> list[dict[str, Any]]:
    lines = (corpus / f"gpt_pairs_{split}.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    assert rows, f"{split}: nothing to check"
    return rows


def both(corpus: Path) -> list[dict[str, Any]]:
    return pairs(corpus, "train") + pairs(corpus, "val")


def test_stored_lengths_are_the_arrays(corpus: Path) -> None:
    kinds = {"target_mel": "mel", "target_codes": "code", "target_semantic": "semantic", "target_text_ids": "text"}
    features = Features(corpus)
    for row in both(corpus):
        for array, length in zip(features.read([row[f"{path}_path"] for path in kinds]), kinds.values(), strict=True):
            assert len(array) == row[f"target_{length}_len"] > 0
        assert len(features.read([row["prompt_semantic_path"]])[0]) == row["prompt_semantic_len"]
        assert row["prompt_condition_len"] == 8


def test_arrays_are_what_the_format_says(corpus: Path) -> None:
    tokenizer, units, mel = TextTokenizer(corpus / "bpe.model"), KMeansUnits.load(corpus / "units.npz"), indextts2_mel()
    for row in pairs(corpus, "val")[:6]:
        wav, rate = audio.read(corpus / row["target_audio_path"])
        assert rate == 22_050
        assert 0.8 < len(wav) / rate < 6.0
        assert 0.05 < np.abs(wav).max() < 0.99
        [stored] = Features(corpus).read([row["target_mel_path"]])
        assert stored.dtype == np.float32
        assert stored.shape == (row["target_mel_len"], 80)
        np.testing.assert_allclose(stored, mel.of_clip(wav), atol=1e-4)
        semantic, codes = np.load(corpus / row["target_semantic_path"]), np.load(corpus / row["target_codes_path"])
        np.testing.assert_allclose(semantic, units.features(wav, rate), atol=1e-4)
        assert semantic.dtype == np.float32
        assert codes.dtype == np.int64
        np.testing.assert_array_equal(codes, units.encode(semantic))
        ids = np.load(corpus / row["target_text_ids_path"])
        assert ids.dtype == np.int64
        assert ids.min() > 2
        assert ids.tolist() == tokenizer.encode(row["text"])


def test_prompt_is_another_clip_of_the_speaker_and_neutral_where_there_is_one(corpus: Path) -> None:
    for split in ("train", "val"):
        rows = pairs(corpus, split)
        targets = {row["target_id"]: row for row in rows}
        assert len({row["id"] for row in rows}) == len(rows)
        for row in rows:
            prompt = targets[row["prompt_id"]]  # KeyError: a prompt from the other split
            assert prompt["target_id"] != row["target_id"]
            assert prompt["speaker"] == row["speaker"]
            own = [other for other in targets.values() if other["speaker"] == row["speaker"]]
            neutral = {other["target_id"] for other in own if other["style"] == "neutral"}
            assert prompt["style"] == "neutral" or neutral <= {row["target_id"]}


def test_held_out_clips_are_never_trained_on(corpus: Path) -> None:
    trained, held_out = (
        {row[name] for row in pairs(corpus, split) for name in ("target_id", "prompt_id")} for split in ("train", "val")
    )
    assert not trained & held_out


def test_every_path_stays_inside_and_feature_paths_name_their_clip(corpus: Path) -> None:
    for row in both(corpus):
        for key, value in row.items():
            if key.endswith("_path"):
                assert inside(corpus, value).is_relative_to(corpus)
        assert row["prompt_condition_path"] == f"condition/{row['prompt_id']}.npy"
        assert row["prompt_emo_vec_path"] == f"emo_vec/{row['target_id']}.npy"


def test_summary_counts_what_is_there(corpus: Path) -> None:
    summary = json.loads((corpus / "corpus.json").read_text(encoding="utf-8"))
    mels = Features(corpus).lengths("mel")
    assert sum(summary["clips"].values()) == len(list(corpus.glob("audio/*/*.wav"))) == len(mels)
    assert summary["pairs"] == {split: len(pairs(corpus, split)) for split in ("train", "val")}
    assert 0 < summary["hours"]["val"] < summary["hours"]["train"]


def content(folder: Path) -> dict[str, bytes]:
    """Every file, without what a feature folder keeps for itself; a shard's index without the time it was made."""
    found = {}
    for path in folder.rglob("*"):
        name = path.relative_to(folder)
        if path.is_file() and not any(part.startswith(".") for part in name.parts):
            data = str(read_index(path)[0].to_pylist()).encode() if path.suffix == ".arrow" else path.read_bytes()
            found[str(name)] = data
    return found


def test_two_builds_are_the_same_bytes(corpus: Path, tmp_path: Path) -> None:
    again = make_corpus(tmp_path / "again", **TINY, processes=1)
    first, second = content(corpus), content(again)
    assert first.keys() == second.keys()
    assert "features/mel-000001.tar" in first
    assert not [name for name in first if first[name] != second[name]]
    assert [path.name for path in tmp_path.iterdir()] == ["again"], "the building folder stayed"


def test_two_builders_at_once_share_one_corpus(tmp_path: Path) -> None:
    small = TINY | {"speakers": 1, "sentences": 4, "clips_per_style": 3, "codebook_size": 8, "vocab_size": 64}
    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(lambda _: make_corpus(tmp_path / "corpus", **small, processes=1), range(2)))
    assert found == [tmp_path / "corpus"] * 2
    assert [path.name for path in tmp_path.iterdir()] == ["corpus"]
    with pytest.raises(DemoCorpusError, match="not this corpus"):
        make_corpus(tmp_path / "corpus", **(small | {"seed": 2}))


def test_styles_differ_on_korean_too(corpus: Path) -> None:
    pitch, seconds, level = ({style: [] for style in STYLES} for _ in range(3))  # type: ignore[var-annotated]
    for row in both(corpus):
        if row["language"] == "ko" and row["speaker"] == SPEAKERS[0]:
            wav, rate = audio.read(corpus / row["target_audio_path"])
            features = acoustic_features(wav, rate)
            pitch[row["style"]].append(np.median(features[:, 18]))
            seconds[row["style"]].append(len(wav) / rate)
            level[row["style"]].append(np.sqrt((wav**2).mean()))
    means = [{style: np.mean(values) for style, values in kind.items()} for kind in (pitch, seconds, level)]
    assert means[0]["sad"] + 0.2 < means[0]["neutral"] < means[0]["happy"] - 0.2  # natural log: over 20 %
    assert means[1]["sad"] > 1.2 * means[1]["neutral"] > 1.2 * means[1]["happy"]
    assert means[2]["angry"] > 1.2 * means[2]["happy"] > 1.2 * means[2]["neutral"] > 1.2 * means[2]["sad"]


def test_full_plan_is_balanced_and_leaves_enough_held_out() -> None:
    clips = plan(seed=1, speakers=8, sentences=48, clips_per_style=20)
    held_out = [clip for clip in clips if clip.held_out]
    assert len(clips) == len({clip.id for clip in clips}) == 640
    assert len(held_out) == 224
    for members, size in ((clips, 20), (held_out, 7)):
        assert set(Counter((clip.speaker, clip.style) for clip in members).values()) == {size}
    assert len(choose_sentences(48)) == len({text for _, text in choose_sentences(48)}) == 48
    assert sum(language == "ko" for language, _ in choose_sentences(48)) == 24
    assert {clip.language for clip in held_out} == set(SENTENCES)
    assert {clip.text for clip in clips if not clip.held_out} == {clip.text for clip in clips}


def test_another_seed_chooses_other_clips() -> None:
    sizes = {"speakers": 2, "sentences": 48, "clips_per_style": 20}
    assert plan(seed=1, **sizes) == plan(seed=1, **sizes) != plan(seed=2, **sizes)


def test_the_fingerprint_follows_the_arguments() -> None:
    assert demo.fingerprint() == demo.fingerprint(seed=1) != demo.fingerprint(seed=2)


def test_sizes_out_of_range_are_reported_together(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"(?s)speakers is 9.*pairs_per_target is 0"):
        make_corpus(tmp_path / "corpus", speakers=9, pairs_per_target=0)


def test_without_espeak_the_error_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    for make in (lambda: make_corpus(tmp_path / "corpus", **TINY), lambda: demo.open_corpus(tmp_path)):
        with pytest.raises(DemoCorpusError, match=r'pip install "tts_kernel\[demo\]"'):
            make()


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"variant": "f9"}, "no voice variant 'f9'"),
        ({"language": "ja", "text": "漢字を よみます"}, "write Japanese in kana"),
    ],
)
def test_what_espeak_would_misread_is_refused(tmp_path: Path, change: dict[str, str], reason: str) -> None:
    job = {"path": "a.wav", "text": "네", "language": "ko", "variant": "f1", "rate": 165, "pitch": 50, "range": 50}
    (tmp_path / "jobs.jsonl").write_text(json.dumps(job | {"level_db": -24.0} | change), encoding="utf-8")
    command = [sys.executable, "-m", "tts_kernel.data.demo.speech", str(tmp_path / "jobs.jsonl"), str(tmp_path)]
    program = subprocess.run(command, capture_output=True, text=True, check=False, cwd=Path(__file__).parents[3])
    assert program.returncode == 1
    assert reason in program.stderr
    assert not (tmp_path / "a.wav").exists()


def test_espeak_never_enters_the_main_process(corpus: Path) -> None:
    assert "tts_kernel.data.demo.speech" not in sys.modules
    assert "espeakng_loader" not in sys.modules
