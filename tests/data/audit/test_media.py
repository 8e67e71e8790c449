from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

from tests.audited import RATE, add_audio, audit_of, change_rows, named
from tests.conftest import CorpusMaker
from tests.tiny import read_rows
from tts_kernel.data.features import Features


@pytest.fixture
def sounding(tiny_corpus: Path) -> Path:
    add_audio(tiny_corpus)
    return tiny_corpus


LOOSE = {"min_duration": 0.01}  # the tiny corpus has clips of a quarter of a second


def rewrite(folder: Path, clip: str, change: Callable[[np.ndarray], np.ndarray], rate: int = RATE) -> None:
    path = folder / "audio" / f"{clip}.wav"
    soundfile.write(path, change(soundfile.read(path)[0]), rate)


def test_sounds_like_their_features_have_nothing_to_name(sounding: Path) -> None:
    report = audit_of(sounding, **LOOSE)
    assert named(report) == {}
    assert report.summary["sounds"]["sample_rate"] == {"22050": 18}
    assert report.summary["sample"]["audio_files"] == 18


@pytest.mark.parametrize(
    ("kind", "changes", "settings"),
    [
        ("audio_quiet", lambda wav: 0.001 * wav, {}),
        ("audio_clipped", lambda wav: np.clip(20 * wav, -1, 1), {}),
        ("audio_silent", np.zeros_like, {}),
        ("audio_silence", lambda wav: np.where(np.arange(len(wav)) < 0.6 * len(wav), 0, wav), {"max_silence": 0.1}),
        ("audio_channels", lambda wav: np.stack([wav, wav], axis=1), {}),
        ("audio_length", lambda wav: np.concatenate([wav, wav[: RATE // 2 - len(wav)], wav, wav]), {}),
    ],
)
def test_sounds_outside_a_limit_are_named(sounding: Path, kind: str, changes: Callable, settings: dict) -> None:
    rewrite(sounding, "sp1_2", changes)
    assert named(audit_of(sounding, **LOOSE | settings)) == {kind: ["sp1_2"]}


@pytest.mark.parametrize(
    ("kind", "limit"), [("audio_short", {"min_duration": 9.0}), ("audio_long", {"max_duration": 0.02})]
)
def test_durations_are_held_against_both_limits(sounding: Path, kind: str, limit: dict[str, float]) -> None:
    report = audit_of(sounding, **LOOSE | limit)
    (finding,) = (item for item in report.findings if item.kind == kind)
    assert (finding.count, finding.total) == (18, 18)


@pytest.mark.parametrize(("rate", "kind"), [(8_000, "audio_rate_low"), (44_100, "audio_rates")])
def test_other_sample_rates_are_named(sounding: Path, rate: int, kind: str) -> None:
    rewrite(sounding, "sp0_0", lambda wav: np.random.default_rng(0).uniform(-0.3, 0.3, len(wav) * rate // RATE), rate)
    assert named(audit_of(sounding, **LOOSE)) == {kind: ["sp0_0"]}


def test_a_copy_within_a_split_is_repeated_and_across_splits_a_leak(sounding: Path) -> None:
    shutil.copy(sounding / "audio" / "sp0_0.wav", sounding / "audio" / "sp0_5.wav")  # clips 4 and 5 are validated on
    assert named(audit_of(sounding, **LOOSE))["leak_audio"] == ["sp0_5"]
    shutil.copy(sounding / "audio" / "sp1_0.wav", sounding / "audio" / "sp1_1.wav")
    found = named(audit_of(sounding, **LOOSE))
    order = [row["target_id"] for row in read_rows(sounding / "gpt_pairs_train.jsonl")]
    assert found["audio_repeated"] == [max(("sp1_0", "sp1_1"), key=order.index)]
    assert found["leak_audio"] == ["sp0_5"]


def test_lost_files_are_the_targets_own_or_the_prompts(sounding: Path) -> None:
    (sounding / "audio" / "sp0_0.wav").unlink()
    (sounding / "condition" / "sp0_1.npy").unlink()  # conditions are of prompts alone
    (sounding / "codes" / "sp0_2.npy").unlink()
    rows = [row for name in ("train", "val") for row in read_rows(sounding / f"gpt_pairs_{name}.jsonl")]
    assert named(audit_of(sounding, **LOOSE)) == {
        "audio_missing": ["sp0_0"],
        "prompt_missing": sorted(row["id"] for row in rows if row["prompt_id"] == "sp0_1"),
        "feature_missing": ["sp0_2"],
    }


def test_a_kind_of_which_nothing_exists_is_worth_knowing_and_no_error(tiny_corpus: Path) -> None:
    shutil.rmtree(tiny_corpus / "condition")
    report = audit_of(tiny_corpus)
    assert named(report) == {"feature_absent": ["condition"]}
    assert report.passes("warning")


@pytest.mark.parametrize(
    ("kind", "name", "change"),
    [
        ("feature_length", "mel", lambda array: array[:-2]),
        ("feature_width", "semantic", lambda array: array[:, :7]),
        ("feature_not_finite", "mel", lambda array: np.where(array > 1, np.inf, array)),
        ("feature_ids", "codes", lambda array: array - 99),
        ("feature_unreadable", "emo_vec", lambda array: np.array(["text"])),
        ("feature_length", "codes", lambda array: array[:0]),
    ],
)
def test_arrays_that_are_not_what_they_should_be_are_named(
    tiny_corpus: Path, kind: str, name: str, change: Callable[[np.ndarray], np.ndarray]
) -> None:
    path = tiny_corpus / name / "sp2_1.npy"
    np.save(path, change(np.load(path)))
    assert named(audit_of(tiny_corpus)) == {kind: ["sp2_1"]}


def test_an_array_that_would_run_code_is_unreadable(tiny_corpus: Path) -> None:
    np.save(tiny_corpus / "mel" / "sp2_1.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    assert named(audit_of(tiny_corpus)) == {"feature_unreadable": ["sp2_1"]}


def test_paths_that_leave_the_folder_are_not_followed(tiny_corpus: Path) -> None:
    np.save(tiny_corpus.parent / "elsewhere.npy", np.zeros((3, 3)))

    def change(rows: list[dict]) -> None:
        rows[0]["target_semantic_path"] = "../elsewhere.npy"

    change_rows(tiny_corpus, change)
    assert list(named(audit_of(tiny_corpus))) == ["line_outside"]
    assert "feature_width" in named(audit_of(tiny_corpus, allow_outside_paths=True))


def test_codes_give_hours_where_there_are_no_mels_and_sounds_their_rate(sounding: Path) -> None:
    plain = audit_of(sounding, **LOOSE).summary
    for name in ("gpt_pairs_train.jsonl", "gpt_pairs_val.jsonl"):
        change_rows(sounding, lambda rows: [row.pop("target_mel_len") for row in rows], name)
        change_rows(sounding, lambda rows: [row.pop("target_mel_path") for row in rows], name)
        change_rows(
            sounding, lambda rows: [row.update(target_code_len=2 * row["target_code_len"]) for row in rows], name
        )
    heard = audit_of(sounding, check_features=False, **LOOSE).summary
    assert heard["hours"] == pytest.approx(plain["hours"], rel=0.05)
    assert "a second, as in 18 sounds" in heard["hours_from"]
    unheard = audit_of(sounding, check_features=False, check_audio=False).summary
    assert unheard["hours"] == pytest.approx(2 * plain["hours"], rel=0.05)


def test_a_duration_field_is_believed(tiny_corpus: Path) -> None:
    for name in ("gpt_pairs_train.jsonl", "gpt_pairs_val.jsonl"):
        change_rows(tiny_corpus, lambda rows: [row.update(duration=36.0) for row in rows], name)
    summary = audit_of(tiny_corpus, check_features=False).summary
    assert (summary["hours"], summary["hours_from"]) == (0.18, "the field duration")


def test_packed_features_are_audited_like_files(make_tiny_corpus: CorpusMaker) -> None:
    from tts_kernel.data.features import ShardWriter

    folder = make_tiny_corpus()
    path = folder / "mel" / "sp2_1.npy"
    np.save(path, np.load(path)[:-2])
    clips = sorted(path.stem for path in (folder / "mel").iterdir())
    with ShardWriter(folder / "features", "all") as shard:
        for kind in ("mel", "codes", "semantic", "text_ids", "condition", "emo_vec"):
            for clip in clips:
                shard.add(clip, kind, np.load(folder / kind / f"{clip}.npy"))
            shutil.rmtree(folder / kind)
    assert Features(folder).kinds
    assert named(audit_of(folder)) == {"feature_length": ["sp2_1"]}

    tar = folder / "features" / "all.tar"
    tar.write_bytes(tar.read_bytes()[: tar.stat().st_size // 2])
    found = named(audit_of(folder))
    assert {"shard_damaged", "feature_unreadable"} & set(found)
