"""`make bench-data` at a tiny size: every subject runs, and the page says what was measured, never what it took."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks.data import __main__ as bench
from benchmarks.data import measure as measuring
from benchmarks.data.generate import make_clips, make_file, write_manifest
from benchmarks.data.measure import ROOT, MeasureError, compare, measure
from benchmarks.data.report import Section, render
from benchmarks.data.result import NOT_FULL, Result, Sizes, below, faster, more
from tests.conftest import CorpusMaker
from tests.tiny_voice import LATENTS, make_base
from tts_kernel.data.features import Features
from tts_kernel.data.ordering import order_mel_first
from tts_kernel.recipes.indextts2.demo import CHECKPOINT

TINY = ["--rows", "4000", "--mels", "50", "--clips", "120", "--sample", "4000", "--repeats", "1"]
SIZES = Sizes(Path("scratch"), rows=2000, mels=50, clips=120)


@pytest.fixture
def in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Functions are called here instead of in a process of their own: one import of torch instead of twenty."""

    def called(function: Any, arguments: dict[str, Any]) -> dict[str, Any]:
        monkeypatch.setenv("BENCHMARK_STARTED", "0")
        plain = json.loads(json.dumps(arguments, default=str))
        return {"peak_mb": measuring.peak_mb(), **function(**plain)}

    monkeypatch.setattr(measuring, "_one_run", called)


def tables(page: str) -> dict[str, list[list[str]]]:
    """Title -> the rows of its table."""
    found = {}
    for part in page.split("\n## ")[1:]:
        rows = [line.strip("| ").split(" | ") for line in part.splitlines() if line.startswith("|")]
        found[part.splitlines()[0]] = rows[2:]
    return found


@pytest.mark.usefixtures("in_this_process")
def test_every_subject_measures_every_target_and_judges_none_of_the_guides_size(tmp_path: Path) -> None:
    output = tmp_path / "docs" / "data.md"
    subjects = [name for name in bench.NAMES if name != "halves"]  # trains the demo's models
    assert bench.main([*TINY, "--scratch", str(tmp_path), "--output", str(output), "--only", *subjects]) == 0
    page = output.read_text(encoding="utf-8")
    found = tables(page)
    assert list(found) == [subject.TITLE for subject in bench.SUBJECTS if not subject.__name__.endswith("halves")]
    assert all(rows for rows in found.values())
    targets = [line for line in page.splitlines() if re.search(r"\| [<>]=? ", line)]
    assert len(targets) >= 15
    assert all(line.rstrip(" |").endswith(("met", "**short**", NOT_FULL)) for line in targets)
    assert sum(NOT_FULL in line for line in targets) >= 8
    for fact in ("| date |", "| machine |", "| versions | Python", "| sizes | 4,000 rows (the guide has 5,483,856)"):
        assert fact in page
    assert list(tmp_path.glob("bench-data-*")) == []


