"""torch.compile in the training step of the real recipe, by a backend that counts instead of generating code."""

from __future__ import annotations

import logging
import os
import shutil
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch._dynamo.backends.common import aot_autograd
from torch._dynamo.utils import counters
from torch._functorch.aot_autograd import make_boxed_func

from tests.conftest import CorpusMaker
from tests.tiny_voice import LATENTS, Bench, random_clips, voice
from tts_kernel.data.sampler import Position
from tts_kernel.recipes.indextts2.train import make_trainer
from tts_kernel.runs import PROJECT_ROOT
from tts_kernel.training.processes import Processes
from tts_kernel.training.speed import _drop_torn_libraries, compile_parts
from tts_kernel.training.trainer import Trainer

CPU = torch.device("cpu")


class Twice(nn.Module):
    """torch's own modules are not compiled by themselves."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(2, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return 2 * self.inner(x)


class Counted:
    """Graphs compiled and graphs called, forward and backward apart."""

    def __init__(self) -> None:
        self.compiled = {"forward": 0, "backward": 0}
        self.called = {"forward": 0, "backward": 0}
        self.backend = aot_autograd(fw_compiler=self._compiler("forward"), bw_compiler=self._compiler("backward"))

    def _compiler(self, way: str) -> Callable[..., Any]:
        def compiler(graph: torch.fx.GraphModule, example_inputs: list[torch.Tensor]) -> Callable[..., Any]:
            self.compiled[way] += 1

            def run(*inputs: Any) -> Any:
                self.called[way] += 1
                return graph.forward(*inputs)

            return make_boxed_func(run)

        return compiler


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> Iterator[Counted]:
    """What `compile_parts` compiles goes to a counting backend."""
    count = Counted()
    usual = nn.Module.compile

    def compile_counted(self: nn.Module, *, mode: str, dynamic: bool) -> None:
        assert mode == "default"
        usual(self, backend=count.backend, dynamic=dynamic)

    monkeypatch.setattr(nn.Module, "compile", compile_counted)
    torch._dynamo.reset()
    yield count
    torch._dynamo.reset()


def trainer(bench: Bench, name: str, **changes: Any) -> Trainer:
    made = make_trainer(bench.prepare(name, **changes), bench.run(name), Processes.from_environment("cpu"))
    made.model.train()
    return made


def losses(trainer: Trainer, updates: int) -> list[float]:
    found = []
    for batch in list(trainer.loader.batches(Position()))[:updates]:
        trainer.objective.before_step(0)
        totals, _ = trainer.updater.totals([batch])
        torch.manual_seed(0)
        found.append(trainer.update([batch], totals).means["mel"])
    return found


@pytest.fixture
def bench(make_tiny_corpus: CorpusMaker, tmp_path: Path) -> Bench:
    bench = Bench(tmp_path, make_tiny_corpus(latents=LATENTS))
    config = bench.base.parent / "config.yaml"  # random numbers of compiled and other code differ
    config.write_text(config.read_text(encoding="utf-8").replace("dropout: 0.1", "dropout: 0.0"), encoding="utf-8")
    assert "dropout: 0.0" in config.read_text(encoding="utf-8")
    return bench


def test_the_compiled_graphs_are_what_the_recipe_trains_with(bench: Bench, counted: Counted) -> None:
    plain = losses(trainer(bench, "plain"), 3)
    assert counted.called == {"forward": 0, "backward": 0}
    compiled = trainer(bench, "compiled", compile="default")
    blocks = len(compiled.model.heavy_parts())  # type: ignore[operator]
    with_graphs = losses(compiled, 3)
    assert counted.called == {"forward": 3 * blocks, "backward": 3 * blocks}
    assert with_graphs == pytest.approx(plain, rel=1e-5)
    assert list(compiled.model.state_dict()) == list(trainer(bench, "again").model.state_dict())


def test_ten_lengths_and_batch_sizes_share_a_few_graphs(counted: Counted) -> None:
    model = voice(layers=3, dropout=0.1).train()
    compile_parts(model.heavy_parts(), "default", CPU)
    random = torch.Generator().manual_seed(0)
    counters.clear()
    for number in range(10):
        rows, clips = 2 + number % 4, random_clips()
        codes = torch.randint(0, 30, (rows, 10 + number), generator=random)
        lengths = torch.full((rows,), codes.shape[1])
        conditions = model.conditions(torch.randn(rows, *LATENTS), torch.randn(rows, LATENTS[1]))
        text = clips.text[:1].expand(rows, -1)
        said = model(conditions, text, clips.text_lengths[:1].expand(rows), codes, lengths)
        said.code_logits.sum().backward()
    assert counted.called == {"forward": 30, "backward": 30}
    assert 1 <= counted.compiled["forward"] <= 2, "one graph is for all lengths, and for all three blocks"
    assert 1 <= counted.compiled["backward"] <= 2
    assert not counters["graph_break"]


def test_names_in_a_state_dict_stay_when_compiled(counted: Counted) -> None:
    model = voice()
    names = list(model.state_dict())
    compile_parts(model.heavy_parts(), "default", CPU)
    assert list(model.state_dict()) == names


def test_cuda_graphs_on_a_cpu_compute_as_default_and_say_so(counted: Counted, caplog: pytest.LogCaptureFixture) -> None:
    model = Twice()
    with caplog.at_level(logging.WARNING, logger="tts_kernel"):
        assert compile_parts([model], "reduce-overhead", CPU) == "default"
    assert "on a CPU it computes as 'default'" in caplog.text
    model(torch.ones(1, 2))
    assert counted.called["forward"] == 1


def test_off_compiles_nothing(counted: Counted) -> None:
    model = Twice()
    assert compile_parts([model], "off", CPU) == "off"
    model(torch.ones(1, 2))
    assert counted.compiled["forward"] == 0


SCRIPT = """
import logging, torch
from tts_kernel.training.speed import compile_parts
logging.basicConfig(format="%(message)s")
class Twice(torch.nn.Linear):
    def forward(self, x):
        return 2 * super().forward(x).tanh()
