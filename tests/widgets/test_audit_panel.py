from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import soundfile

from tests.audited import RATE, add_audio, audit_of, change_rows
from tts_kernel.data.audit import AuditSettings
from tts_kernel.runs import Run
from tts_kernel.widgets.audit_panel import Panel, spectrogram

PNG = b"\x89PNG"


@pytest.fixture
def folder(tiny_corpus: Path) -> Path:
    """A prompt that is its target (an error), a silent clip (an error), a clipped one (a warning), hostile names."""
    add_audio(tiny_corpus)

    def change(rows: list[dict]) -> None:
        rows[0]["prompt_id"] = rows[0]["target_id"]
        for row in rows:
            row["text"] = "<b>bold</b> & 안녕하세요"

    change_rows(tiny_corpus, change)
    for clip, samples in (("sp0_0", np.zeros(RATE)), ("sp1_0", np.sign(np.sin(np.arange(RATE) / 9)))):
        soundfile.write(tiny_corpus / "audio" / f"{clip}.wav", samples, RATE)
    return tiny_corpus


@pytest.fixture
def panel(folder: Path, tmp_path: Path) -> Panel:
    run = Run(tmp_path / "run")
    run.folder.mkdir()
    run.save_settings(AuditSettings(data=str(folder)))
    audit_of(folder, max_duration=60.0, min_duration=0.01).save(run)
    return Panel(run)


def kinds(panel: Panel) -> list[str]:
    return [kind for _, kind in panel.finding.options]


def test_findings_are_filtered_by_severity_and_area(panel: Panel) -> None:
    everything = kinds(panel)
    assert {"prompt_is_target", "audio_silent", "audio_clipped", "leak_speaker"} <= set(everything)
    panel.severity.value = "warning"
    assert "audio_clipped" in kinds(panel)
    assert "audio_silent" not in kinds(panel)
    panel.severity.value, panel.area.value = "all", "pairs"
    assert kinds(panel) == ["prompt_is_target"]
    panel.severity.value = "info"
    assert kinds(panel) == []
    assert panel.advice.value == "Nothing of this kind was found."
    assert (bytes(panel.picture.value), bytes(panel.sound.value)) == (b"", b"")
    panel.severity.value, panel.area.value = "all", "all"
    assert kinds(panel) == everything


def test_the_chosen_clip_is_seen_and_heard(panel: Panel) -> None:
    panel.finding.value = "audio_clipped"
    assert panel.case.options[0][0].startswith("sp1_0")
    assert bytes(panel.picture.value).startswith(PNG)
    samples, rate = soundfile.read(io.BytesIO(panel.sound.value))
    assert (rate, len(samples)) == (RATE, RATE)
    assert "1.00 s" in panel.facts.value
    assert "Take a source that is not overdriven" in panel.advice.value


def test_the_search_narrows_the_clips(panel: Panel) -> None:
    panel.finding.value = "text_repeated"
    every = len(panel.case.options)
    assert every > 3
    panel.search.value = "SP1"
    assert 0 < len(panel.case.options) < every
    assert all(text.startswith("sp1") for text, _ in panel.case.options)
    assert "listed" in panel.advice.value
    panel.search.value = "no such clip"
    assert panel.case.options == ()
    assert panel.facts.value == ""


def test_text_from_the_data_is_never_markup(panel: Panel) -> None:
    panel.finding.value = "prompt_is_target"
    assert "&lt;b&gt;bold&lt;/b&gt; &amp; 안녕하세요" in panel.facts.value
    assert "<b>bold" not in panel.facts.value


def test_columns_are_kept_apart_by_spaces_that_browsers_keep(panel: Panel) -> None:
    assert all(" " not in text and "\u00a0" in text for text, _ in panel.finding.options)


def test_a_sound_that_is_gone_or_out_of_bounds_is_said_in_words(panel: Panel, folder: Path) -> None:
    (folder / "audio" / "sp1_0.wav").unlink()
    panel.finding.value = "audio_clipped"
    assert "no such file" in panel.facts.value
    assert panel.sound.value == b""


def test_samples_that_are_not_finite_are_played_as_silence(panel: Panel, folder: Path) -> None:
    broken = np.full(RATE, np.nan, np.float32)
    soundfile.write(folder / "audio" / "sp1_0.wav", broken, RATE, subtype="FLOAT")
    panel.finding.value = "audio_clipped"
    assert np.abs(soundfile.read(io.BytesIO(panel.sound.value))[0]).max() == 0.0


@pytest.mark.parametrize("samples", [10, 1024, 3_000_000])
def test_spectrograms_of_any_length_are_drawn(samples: int) -> None:
    assert spectrogram(np.zeros(samples, np.float32), 48_000).startswith(PNG)


def test_each_choice_draws_once(panel: Panel, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[int] = []
    monkeypatch.setattr("tts_kernel.widgets.audit_panel.spectrogram", lambda samples, rate: drawn.append(rate) or PNG)
    panel.finding.value = "audio_clipped"
    assert len(drawn) == 1
    panel.severity.value = "warning"
    assert len(drawn) == 2
