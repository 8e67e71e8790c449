from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.tiny_voice import CONFIG, differing
from tts_kernel.models.indextts2.gpt import UnifiedVoice
from tts_kernel.models.indextts2.weights import load_weights
from tts_kernel.models.weights import CheckpointError, read_checkpoint
from tts_kernel.training.checkpoints.averaging import average


def write(path: Path, model: dict[str, Any], **others: Any) -> Path:
    torch.save({"model": model, **others}, path)
    return path


def files(folder: Path, *models: dict[str, Tensor]) -> list[Path]:
    return [write(folder / f"{number}.pth", model, step=number) for number, model in enumerate(models)]


def averaged(folder: Path, *models: dict[str, Tensor]) -> dict[str, Tensor]:
    average(files(folder, *models), folder / "averaged.pth")
    return read_checkpoint(folder / "averaged.pth")["model"]


def test_every_value_is_the_mean(tmp_path: Path) -> None:
    values = [torch.randn(5, 3) for _ in range(3)]
    mean = averaged(tmp_path, *({"a": value, "b": value[0]} for value in values))
    torch.testing.assert_close(mean["a"], torch.stack(values).mean(dim=0))
    torch.testing.assert_close(mean["b"], torch.stack(values)[:, 0].mean(dim=0))


def test_one_checkpoint_is_its_own_average(tmp_path: Path) -> None:
    value = torch.randn(4)
    assert torch.equal(averaged(tmp_path, {"a": value})["a"], value)


def test_large_values_do_not_swallow_small_ones(tmp_path: Path) -> None:
    numbers = [1e8, 1.0, -1e8, 1.0]
    assert averaged(tmp_path, *({"a": torch.tensor([number])} for number in numbers))["a"].item() == 0.5


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64, torch.complex64])
def test_types_stay(tmp_path: Path, dtype: torch.dtype) -> None:
    mean = averaged(tmp_path, {"a": torch.tensor([1.0], dtype=dtype)}, {"a": torch.tensor([2.0], dtype=dtype)})["a"]
    assert (mean.dtype, mean.item()) == (dtype, 1.5)


def test_integers_stay_and_have_to_agree(tmp_path: Path) -> None:
    mask = torch.tensor([True, False])
    assert torch.equal(averaged(tmp_path, {"mask": mask}, {"mask": mask})["mask"], mask)
    with pytest.raises(CheckpointError, match=r"1\.pth: mask holds integers that differ"):
        averaged(tmp_path, {"mask": mask}, {"mask": ~mask})


def test_a_counter_is_the_highest(tmp_path: Path) -> None:
    counted = [{"norm.num_batches_tracked": torch.tensor(count)} for count in (3, 9, 5)]
    assert averaged(tmp_path, *counted)["norm.num_batches_tracked"].item() == 9


def test_what_the_files_agree_on_stays_and_what_was_one_saves_own_does_not(tmp_path: Path) -> None:
    model, facts = {"a": torch.ones(1)}, {"format": 1, "identity": {"model": {"layers": 2}}, "settings": {"seed": 1}}
    own = [
        {"step": step, "epoch": 0, "metrics": {"val/loss": loss}, "written": {"number": step}, "val_loss": loss}
        for step, loss in ((7, 2.0), (5, 1.0))
    ]
    optimizer = {"optimizer": {"state": {0: torch.ones(1)}}, "optimizer_type": "adamw", "random": [torch.ones(1)]}
    paths = [write(tmp_path / f"{values['step']}.pth", model, **facts, **values, **optimizer) for values in own]
    average(paths, tmp_path / "averaged.pth")
    result = read_checkpoint(tmp_path / "averaged.pth")
    assert result.keys() == {"model", *facts, "step", "epoch", "averaged_from"}
    assert {name: result[name] for name in facts} == facts
    assert result["step"] == 7
    assert result["averaged_from"] == [
        {"file": "7.pth", "step": 7, "metrics": {"val/loss": 2.0}},
        {"file": "5.pth", "step": 5, "metrics": {"val/loss": 1.0}},
    ]


def test_an_average_can_take_the_place_of_one_of_its_files(tmp_path: Path) -> None:
    paths = files(tmp_path, {"a": torch.zeros(3)}, {"a": torch.ones(3)})
    average(paths, paths[0])
    assert read_checkpoint(paths[0])["model"]["a"].tolist() == [0.5] * 3


def test_an_average_loads_like_any_checkpoint_also_of_wrapped_and_bare_states(tmp_path: Path) -> None:
    models = []
    for seed in range(3):
        torch.manual_seed(seed)
        models.append(UnifiedVoice(CONFIG).state_dict())
    wrapped = {f"module._orig_mod.{name}": value for name, value in models[1].items()}
    paths = files(tmp_path, models[0], wrapped)
    torch.save(dict(models[2]), tmp_path / "bare.pth")
    average([*paths, tmp_path / "bare.pth"], tmp_path / "averaged.pth")
    voice = UnifiedVoice(CONFIG)
    load_weights(voice, tmp_path / "averaged.pth")
    mean = {name: torch.stack([model[name].double() for model in models]).mean(0).float() for name in models[0]}
    assert not differing(mean, voice.state_dict())


def test_what_differs_is_named_all_at_once_and_nothing_is_written(tmp_path: Path) -> None:
    whole = {"a": torch.ones(2), "b": torch.ones(3), "c": torch.ones(1)}
    other = {"a": torch.ones(4), "c": torch.ones(1, dtype=torch.float16), "d": torch.ones(1)}
    with pytest.raises(CheckpointError) as error:
        averaged(tmp_path, whole, other)
    for part in (
        "1.pth: has no b",
        "1.pth: d, which is not in 0.pth",
        "a is float32 [4], expected float32 [2] as in 0.pth",
        "c is float16 [1], expected float32 [1]",
    ):
        assert part in str(error.value)
    assert not (tmp_path / "averaged.pth").exists()


def test_many_differences_are_counted(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="and 12 more"):
        averaged(
            tmp_path, {str(number): torch.ones(1) for number in range(20)}, {"0": torch.ones(1), "x": torch.ones(1)}
        )


def test_values_that_are_not_finite_are_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"1\.pth: a holds values that are not finite"):
        averaged(tmp_path, {"a": torch.ones(2)}, {"a": torch.tensor([1.0, float("nan")])})


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    paths = files(tmp_path, {"a": torch.ones(100)}, {"a": torch.full((100,), 2.0)})
    content = bytearray(paths[1].read_bytes())
    content[content.index(torch.full((100,), 2.0).numpy().tobytes()) + 8] ^= 1
    paths[1].write_bytes(content)
    with pytest.raises(CheckpointError, match=r"1\.pth: record .* does not match its checksum"):
        average(paths, tmp_path / "averaged.pth")


def test_nothing_to_average_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no checkpoints were given"):
        average([], tmp_path / "averaged.pth")
