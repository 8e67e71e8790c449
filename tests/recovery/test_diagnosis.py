from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.recovery import guide_case
from tests.recovery.histories import STEPS, diverging, falling, noise, save, write_run
from tts_kernel.recovery.diagnosis import Diagnosis, diagnose, is_alive
from tts_kernel.runs import Run
from tts_kernel.training.launch.hold import held


@pytest.fixture(scope="module")
def guides(tmp_path_factory: pytest.TempPathFactory) -> Diagnosis:
    return diagnose(guide_case.make_case(tmp_path_factory.mktemp("case") / "run"))


def names(diagnosis: Diagnosis) -> set[str]:
    return {finding.name for finding in diagnosis.findings}


# The guide's case, from its log and its checkpoints alone


def test_the_guides_log_is_what_its_script_writes(tmp_path: Path) -> None:
    guide_case.write_log(tmp_path / "train.log.gz")
    assert (tmp_path / "train.log.gz").read_bytes() == guide_case.LOG.read_bytes()
    assert guide_case.LOG.stat().st_size < 300_000


def test_the_guides_run_is_known_by_what_it_left(guides: Diagnosis) -> None:
    facts = guides.facts
    assert (facts.learning_rate, facts.batch_size, facts.rows) == (2e-5, 4, 5_483_856)
    assert facts.epochs(guides.history.step) == pytest.approx(0.32, abs=0.005)
    assert facts.seconds_per_step is not None
    assert facts.seconds_per_step.low < 0.16 < facts.seconds_per_step.high
    assert (guides.metric, guides.history.step, guides.alive) == ("train/text_loss", 438_000, False)


def test_the_guides_best_is_lost(guides: Diagnosis) -> None:
    found, best = guides.finding("best lost"), guides.course.best
    assert found is not None
    assert best is not None
    assert best.first <= guide_case.BEST_STEP <= best.last
    assert (best.luckiest_step, best.luckiest) == (guide_case.BEST_STEP, guide_case.BEST)
    assert found.evidence["nearest"] == guide_case.RISING
    assert found.severity == "bad"


def test_the_guides_divergence_begins_between_its_best_and_its_backup(guides: Diagnosis) -> None:
    onset = guides.course.onset
    assert onset is not None
    assert guide_case.BEST_STEP <= onset.step <= guide_case.RISING
    assert onset.first <= guide_case.TURN <= onset.last <= guide_case.RISING
    assert "divergence" in names(guides)


def test_the_guides_checkpoints_are_rising_and_ruined(guides: Diagnosis) -> None:
    states = {one.step: one.state for one in guides.survivors}
    assert states == {351_000: "rising", 436_000: "ruined", 437_000: "ruined", 438_000: "ruined"}
    assert [one.resumable for one in guides.survivors if one.path.name == "latest.pth"] == [False]


def test_the_guides_rate_is_too_high_and_it_is_no_over_fitting(guides: Diagnosis) -> None:
    found = guides.finding("rate too high")
    assert found is not None
    assert found.evidence["epochs"] == pytest.approx(0.32, abs=0.005)
    assert (found.evidence["learning_rate"], found.evidence["batch_size"]) == (2e-5, 4)
    for part in ("0.32 epochs", "not over-fitting", "2e-05", "batches of 4"):
        assert part in found.says
    assert "over-fitting" not in names(guides)
    assert found.confidence > 0.6


def test_the_guides_validation_is_missing(guides: Diagnosis) -> None:
    assert "validation missing" in names(guides)


# Which loss is judged


def test_the_loss_that_went_wrong_is_judged(tmp_path: Path) -> None:
    folder = write_run(tmp_path, {"train/text_loss": falling(1), "train/mel_loss": diverging(3000, 2)})
    diagnosis = diagnose(folder)
    assert diagnosis.metric == "train/mel_loss"
    assert diagnose(folder, metric="train/text_loss").finding("divergence") is None


def test_a_healthy_run_has_no_bad_findings(tmp_path: Path) -> None:
    folder = write_run(tmp_path, {"train/text_loss": falling(1), "val/loss": falling(2) + 0.1})
    save(folder / "checkpoints" / "latest_full.pth", 5000)
    diagnosis = diagnose(folder)
    assert {one.severity for one in diagnosis.findings} <= {"good", "note"}
    assert "best kept" in names(diagnosis)


def test_over_fitting_is_judged_by_the_validation(tmp_path: Path) -> None:
    held = falling(2) + np.clip(STEPS - 2500, 0, None) / 2000
    folder = write_run(tmp_path, {"train/text_loss": falling(1) - STEPS / 6000, "val/text_loss": held})
    for step in (2400, 5000):
        save(folder / "checkpoints" / f"step_{step:05d}.pth", step)
    diagnosis = diagnose(folder, given={"batch_size": 4, "rows": 4000})
    assert diagnosis.metric == "val/text_loss"
    assert "over-fitting" in names(diagnosis)
    assert "rate too high" not in names(diagnosis)
    assert {one.step: one.state for one in diagnosis.survivors} == {2400: "healthy", 5000: "ruined"}