@pytest.mark.usefixtures("in_this_process")
def test_float16_is_judged_by_losses_of_the_same_run_on_both_stores(
    tmp_path: Path, make_tiny_corpus: CorpusMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    demo = make_tiny_corpus(latents=LATENTS)
    order_mel_first(demo)
    checkpoint = make_base(demo / "base")
    (demo / CHECKPOINT).parent.mkdir()
    checkpoint.rename(demo / CHECKPOINT)
    monkeypatch.setattr("tts_kernel.recipes.indextts2.demo.open_demo", lambda train: demo)
    results = bench.halves.run(Sizes(tmp_path, repeats=1))
    losses = [(float(result.plain), float(result.ours)) for result in results if "loss" in result.what]
    assert len(losses) == 3
    assert all(abs(half / single - 1) < 0.01 for single, half in losses[:2])
    for name, dtype in (("single", "float32"), ("half", "float16")):
        [mel] = Features(tmp_path / "halves" / name).read(["mel/sp0_0.npy"])
        assert mel.dtype == dtype
    disk = results[0]
    assert float(disk.ratio.removesuffix("x")) > 1.1


@pytest.mark.usefixtures("in_this_process")
def test_a_subject_that_fails_is_a_line_of_the_page_and_the_others_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(sizes: Sizes) -> list[Result]:
        raise MeasureError("benchmarks.data.pairs.ours: out of ink")

    monkeypatch.setattr(bench.pairs, "run", broken)
    output = tmp_path / "data.md"
    chosen = ["--only", "pairs", "speakers"]
    assert bench.main([*TINY, *chosen, "--scratch", str(tmp_path), "--output", str(output)]) == 1
    found = tables(output.read_text(encoding="utf-8"))
    assert "out of ink" in found["Pairs"][0][0]
    assert "**failed**" in found["Pairs"][0][-1]
    assert len(found["Speaker mapping"]) > 1


def test_what_falls_short_is_said_at_the_top() -> None:
    results = [
        faster("import", plain=10.0, ours=2.0, at_least=8),
        below("memory", 100.0, 400, "MB"),
        more("clips", plain=10.0, ours=30.0, at_least=2.5),
        below("open", 1.0, 2, judged=False),
    ]
    page = render([Section("Manifest", "How.", results)], SIZES, (0.0, 0.0))
    head, table = page.split("## Manifest")
    assert "**2 of 3 targets met.** Short:\n\n- Manifest, import: 5.0x (>= 8x)" in head
    assert "- not judged: Manifest, open: smaller size" in head
    assert "| import | 10 s | 2 s | 5.0x | >= 8x | **short** |" in table
    assert "| clips | 10/s | 30/s | 3.0x | >= 2.5x | met |" in table


def test_a_function_is_measured_in_a_process_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / "pairs.jsonl"
    found = measure(make_file, 1, path=path, rows=60)
    assert found["clips"] == 30
    assert found["peak_mb"] > 10
    assert len(path.read_text(encoding="utf-8").splitlines()) == 60
    with pytest.raises(MeasureError, match="make_file: ValueError: 4 rows, expected at least 6"):
        measure(make_file, 1, path=path, rows=4)


def test_the_command_of_the_makefile_writes_the_page(tmp_path: Path) -> None:
    output = tmp_path / "data.md"
    command = [sys.executable, "-m", "benchmarks.data", *TINY, "--only", "pairs"]
    done = subprocess.run(
        [*command, "--scratch", str(tmp_path), "--output", str(output)], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert list(tables(output.read_text(encoding="utf-8"))) == ["Pairs"]
    assert re.search(r"bench-data:.*\n\t@\$\(BIN\)/python -m benchmarks\.data ", (ROOT / "Makefile").read_text())


def test_functions_take_turns_and_their_medians_count(monkeypatch: pytest.MonkeyPatch) -> None:
    values = iter([1.0, 10.0, 5.0, 50.0, 3.0, 30.0])
    monkeypatch.setattr(measuring, "_one_run", lambda function, arguments: {"seconds": next(values)})
    assert compare([print, print], 3) == [{"seconds": 3.0}, {"seconds": 30.0}]


def test_a_generated_manifest_has_the_guides_fields_and_pairs(tmp_path: Path) -> None:
    write_manifest(tmp_path / "pairs.jsonl", 1001)
    rows = [json.loads(line) for line in (tmp_path / "pairs.jsonl").read_text(encoding="utf-8").splitlines()]
    assert len(rows) == len({row["id"] for row in rows}) == 1001
    for row in rows:
        target, prompt = row["target_id"], row["prompt_id"]
        assert target != prompt
        assert row["id"] == f"{target}__{prompt}"
        assert target.startswith(row["speaker"])
        assert prompt.startswith(row["speaker"])
        assert row["target_codes_path"] == f"codes/{target}.npy"
        assert row["prompt_audio_path"] == f"{prompt[:9].replace('_', '-')[:3]}{prompt[3:9]}/{prompt}.mp3"
        assert 75 <= row["target_code_len"] <= 750
    assert rows == sorted(rows, key=lambda row: row["target_id"])


def test_generated_clips_are_as_long_as_emilias() -> None:
    clips = make_clips(20_000)
    assert 8.0 < clips.seconds.mean() < 9.5
    assert clips.seconds.min() >= 3.0
    assert clips.seconds.max() <= 30.0
    assert clips.count.min() >= 3
