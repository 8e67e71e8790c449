from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.recovery.guide_case import make_case
from tts_kernel.recovery.choice import Wishes, choose
from tts_kernel.recovery.course import read_course
from tts_kernel.recovery.diagnosis import Diagnosis, diagnose
from tts_kernel.recovery.facts import Interval, RunFacts
from tts_kernel.recovery.history import History, Series
from tts_kernel.recovery.options import Option, make_options
from tts_kernel.recovery.survivors import Survivor, state_at


@pytest.fixture(scope="module")
def guide(tmp_path_factory: pytest.TempPathFactory) -> Diagnosis:
    return diagnose(make_case(tmp_path_factory.mktemp("guide") / "case"))


def by_name(diagnosis: Diagnosis, **changes: object) -> dict[str, Option]:
    return {one.name: one for one in make_options(diagnosis, **changes)}  # type: ignore[arg-type]


def made(values: np.ndarray, saved: tuple[int, ...] = (), rates: np.ndarray | None = None) -> Diagnosis:
    """A run of 1,000 steps and more, logged every 10th, with checkpoints at `saved` and a tenth of its plan left."""
    steps = 10 * np.arange(1, len(values) + 1)
    series = Series(steps, values, np.full(len(values), np.nan))
    metrics = {"train/loss": series}
    if rates is not None:
        metrics["train/lr"] = Series(steps, rates, series.times)
    course = read_course(series)
    survivors = tuple(
        Survivor(Path(f"{step}.pth"), "step", step, *state_at(course, step, True), course.at(step)[0], 0.0, True, 1)
        for step in saved
    )
    facts = RunFacts(learning_rate=1e-3, batch_size=8, horizon=int(steps[-1] / 0.9))
    return Diagnosis(History(Path("run"), metrics), "train/loss", course, facts, survivors, (), alive=False)


def falling(points: int = 100) -> np.ndarray:
    return 1 + 3 * np.exp(-np.arange(points) / 20) + 0.02 * np.random.default_rng(0).standard_normal(points)


def exploded() -> np.ndarray:
    return np.concatenate([falling(), 5 + 0.1 * np.random.default_rng(1).standard_normal(40)])


def test_the_guides_case_has_the_guides_settings(guide: Diagnosis) -> None:
    options = by_name(guide)
    first, second = options["phased"].legs
    (restart,) = options["restart"].legs
    assert options["phased"].start is not None
    assert options["phased"].start.step == 351_000
    rate = guide.facts.learning_rate
    assert rate is not None
    assert [rate * leg.rate for leg in (first, second, restart)] == pytest.approx([1e-6, 2e-6, 5e-6])
    assert [leg.warmup for leg in (first, second, restart)] == [3000, 5000, 10_000]
    assert [leg.grad_clip for leg in (first, second, restart)] == [0.5, 0.5, 0.5]
    assert first.steps == 5000
    assert second.steps == pytest.approx(5_483_856 / 4 - 356_000, abs=1)  # to the end of one epoch
    assert (restart.batch * 4, restart.pairs) == (8, pytest.approx(5_483_856, rel=1e-5))


def test_the_guides_case_has_the_guides_hours_chances_and_losses(guide: Diagnosis) -> None:
    choice = choose(make_options(guide), Wishes(), float(guide.course.trend[-1]), 1.0)
    phased, restart = choice.named("phased"), choice.named("restart")
    assert phased.option.success.value == 0.45
    assert restart.option.success.value == 0.85
    assert phased.hours_success == pytest.approx(45, abs=3)
    assert phased.hours_failure == pytest.approx(62, abs=9)  # 1-2 and 50-70
    assert restart.hours == pytest.approx(60, abs=10)
    assert phased.option.loss is not None
    assert (phased.option.loss.low, phased.option.loss.high) == pytest.approx((1.5, 1.8), abs=0.06)
    assert restart.option.loss is not None
    assert restart.option.loss.low == pytest.approx(0.9, abs=0.02)