model = Twice(2, 2)
print(compile_parts([model, Twice(2, 2)], {mode!r}, torch.device("cpu")))
print(tuple(model(torch.ones(1, 2)).shape))
"""


def compile_in_a_process(folder: Path, path: str, mode: str = "default") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", SCRIPT.format(mode=mode)],
        cwd=PROJECT_ROOT,
        env={"PATH": path, "TTS_KERNEL_CACHE": str(folder), "HOME": str(folder)},
        capture_output=True,
        text=True,
        timeout=400,
    )


@pytest.mark.slow
def test_without_a_compiler_one_message_says_so_and_training_goes_on(tmp_path: Path) -> None:
    done = compile_in_a_process(tmp_path, path=str(tmp_path / "nothing-here"))
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["off", "(1, 2)"]
    said = [line for line in done.stderr.splitlines() if "C++ compiler" in line]
    assert len(said) == 1
    assert "set compile to 'off'" in said[0]


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.skipif(not shutil.which(os.environ.get("CXX", "g++")), reason="no C++ compiler here")
def test_compiled_code_is_kept_in_the_cache_folder_and_a_torn_library_is_replaced(tmp_path: Path) -> None:
    path = "/usr/local/bin:/usr/bin:/bin"
    done = compile_in_a_process(tmp_path, path)
    assert done.stdout.splitlines() == ["default", "(1, 2)"], done.stderr
    libraries = list((tmp_path / "compiled").glob("*/*.so"))
    assert libraries
    for library in libraries:
        library.write_bytes(library.read_bytes()[:-100])
    again = compile_in_a_process(tmp_path, path)
    assert again.stdout == done.stdout, again.stderr
    assert "left by a process that was killed" in again.stderr


def test_only_torn_libraries_are_dropped(tmp_path: Path) -> None:
    # 64 bytes of header; after 36 bytes of content a table of two sections of 64 bytes each.
    header = b"\x7fELF" + bytes(36) + struct.pack("=Q10xHH", 100, 64, 2) + bytes(2)
    whole = header + bytes(36 + 2 * 64)
    for name, content in {"whole": whole, "torn": whole[:-1], "empty": b"", "other": b"MZ" + bytes(100)}.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.so").write_bytes(content)
    _drop_torn_libraries(tmp_path)
    assert {path.parent.name for path in tmp_path.glob("*/*.so")} == {"whole", "other"}
