"""For tests with real processes."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import psutil
import pytest
import yaml

import tts_kernel.recipes
from tts_kernel.runs import Run
from tts_kernel.training.launch.session import Session, find

RECIPES = Path(__file__).parent / "recipes"

Found = TypeVar("Found")


def until(ask: Callable[[], Found], what: str, seconds: float = 120.0) -> Found:
    """The first answer of `ask` that counts as true. A deadline for a machine that is busy, not a measurement."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if found := ask():
            return found
        time.sleep(0.05)
    raise AssertionError(f"{what} did not happen within {seconds:g} s")


@dataclass
class Place:
    """A folder for runs that this process and those it starts see, and the stand-in recipe among the others."""

    folder: Path
    started: list[subprocess.Popen[str]] = field(default_factory=list)

    def run(self, name: str = "run") -> Run:
        run = Run(self.folder / "runs" / name)
        run.checkpoints.mkdir(parents=True, exist_ok=True)
        return run

    def write(self, **values: Any) -> Path:
        path = self.folder / "settings.yaml"
        path.write_text(yaml.safe_dump({"recipe": "stand_in", **values}), encoding="utf-8")
        return path

    def train(self, *words: str, program: tuple[str, ...] = ("-m", "tts_kernel.train"), **values: Any) -> Any:
        """Starts `python -m tts_kernel.train` on a file of `values`; what it prints is piped."""
        process = subprocess.Popen(
            [sys.executable, *program, str(self.write(**values)), *words],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            text=True,
            start_new_session=True,
        )
        self.started.append(process)
        return process

    def session(self, name: str = "run") -> Session | None:
        return find(self.run(name))

    def leave(self) -> None:
        """Ends whatever a failed test has left."""
        own = str(self.folder)
        for process in psutil.process_iter(["environ"]):
            environment = process.info["environ"] or {}
            if environment.get("TTS_KERNEL_RUNS", "").startswith(own) and process.pid != os.getpid():
                process.kill()
        for started in self.started:
            started.communicate()


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    site = tmp_path / "site"
    site.mkdir()
    text = f"import tts_kernel.recipes\ntts_kernel.recipes.__path__.append({str(RECIPES)!r})\n"
    (site / "sitecustomize.py").write_text(text, encoding="utf-8")
    monkeypatch.setenv("PYTHONPATH", str(site))
    monkeypatch.setenv("TTS_KERNEL_RUNS", str(tmp_path / "runs"))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setattr(tts_kernel.recipes, "__path__", [*tts_kernel.recipes.__path__, str(RECIPES)])
    made = Place(tmp_path)
    yield made
    made.leave()
