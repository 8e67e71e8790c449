"""The panel of an audit: filter findings, list their clips, see the spectrogram and hear the sound of one.

It reads the run folder and the data folder only. Nothing is printed into an output widget: a cell that does so can
hang a notebook executed without a browser.
"""

from __future__ import annotations

import html
import io
from collections.abc import Callable
from typing import Any

import ipywidgets as widgets
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from matplotlib.figure import Figure

from tts_kernel.data.files import UnsafePathError, inside
from tts_kernel.runs import Run
from tts_kernel.widgets.audit import Audited

ALL = "all"
LONGEST = 60.0  # seconds of a sound that are shown and played
N_FFT = 1024
COLUMNS = (("id", 34), ("speaker", 12), ("language", 8), ("detail", 70))  # of a case, with their widths in letters
STYLE = """<style>
.audit-finding select, .audit-case select {font-family: var(--jp-code-font-family, monospace); font-size: 12px}
.audit-facts-table td {vertical-align: top; word-break: break-word; line-height: 1.35}
.audit-facts-table .audit-name {color: #777; padding-right: 1em; white-space: nowrap}
</style>"""
NOTHING = np.zeros(0, np.float32), 0, ""
MEASURED = {  # column of clips.parquet -> name, and how a value is written
    "duration": ("duration", "{:.2f} s"),
    "sample_rate": ("sample rate", "{:,} Hz"),
    "channels": ("channels", "{}"),
    "level": ("level", "{:.1f} dB"),
    "peak": ("peak", "{:.2f}"),
    "clipping": ("clipped", "{:.2%}"),
    "lead": ("silence before", "{:.2f} s"),
    "tail": ("silence after", "{:.2f} s"),
}


class Panel:
    """The widgets of one finished audit; a notebook displays `box`."""

    def __init__(self, run: Run) -> None:
        """Raises FileNotFoundError if the run has no audit.json."""
        self.audited = Audited.of(run)
        found = self.audited.findings
        counts = {name: sum(item["severity"] == name for item in found) for name in ("error", "warning", "info")}
        severities = [(f"all ({len(found)})", ALL), *((f"{name} ({number})", name) for name, number in counts.items())]
        areas = [("everywhere", ALL), *((name, name) for name in dict.fromkeys(item["area"] for item in found))]
        wide, tall = {"width": "auto"}, {"width": "auto", "height": "180px"}
        self.severity = widgets.ToggleButtons(options=severities, style={"button_width": "auto"})
        self.area = widgets.Dropdown(options=areas, layout={"width": "130px"})
        self.finding = widgets.Select(layout=tall)
        self.advice = widgets.HTML()
        self.search = widgets.Text(placeholder="id, speaker, language, text or detail contains ...", layout=wide)
        self.case = widgets.Select(layout=tall)
        self.facts = widgets.HTML(layout={"flex": "1 1 300px"})
        self.picture = widgets.Image(format="png", layout={"width": "100%"})
        self.sound = widgets.Audio(format="wav", autoplay=False, loop=False, controls=True, layout=wide)
        heard = widgets.VBox([self.picture, self.sound], layout={"flex": "2 1 460px"})
        below = widgets.HBox([self.facts, heard], layout={"flex_flow": "row wrap"})
        above = widgets.HBox([self.severity, self.area])
        self.box = widgets.VBox(
            [widgets.HTML(STYLE), above, self.finding, self.advice, self.search, self.case, below], layout=wide
        )
        for name in ("box", "severity", "area", "finding", "advice", "search", "case", "facts", "picture", "sound"):
            getattr(self, name).add_class(f"audit-{name}")
        for widget, react in (
            (self.severity, self._list_findings),
            (self.area, self._list_findings),
            (self.finding, self._list_cases),
            (self.search, self._list_cases),
            (self.case, self._show_case),
        ):
            widget.observe(react, "value")
        self._list_findings()

    def _list_findings(self, _: object = None) -> None:
        chosen = [
            item
            for item in self.audited.findings
            if self.severity.value in (ALL, item["severity"]) and self.area.value in (ALL, item["area"])
        ]
        rows = (
            (_cells((item["severity"], 8), (f"{item['count']:,}", -9), (item["unit"], 10), (item["title"], 80)), item)
            for item in chosen
        )
        self._fill(self.finding, [(text, item["kind"]) for text, item in rows], self._list_cases)

    def _list_cases(self, _: object = None) -> None:
        item = next((item for item in self.audited.findings if item["kind"] == self.finding.value), None)
        if item is None:
            self.advice.value = "Nothing of this kind was found."
            self._fill(self.case, [], self._show_case)
            return
        numbers = pc.indices_nonzero(pc.equal(self.audited.cases.column("kind"), item["kind"])).to_pylist()
        rows = zip(numbers, self.audited.cases.take(pa.array(numbers, pa.int64())).to_pylist(), strict=True)
        wanted = self.search.value.lower()
        listed = [(number, row) for number, row in rows if wanted in " ".join(map(str, row.values())).lower()]
        of = f" of {item['of']:,}" if item["of"] else ""
        sample = " in the sample" if item["sampled"] else ""
        shown = f", {len(listed):,} listed" if len(listed) != item["count"] else ""
        self.advice.value = (
            f"<b>{html.escape(item['title'])}</b>: {item['count']:,}{of} {item['unit']}{sample}{shown}. "
            f"<i>{html.escape(item['advice'])}</i>"
        )
        options = [(_cells(*((row[name] or "", width) for name, width in COLUMNS)), number) for number, row in listed]
        self._fill(self.case, options, self._show_case)

    def _fill(self, select: widgets.Select, options: list[tuple[str, Any]], react: Callable[..., None]) -> None:
        """New options, the first one chosen, and one reaction to both."""
        select.unobserve(react, "value")
        select.options = options
        select.value = options[0][1] if options else None
        select.observe(react, "value")
        react()

    def _show_case(self, _: object = None) -> None:
        """What is known of the case that is chosen, its spectrogram and its sound."""
        if self.case.value is None:
            self.facts.value, self.picture.value, self.sound.value = "", b"", b""
            return
        row = self.audited.cases.slice(self.case.value, 1).to_pylist()[0]
        told = {name: row[name] for name in ("id", "clip", "where", "detail", "speaker", "language", "text", "audio")}
        told["clip"] = row["clip"] if row["clip"] != row["id"] else ""
        samples, rate, reason = hear(self.audited, row["audio"]) if row["audio"] else NOTHING
        told |= _measured(self.audited, row["clip"]) | {"not played": reason}
        cells = (
            f"<tr><td class='audit-name'>{name}</td><td>{html.escape(str(value))}</td></tr>"
            for name, value in told.items()
            if value not in (None, "")
        )
        self.facts.value = f"<table class='audit-facts-table'>{''.join(cells)}</table>"
        self.picture.value = spectrogram(samples, rate) if len(samples) else b""
        self.sound.value = _as_wav(samples, rate) if len(samples) else b""


