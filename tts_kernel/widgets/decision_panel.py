"""The panel of a recovery decision: weights that move the recommendation, a dry run, start and stop.

It decides by the same rules as a headless run and writes the same decision.json. Nothing is printed into an output
widget: a cell that does so can hang a notebook executed without a browser.
"""

from __future__ import annotations

import html
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import ipywidgets as widgets

from tts_kernel.recovery.choice import ChoiceError
from tts_kernel.recovery.decide import Decision
from tts_kernel.recovery.history import read_history
from tts_kernel.recovery.phases import judge
from tts_kernel.recovery.report import ways_out
from tts_kernel.runs import Run
from tts_kernel.training.outcome import RunInterrupted
from tts_kernel.widgets.curves import draw_training
from tts_kernel.widgets.decision import draw_damage, draw_options, draw_phase_1
from tts_kernel.widgets.figures import png

EVERY = 3.0  # seconds between two looks at a training that goes on


class Panel:
    """The widgets of one decision; a notebook displays `box`."""

    def __init__(self, decision: Decision) -> None:
        self.decision, asked = decision, decision.settings
        self.working: threading.Thread | None = None
        self.training: Run | None = None  # that STOP is for
        self.stopping = False

        self.time = _slider(asked.time_weight, 2, "time matters")
        self.quality = _slider(asked.quality_weight, 2, "quality matters")
        self.risk = _slider(asked.risk_weight, 2, "certainty matters")
        self.probability = _slider(asked.success_probability, 1, "phase 1 succeeds*")
        self.way = widgets.Dropdown(options=["auto"], description="do", layout={"width": "330px"})
        self.wanted: str = asked.decision  # by the parameters, until the panel says otherwise
        self.says, self.table, self.note = widgets.HTML(), widgets.HTML(), widgets.HTML()
        wide = {"width": "100%"}
        self.course = widgets.Image(format="png", layout=wide, value=png(draw_damage(decision.damaged.diagnosis)))
        self.picture = widgets.Image(format="png", layout=wide)
        self.progress = widgets.Image(format="png", layout={**wide, "display": "none"})
        self.dry, self.start, self.stop = (
            widgets.Button(description=text, icon=icon, button_style=style)
            for text, icon, style in (("dry run", "list", ""), ("START", "play", "success"), ("STOP", "stop", "danger"))
        )
        self.stop.disabled = True
        left = widgets.VBox(
            [self.time, self.quality, self.risk, self.probability, widgets.HTML("* chance, 0 for the estimate")]
        )
        buttons = widgets.HBox([self.dry, self.start, self.stop])
        right = widgets.VBox([self.way, buttons, self.says], layout={"flex": "1 1 400px"})
        above = widgets.HBox([left, right], layout={"flex_flow": "row wrap"})
        self.box = widgets.VBox([self.course, above, self.picture, self.table, self.note, self.progress])
        for name in ("box", "time", "quality", "risk", "probability", "way", "says", "dry", "start", "stop", "note"):
            getattr(self, name).add_class(f"decision-{name}")
        for each in (self.time, self.quality, self.risk, self.probability):
            each.observe(self._weigh, "value")
        for button, react in ((self.dry, self._dry_run), (self.start, self._start), (self.stop, self._stop)):
            button.on_click(react)
        self._weigh()

    def _weigh(self, _: object = None) -> None:
        """What the sliders say, as the decision's settings."""
        try:
            self.decision = self.decision.weighed_by(
                time_weight=self.time.value,
                quality_weight=self.quality.value,
                risk_weight=self.risk.value,
                success_probability=self.probability.value,
            )
        except ChoiceError as error:
            self.says.value = f"<b>{html.escape(str(error))}</b>"
            return
        choice = self.decision.choice
        possible = [one.option.name for one in choice.weighed if not one.option.impossible]
        names = ["auto", *dict.fromkeys("continue" if name == "lower rate" else name for name in possible)]
        if tuple(names) != self.way.options:
            chosen = next((name for name in (self.wanted, self.way.value) if name in names), "auto")
            self.way.options, self.way.value = names, chosen
            self.wanted = chosen
        self.says.value = f"<b>{html.escape(choice.says)}</b>"
        self.picture.value = png(draw_options(choice))
        self.table.value = f"<pre style='font-size: 12px; line-height: 1.3'>{html.escape(ways_out(choice))}</pre>"

    def _asked(self) -> Decision:
        """The decision with what the panel says, every training in a process of its own: this kernel hears STOP."""
        settings = replace(self.decision.settings, decision=self.way.value, launch="detached")
        return replace(self.decision, settings=settings, by="panel")

    def _dry_run(self, _: object = None) -> None:
        try:
            plan = self._asked().plan()
            assert plan is not None, "the panel has no report"
            self._say("\n".join(plan.lines()))
        except (ValueError, OSError) as error:
            self._say(str(error))

    def _start(self, _: object = None) -> None:
        if self.working is not None and self.working.is_alive():
            return
        self.start.disabled, self.stop.disabled, self.stopping = True, False, False
        self.working = threading.Thread(target=self._carry_out, name=f"decision {self.decision.run.name}", daemon=True)
        self.working.start()

    def _carry_out(self) -> None:
        try:
            ending = self._asked().carry_out(self._watch)
            self._say(ending.says if ending else "nothing was carried out: dry_run is set")
        except KeyboardInterrupt as stopped:  # RunInterrupted
            self._say(f"{stopped}\nSTART goes on from there.")
        except Exception as error:  # of a thread, whose end nobody would see
            self._say(f"{type(error).__name__}: {error}")
        finally:
            self.start.disabled, self.stop.disabled = False, True

    def _stop(self, _: object = None) -> None:
        self.stopping = True  # also between two trainings
        if self.training is not None:
            self.training.stop_file.touch()
        if self.working is not None and self.working.is_alive():
            self._say("Asked to stop: it finishes its step, saves, and ends.")

    @contextmanager
    def _watch(self, run: Run, leg: str) -> Iterator[None]:
        """Draw the curve of a leg while it trains; of phase 1 with its judgement so far."""
        if self.stopping:
            raise RunInterrupted(f"stopped before {leg}")
        over = threading.Event()

        def draw() -> None:
            while not over.wait(EVERY):
                self._draw(run, leg)

        self.training = run
        self._say(f"{leg}: training {run.name} ...")
        drawing = threading.Thread(target=draw, name=f"draw {run.name}", daemon=True)
        drawing.start()
        try:
            yield
        finally:
            over.set()
            drawing.join()
            self._draw(run, leg)
            self.training = None

    def _draw(self, run: Run, leg: str) -> None:
        history = read_history(run.folder)
        diagnosis = self.decision.damaged.diagnosis
        plan = self._asked().plan()
        if leg == "phase 1" and plan is not None and len(history[diagnosis.metric].finite()):
            verdict = judge(history, plan, self.decision.settings)
            self.progress.value = png(draw_phase_1(history, diagnosis, verdict))
        else:
            self.progress.value = png(draw_training(history))
        self.progress.layout.display = "block"

    def _say(self, text: str) -> None:
        self.note.value = f"<pre style='font-size: 12px'>{html.escape(text)}</pre>"


def _slider(value: float, most: float, text: str) -> widgets.FloatSlider:
    layout, style = {"width": "330px"}, {"description_width": "130px"}
    most = max(most, value)
    return widgets.FloatSlider(value=value, min=0, max=most, step=0.05, description=text, layout=layout, style=style)