def test_a_metric_that_vanished_is_judged_only_where_there_is_no_other(tmp_path: Path) -> None:
    metrics = {"train/text_loss": falling(1)[:250], "train/mel_loss": falling(2)}
    assert diagnose(write_run(tmp_path / "two", metrics)).metric == "train/mel_loss"
    metrics["other"] = metrics.pop("train/mel_loss")
    diagnosis = diagnose(write_run(tmp_path / "one", metrics))
    assert diagnosis.metric == "train/text_loss"
    found = diagnosis.finding("metric vanished")
    assert found is not None
    assert (found.evidence["last"], found.evidence["step"]) == (2500, 5000)


# Bad input: a diagnosis of everything


@pytest.mark.parametrize(
    ("values", "points", "lost"), [([], 0, 0), ([2.0], 1, 0), ([np.nan] * 500, 0, 500)], ids=["empty", "one", "nan"]
)
def test_too_little_history_is_said_and_nothing_else_is_judged(
    tmp_path: Path, values: list[float], points: int, lost: int
) -> None:
    folder = write_run(tmp_path, {"train/text_loss": values})
    save(folder / "checkpoints" / "latest.pth", 10)
    diagnosis = diagnose(folder)
    found = diagnosis.finding("too little history")
    assert found is not None
    assert (found.evidence["points"], found.evidence["not_finite"]) == (points, lost)
    assert not names(diagnosis) & {"best lost", "best kept", "divergence", "rate too high"}
    assert [one.state for one in diagnosis.survivors] == ["unknown"]


def test_a_path_without_anything_is_a_diagnosis(tmp_path: Path) -> None:
    diagnosis = diagnose(tmp_path / "nowhere")
    assert (diagnosis.metric, diagnosis.survivors, diagnosis.alive) == ("", (), False)
    assert names(diagnosis) == {"too little history", "not readable"}


def test_a_metric_that_was_never_logged_names_those_that_were(tmp_path: Path) -> None:
    found = diagnose(write_run(tmp_path, {"train/text_loss": falling()}), metric="val/f0").finding("too little history")
    assert found is not None
    assert "train/text_loss" in found.says


def test_a_corrupt_event_file_is_a_finding(tmp_path: Path) -> None:
    (tmp_path / "events.out.tfevents.1").write_bytes(b"nothing of the kind")
    found = diagnose(tmp_path).finding("not readable")
    assert found is not None
    assert "damaged" in found.says


def test_steps_that_do_not_increase_and_other_steps_of_the_validation_are_judged(tmp_path: Path) -> None:
    folder = write_run(tmp_path, {"train/text_loss": diverging(3000, 1), "val/text_loss": falling(2)[:20]})
    lines = (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    lines[100:103] = lines[102:99:-1]
    (folder / "metrics.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    diagnosis = diagnose(folder)
    assert {"divergence", "not readable"} <= names(diagnosis)
    assert "validation missing" not in names(diagnosis)


def test_an_unknown_throughput_stays_unknown(tmp_path: Path) -> None:
    rows = "".join(f"{step},{value}\n" for step, value in zip(STEPS, falling(), strict=True))
    (tmp_path / "loss.csv").write_text("step,loss\n" + rows, encoding="utf-8")
    assert diagnose(tmp_path).facts.seconds_per_step is None


# A run that goes on


def test_a_run_that_is_held_is_alive(tmp_path: Path) -> None:
    run = Run(write_run(tmp_path, {"train/text_loss": falling()}, batch_size=4))
    assert not diagnose(run.folder).alive
    with held(run):
        diagnosis = diagnose(run.folder)
    assert diagnosis.alive
    assert "alive" in names(diagnosis)
    assert not is_alive(run.folder)


def test_a_log_that_a_process_writes_is_alive(tmp_path: Path) -> None:
    log = tmp_path / "train.log"
    code = (
        "import sys\n"
        "with open(sys.argv[1], 'a') as log:\n"
        "    print('[Train] epoch=1 step=1 text_loss=2.0', file=log, flush=True)\n"
        "    print('begun', flush=True)\n"
        "    sys.stdin.read()"
    )
    writer = subprocess.Popen([sys.executable, "-c", code, str(log)], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        assert writer.stdout is not None
        assert writer.stdout.readline() == b"begun\n"
        with log.open(encoding="utf-8"):  # who reads it does not count
            assert is_alive(log)
    finally:
        writer.communicate()
    with log.open(encoding="utf-8"):
        assert not is_alive(log)


def test_noise_alone_is_no_divergence(tmp_path: Path) -> None:
    diagnosis = diagnose(write_run(tmp_path, {"train/text_loss": 2 + noise(3, 0.3)}))
    assert "divergence" not in names(diagnosis)
    assert "plateau" in names(diagnosis)
