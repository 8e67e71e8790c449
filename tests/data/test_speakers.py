from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from tts_kernel.data.manifest import read_manifest
from tts_kernel.data.speakers import (
    SpeakerMapError,
    check_coverage,
    count_clips,
    count_rows,
    coverage,
    map_speakers,
    read_mapping,
    write_mapping,
)


def test_speakers_are_numbered_from_the_most_clips_down_and_equal_counts_by_name() -> None:
    assert map_speakers({"c": 5, "b": 9, "a": 5, "d": 7}, min_clips=1) == {"b": 0, "d": 1, "a": 2, "c": 3}


def test_the_order_of_the_counts_does_not_matter() -> None:
    clips = {"c": 5, "b": 9, "a": 5, "d": 7}
    assert map_speakers(clips, min_clips=1) == map_speakers(dict(reversed(clips.items())), min_clips=1)


def test_only_the_top_speakers_with_enough_clips_are_mapped() -> None:
    clips = {"a": 60, "b": 50, "c": 49, "d": 70}
    assert map_speakers(clips) == {"d": 0, "a": 1, "b": 2}
    assert map_speakers(clips, top_k=2) == {"d": 0, "a": 1}
    assert map_speakers(clips, min_clips=100) == {}


def test_a_clip_in_several_pairs_counts_once(tiny_corpus: Path) -> None:
    manifest = read_manifest(tiny_corpus / "gpt_pairs_train.jsonl")
    assert count_rows(manifest) == {"sp0": 8, "sp1": 8, "sp2": 8}
    assert count_clips(manifest) == {"sp0": 4, "sp1": 4, "sp2": 4}


def test_rows_are_counted_among_the_chosen_ones(tiny_corpus: Path) -> None:
    manifest = read_manifest(tiny_corpus / "gpt_pairs_train.jsonl")
    speakers = np.array(manifest.strings("speaker").to_pylist())
    chosen = np.flatnonzero(speakers != "sp1")[1:]
    assert count_rows(manifest, chosen) == Counter(speakers[chosen].tolist())


def test_a_mapping_survives_writing_and_reading(tmp_path: Path) -> None:
    mapping = {"화자": 1, "b": 0}
    write_mapping(mapping, tmp_path / "map.json")
    assert read_mapping(tmp_path / "map.json") == mapping


@pytest.mark.parametrize(
    ("content", "found"),
    [
        ("{", "not JSON: "),
        ("", "not JSON: "),
        ('["a", "b"]', "expected a JSON object {name: id} with at least one speaker"),
        ("{}", "expected a JSON object {name: id} with at least one speaker"),
        ('{"a": 0, "b": 2}', "ids are [0, 2], expected 0 to 1"),
        ('{"a": 1, "b": 2}', "ids are [1, 2], expected 0 to 1"),
        ('{"a": 0, "b": 0}', "ids are [0, 0], expected 0 to 1"),
        ('{"a": -1, "b": 0}', "ids are [-1, 0], expected 0 to 1"),
        ('{"a": "0", "b": "1"}', "ids are ['0', '1'], expected 0 to 1"),
        ('{"a": 0.0, "b": 1.0}', "ids are [0.0, 1.0], expected 0 to 1"),
        ('{"a": false, "b": true}', "ids are [False, True], expected 0 to 1"),
        ('{"a": {"id": 0}}', "ids are [{'id': 0}], expected 0 to 0"),
        ('{"a": null}', "ids are [None], expected 0 to 0"),
    ],
)
def test_a_malformed_mapping_is_refused_with_what_was_found(tmp_path: Path, content: str, found: str) -> None:
    path = tmp_path / "map.json"
    path.write_text(content)
    with pytest.raises(SpeakerMapError) as caught:
        read_mapping(path)
    assert str(caught.value).startswith(f"{path}: {found}")


def test_more_than_ten_ids_are_a_mapping(tmp_path: Path) -> None:
    mapping = {f"s{number}": number for number in range(12)}
    (tmp_path / "map.json").write_text(json.dumps(mapping))
    assert read_mapping(tmp_path / "map.json") == mapping


def test_a_mapping_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(SpeakerMapError, match=r"map\.json: not found; delete the parameter"):
        read_mapping(tmp_path / "map.json")


def test_coverage_counts_rows_and_speakers_and_names_the_rest() -> None:
    found = coverage({"a": 0, "b": 1, "gone": 2}, {"a": 2, "b": 1, "x": 1, "y": 2})
    assert (found.rows, found.mapped_rows, found.speakers, found.mapped_speakers) == (6, 3, 4, 2)
    assert found.share == 0.5
    assert found.unmatched == ["y", "x"], "the most frequent first"
    assert found.unused == ["gone"]


def test_a_mapping_that_matches_no_row_is_refused_however_little_is_asked() -> None:
    for minimum in (0.0, 0.5):
        with pytest.raises(SpeakerMapError) as caught:
            check_coverage(coverage({"spk_a": 0, "spk_b": 1}, {"a": 1, "b": 2}), minimum)
        text = str(caught.value)
        assert "0 of 3 rows (0.0%) have a mapped speaker, 0 of 2 speakers" in text
        assert "first unmatched: b, a; mapped but not in the manifest: spk_a, spk_b" in text


def test_a_mapping_that_matches_two_rows_in_five_is_refused_with_the_numbers() -> None:
    found = coverage({"a": 0, "d": 1}, {"a": 1, "d": 1, "b": 2, "c": 1})
    with pytest.raises(SpeakerMapError) as caught:
        check_coverage(found, 0.5)
    text = str(caught.value)
    assert "2 of 5 rows (40.0%) have a mapped speaker, 2 of 4 speakers; first unmatched: b, c. Expected" in text
    assert "Expected at least 2 speakers and 50% of the rows" in text
    assert "lower min_speaker_coverage" in text
    check_coverage(found, 0.4)


def test_one_speaker_alone_is_no_class_to_tell_apart() -> None:
    with pytest.raises(SpeakerMapError, match="at least 2 speakers"):
        check_coverage(coverage({"a": 0}, {"a": 2}), 0.0)


def test_an_empty_manifest_covers_nothing() -> None:
    with pytest.raises(SpeakerMapError, match=r"0 of 0 rows \(0\.0%\)"):
        check_coverage(coverage({"a": 0}, {}), 0.0)
