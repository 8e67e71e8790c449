"""Training without a notebook: one command, alone or under torchrun."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from tests.conftest import CorpusMaker
from tests.tiny_voice import LATENTS, Bench
from tests.training.processes import Place, place, until
from tts_kernel import train
from tts_kernel.recipes.indextts2 import Settings
from tts_kernel.runs import PROJECT_ROOT, Run
from tts_kernel.settings import SettingsError
from tts_kernel.training.launch import ending
from tts_kernel.training.launch.session import LOG, SESSION, SETTINGS, find

__all__ = ["place"]

TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--local-addr", "localhost", "--nproc-per-node", "2")
TORCHRUN += ("-m", "tts_kernel.train")


def steps(run: Run) -> int:
    path = run.folder / "metrics.jsonl"
    return len(path.read_text(encoding="utf-8").splitlines()) if path.exists() else 0


def only_run(place: Place) -> Run:
    (settings,) = (place.folder / "runs").glob("*/settings.json")
    return Run(settings.parent)


# What is read


def read(path: Path, text: str, **changes: str) -> tuple[Any, Any]:
    path.write_text(text, encoding="utf-8")
    return train.read(path, changes)


def test_a_file_names_its_recipe_and_settings_and_the_command_line_goes_before_it(tmp_path: Path) -> None:
    recipe, settings = read(tmp_path / "a.yaml", "recipe: indextts2\nbatch_size: 8\nepochs: 2\n", epochs="3")
    assert recipe.__name__ == "tts_kernel.recipes.indextts2"
    assert settings == Settings(batch_size=8, epochs=3)


def test_all_that_is_wrong_with_a_file_is_one_error(tmp_path: Path) -> None:
    with pytest.raises(SettingsError) as raised:
        read(tmp_path / "a.yaml", "recipe: indextts\nbatch_sise: 8\nlearning_rate: fast\n_seed: 1\n", epochs="0")
    lines = str(raised.value).splitlines()
    assert lines[0].endswith("a.yaml: 5 settings cannot be used:")
    for expected in (
        "recipe: found 'indextts'; did you mean indextts2?",
        "batch_sise: not a parameter; did you mean batch_size?",
        "learning_rate: found 'fast'",
        "epochs: found 0",
        "_seed: not a parameter",
    ):
        assert sum(line.strip().startswith(expected) for line in lines) == 1, expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("batch_size: 8\n", "recipe: found ''; expected one of cosyvoice2, indextts2, melotts"),
        ("recipe: vits\n", "recipe: found 'vits'; expected one of cosyvoice2, indextts2, melotts"),
        ("- recipe\n", "found a list, expected lines of `name: value`"),
        ("recipe: [\n", "no YAML"),
        ("", "recipe: found ''"),
    ],
)
def test_a_file_without_a_recipe_says_what_is_expected(tmp_path: Path, text: str, expected: str) -> None:
    with pytest.raises(SettingsError) as raised:
        read(tmp_path / "a.yaml", text)
    assert str(tmp_path / "a.yaml") in str(raised.value)
    assert expected in str(raised.value)


def test_how_many_processes_were_started_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert read(tmp_path / "a.yaml", "recipe: indextts2\n")[1].processes == 2
    with pytest.raises(SettingsError, match="processes: found 4, but 2 were started"):
        read(tmp_path / "a.yaml", "recipe: indextts2\nprocesses: 4\n")


def test_every_parameter_file_of_notebook_02_is_one_for_the_command(tmp_path: Path) -> None:
    files = sorted((PROJECT_ROOT / "parameters" / "02_stage2_grl").glob("*.yaml"))
    assert files
    for path in files:
        values = {"data": "d", "base_checkpoint": "b.pth", **yaml.safe_load(path.read_text(encoding="utf-8"))}
        (tmp_path / path.name).write_text(yaml.safe_dump({"recipe": "indextts2", **values}), encoding="utf-8")
        train.read(tmp_path / path.name, {})


def test_a_missing_file_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        train.main(["nowhere.yaml"])
    assert "nowhere.yaml: no such file" in capsys.readouterr().err


# What is trained


@pytest.mark.slow
def test_a_file_without_a_run_name_makes_a_run_and_says_how_it_ended(
    place: Place, make_tiny_corpus: CorpusMaker
) -> None:
    bench = Bench(place.folder, make_tiny_corpus(latents=LATENTS))
    values = {"data": str(bench.data), "base_checkpoint": str(bench.base), "speaker_min_clips": 1, "batch_size": 5}
    values |= {
        "grad_accumulation": 2,
        "warmup_steps": 0,
        "log_every": 1,
        "device": "cpu",
        "num_workers": 0,
        "aim": False,
    }
    process = place.train("-p", "max_steps", "2", recipe="indextts2", **values)
    printed, _ = process.communicate(timeout=200)
    assert process.returncode == 0, printed
    run = only_run(place)
    assert run.name.startswith("indextts2-20")
    known = json.loads((run.folder / ending.OUTCOME).read_text(encoding="utf-8"))
    assert (known["status"], known["step"], known["horizon"]) == ("step limit reached", 2, 3)
    for expected in ("3 steps: 1 x 24 pairs", "step 2/3", "step limit reached: step 2 of 3"):
        assert expected in printed
    assert run.settings()["max_steps"] == 2
    process = place.train(recipe="indextts2", **values, run_name=run.name, seed=5)
    printed, _ = process.communicate(timeout=200)
    assert process.returncode == 1
    assert "seed: 0 when it was saved, 5 now" in printed
    assert "Traceback" not in printed
    assert ending.status(run) == "failed"


@pytest.mark.slow
def test_a_run_started_by_hand_is_found_and_stops_by_signal_and_goes_on(place: Place) -> None:
    process = place.train(run_name="run", steps=100_000)
    run = place.run()
    until(lambda: steps(run) > 2, "the third step")
    session = find(run)
    assert session is not None
    assert session.pid == process.pid
    second = place.train(run_name="run", steps=100_000)
    printed, _ = second.communicate(timeout=200)
    assert second.returncode == 1
    assert f"run run is in use: process {process.pid} on host" in printed
    assert session.alive()
    process.send_signal(signal.SIGTERM)
    printed, _ = process.communicate(timeout=200)
    assert process.returncode == 1
    assert "stopped by SIGTERM at step" in printed
    assert ending.status(run) == "stopped"
    at = int((run.checkpoints / "step.txt").read_text())
    process = place.train(run_name="run", steps=at + 2)
    printed, _ = process.communicate(timeout=200)
    assert process.returncode == 0, printed
    assert f"step {at + 1} of {at + 2}" in printed
    assert f"step {at} of" not in printed


@pytest.mark.slow
def test_detached_the_command_ends_at_once_and_the_training_goes_on(place: Place) -> None:
    process = place.train(run_name="run", launch="detached", steps=30)
    printed, _ = process.communicate(timeout=200)
    assert process.returncode == 0, printed
    run = place.run()
    for expected in (str(run.folder / LOG), f"touch {run.folder / 'stop'}"):
        assert expected in printed
    until(lambda: ending.status(run), "the end")
    assert ending.status(run) == "finished"
    assert yaml.safe_load((run.folder / SETTINGS).read_text(encoding="utf-8"))["run_name"] == "run"


@pytest.mark.slow
def test_under_torchrun_all_train_one_run_and_the_failed_ones_error_is_kept(place: Place) -> None:
    process = place.train("-p", "wrong", "error", "-p", "wrong_rank", "1", program=TORCHRUN)
    printed, _ = process.communicate(timeout=250)
    assert process.returncode == 1
    run = only_run(place)
    known = json.loads((run.folder / ending.OUTCOME).read_text(encoding="utf-8"))
    assert (known["status"], known["kind"], known["rank"]) == ("failed", "TrainingError", 1)
    assert known["error"].startswith("process 1: the loss of clip_17 is not finite")
    assert "process 1: the loss of clip_17" in printed
    assert printed.count("step 1 of 5") == 1, "from one process only"
    assert (run.folder / "prepared.txt").read_text(encoding="utf-8") == "1 -\n2 1\n"
    assert json.loads((run.folder / SESSION).read_text(encoding="utf-8"))["pid"] not in (process.pid, None)


@pytest.mark.slow
def test_torchrun_interrupted_in_a_terminal_stops_with_a_checkpoint(place: Place) -> None:
    process = place.train(program=TORCHRUN, run_name="run", steps=100_000)
    run = place.run()
    until(lambda: steps(run) > 2, "the third step")
    ranks = psutil.Process(process.pid).children()
    assert len(ranks) == 2
    for one in (*ranks, psutil.Process(process.pid)):  # a queue that is to be left signals all of them
        one.send_signal(signal.SIGTERM)
    process.communicate(timeout=200)
    assert ending.status(run) == "stopped"
    assert (run.checkpoints / "step.txt").exists()
