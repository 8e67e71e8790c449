from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from matplotlib.image import imread

from tests.audited import add_audio, audit_of, change_rows
from tts_kernel.data.audit import AuditSettings
from tts_kernel.runs import Run
from tts_kernel.widgets import audit as drawn

RunMaker = Callable[..., Run]


@pytest.fixture
def make_run(tmp_path: Path) -> RunMaker:
    """`make_run(folder, **settings)`: the run folder of an audit of it."""

    def make(folder: Path, **changes: Any) -> Run:
        run = Run(tmp_path / "run")
        run.folder.mkdir()
        run.save_settings(AuditSettings(data=str(folder), **changes))
        audit_of(folder, **changes).save(run)
        return run

    return make


def ink(path: Path) -> float:
    """Share of a picture that is not white."""
    return float((imread(path)[..., :3].min(axis=-1) < 0.9).mean())


@pytest.fixture
def faulty(tiny_corpus: Path) -> Path:
    add_audio(tiny_corpus)
    change_rows(tiny_corpus, lambda rows: rows[0].update(prompt_id=rows[0]["target_id"]))
    (tiny_corpus / "audio" / "sp0_1.wav").unlink()
    return tiny_corpus


def test_every_subject_has_a_figure(faulty: Path, make_run: RunMaker) -> None:
    paths = drawn.figures(make_run(faulty))
    names = ("findings", "corpus", "sound", "text")
    assert [path.name for path in paths] == [f"audit_{name}.png" for name in names]
    assert min(map(ink, paths)) > 0.01


def test_sound_is_not_drawn_where_none_was_opened(faulty: Path, make_run: RunMaker) -> None:
    names = [path.stem for path in drawn.figures(make_run(faulty, check_audio=False))]
    assert names == ["audit_findings", "audit_corpus", "audit_text"]


def test_an_empty_corpus_is_drawn_too(tiny_corpus: Path, make_run: RunMaker) -> None:
    for name in ("gpt_pairs_train.jsonl", "gpt_pairs_val.jsonl"):
        (tiny_corpus / name).write_text("", encoding="utf-8")
    assert all(path.is_file() for path in drawn.figures(make_run(tiny_corpus)))


def test_a_corpus_whose_sounds_are_all_gone_is_drawn_too(faulty: Path, make_run: RunMaker) -> None:
    for path in (faulty / "audio").iterdir():
        path.unlink()
    assert "audit_sound" in [path.stem for path in drawn.figures(make_run(faulty))]


def test_names_that_the_font_does_not_have_are_escaped(faulty: Path, make_run: RunMaker) -> None:
    for name in ("gpt_pairs_train.jsonl", "gpt_pairs_val.jsonl"):
        change_rows(faulty, lambda rows: [row.update(language="한국어", speaker="화자") for row in rows], name)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # matplotlib warns of every glyph that is missing
        drawn.figures(make_run(faulty))


def test_no_findings_are_said_in_words(make_run: RunMaker, tiny_corpus: Path) -> None:
    run = make_run(tiny_corpus, validation_manifest="")
    assert drawn.Audited.of(run).findings == []
    assert ink(drawn.figures(run)[0]) > 0.0005