def test_the_guides_recommendation_flips_from_phased_to_restart_with_the_weights(guide: Diagnosis) -> None:
    def recommended(**weights: float) -> str:
        best = guide.course.best
        assert best is not None
        choice = choose(make_options(guide), Wishes(**weights), float(guide.course.trend[-1]), best.value)
        return choice.recommended.option.name

    assert recommended(time=1, quality=0, risk=0) == "phased"
    assert recommended() == "phased"  # the compromise: phase 1, judged, and a restart at once where it fails
    assert recommended(time=0, quality=1, risk=0) == "restart"
    assert recommended(time=0.2, quality=1, risk=0.5) == "restart"


def test_another_programs_run_cannot_be_resumed_but_trained_on_from(guide: Diagnosis) -> None:
    options = by_name(guide, foreign=True)
    assert options["continue"].impossible
    assert options["lower rate"].impossible
    assert not options["phased"].impossible


def test_a_healthy_run_is_advised_to_go_on() -> None:
    diagnosis = made(falling(), saved=(500, 1000))
    options = by_name(diagnosis)
    assert options["continue"].success.value == 0.9
    best = diagnosis.course.best
    assert best is not None
    choice = choose(tuple(options.values()), Wishes(), float(diagnosis.course.trend[-1]), best.value)
    assert choice.recommended.option.name == "continue"


def test_a_healthy_checkpoint_before_the_damage_is_rewound_to() -> None:
    diagnosis = made(exploded(), saved=(900, 1200, 1400))
    rewind = by_name(diagnosis)["rewind"]
    assert rewind.start is not None
    assert rewind.start.step == 900
    best = diagnosis.course.best
    assert best is not None
    choice = choose(make_options(diagnosis), Wishes(), float(diagnosis.course.trend[-1]), best.value)
    assert choice.recommended.option.name == "rewind"


def test_phase_1_starts_from_the_least_damaged_checkpoint_and_has_fifty_logged_points() -> None:
    values = np.concatenate([falling(), np.linspace(1.2, 6, 40)])
    phased = by_name(made(values, saved=(1100, 1250, 1400)))["phased"]
    assert phased.start is not None
    assert phased.start.step == 1100
    assert phased.legs[0].steps == 50 * 10
    assert by_name(made(values, saved=(1100,)), phase_1_steps=70)["phased"].legs[0].steps == 70


def test_a_lower_rate_at_which_the_run_was_well_is_the_one_to_restart_with() -> None:
    rates = np.where(np.arange(140) < 100, 1e-4, 1e-3)
    (restart,) = by_name(made(exploded(), rates=rates))["restart"].legs
    assert 1e-3 * restart.rate == pytest.approx(1e-4)
    (restart,) = by_name(made(exploded(), rates=np.full(140, 1e-3)))["restart"].legs
    assert restart.rate == 0.25


def test_without_a_throughput_there_are_no_hours_and_with_one_they_have_an_interval() -> None:
    diagnosis = made(exploded(), saved=(1400,))
    assert all(option.hours is None for option in make_options(diagnosis))
    timed = replace(diagnosis, facts=replace(diagnosis.facts, seconds_per_step=Interval(3.6, 3.0, 4.0)))
    (leg,) = by_name(timed)["restart"].legs
    assert leg.hours is not None
    assert leg.hours.value == pytest.approx(leg.steps * 2 * 3.6 / 3600)
    assert leg.hours.low < leg.hours.value < leg.hours.high


@pytest.mark.parametrize("values", [np.zeros(0), np.array([2.0]), np.full(30, np.nan)], ids=["none", "one", "all NaN"])
def test_a_history_that_says_nothing_has_options_without_made_up_losses(values: np.ndarray) -> None:
    options = by_name(made(values) if len(values) else replace(made(falling()), course=read_course(_nothing())))
    assert options["phased"].impossible == "no checkpoint that can be read is left"
    assert options["restart"].success.value <= 0.5
    assert all(option.loss is None or len(values) == 1 for option in options.values())


def _nothing() -> Series:
    return Series(np.zeros(0, np.int64), np.zeros(0), np.zeros(0))