def _cells(*cells: tuple[str, int]) -> str:
    """One line of a list in columns of so many letters, to the right where the width is negative. A browser would join
    plain spaces."""
    cut = ((text if len(text) <= abs(width) else text[: abs(width) - 1] + "…", width) for text, width in cells)
    line = "  ".join(text.ljust(width) if width > 0 else text.rjust(-width) for text, width in cut)
    return line.rstrip().replace(" ", "\u00a0")


def _measured(audited: Audited, clip: str) -> dict[str, str]:
    """What the audit measured of a clip's sound, where it opened it."""
    if not audited.clips.num_rows or not clip:
        return {}
    row = audited.clips.column("clip").index(clip).as_py()
    if row < 0:
        return {}
    values: dict[str, Any] = audited.clips.slice(row, 1).to_pylist()[0]
    known = {name: values[name] for name in MEASURED if values[name] is not None and np.isfinite(values[name])}
    if not known.get("sample_rate"):
        return {}
    return {MEASURED[name][0]: MEASURED[name][1].format(value) for name, value in known.items()}


def hear(audited: Audited, path: str) -> tuple[np.ndarray, int, str]:
    """(samples,) mono, its rate, and why there is nothing to hear, for a path as the manifest has it. Samples that are
    not finite are silent here."""
    import soundfile

    try:
        place = inside(audited.root, path)
    except UnsafePathError as error:
        if not audited.settings["allow_outside_paths"]:
            return np.zeros(0, np.float32), 0, str(error)
        place = audited.root / path
    try:
        with soundfile.SoundFile(place) as file:
            rate = file.samplerate
            samples = file.read(int(LONGEST * rate), dtype="float32", always_2d=True).mean(axis=1)
    except (soundfile.SoundFileError, RuntimeError, OSError) as error:
        return np.zeros(0, np.float32), 0, str(error) if place.is_file() else f"{path}: no such file"
    return np.nan_to_num(samples, posinf=1.0, neginf=-1.0), rate, ""


def spectrogram(samples: np.ndarray, rate: int) -> bytes:
    """(samples,) -> PNG of the waveform over the spectrogram, 80 dB deep."""
    figure = Figure(figsize=(7.2, 3.2), layout="constrained", dpi=80)
    wave, image = figure.subplots(2, 1, sharex=True, height_ratios=(1, 2.4))
    seconds = len(samples) / rate
    step = max(1, len(samples) // 4000)  # a few thousand points draw the same picture
    whole = samples[: len(samples) // step * step].reshape(-1, step)
    wave.fill_between(
        np.arange(len(whole)) * step / rate, whole.min(axis=1), whole.max(axis=1), color="#0072B2", step="mid"
    )
    wave.set(ylim=(-1, 1), yticks=[-1, 0, 1], xlim=(0, seconds))
    wave.spines[["top", "right", "bottom"]].set_visible(False)
    wave.tick_params(bottom=False, labelsize=8)
    image.imshow(
        _decibels(samples),
        origin="lower",
        aspect="auto",
        cmap="magma",
        extent=(0, seconds, 0, rate / 2000),
        vmin=-80,
        vmax=0,
    )
    image.set_xlabel("seconds", fontsize=9)
    image.set_ylabel("kHz", fontsize=9)
    image.tick_params(labelsize=8)
    picture = io.BytesIO()
    figure.savefig(picture, format="png")
    return picture.getvalue()


def _decibels(samples: np.ndarray) -> np.ndarray:
    """(samples,) -> (N_FFT // 2 + 1, frames), 0 at the loudest."""
    padded = np.pad(samples, (0, max(0, N_FFT - len(samples))))
    hop = max(N_FFT // 4, len(padded) // 1200)  # not more columns than the picture has
    frames = np.lib.stride_tricks.sliding_window_view(padded, N_FFT)[::hop]
    power = np.abs(np.fft.rfft(frames * np.hanning(N_FFT), axis=1)) ** 2
    return (10 * np.log10(power / max(power.max(), 1e-12) + 1e-10)).T


def _as_wav(samples: np.ndarray, rate: int) -> bytes:
    """16-bit wav, which every browser plays."""
    import soundfile

    out = io.BytesIO()
    soundfile.write(out, np.clip(samples, -1, 1), rate, format="WAV", subtype="PCM_16")
    return out.getvalue()
