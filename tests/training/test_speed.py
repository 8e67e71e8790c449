from __future__ import annotations

import pytest
import torch

from tts_kernel.training.speed import SpeedSettings, autocast, choose_device, switched

CPU = torch.device("cpu")


def product() -> torch.Tensor:
    return torch.ones(2, 2) @ torch.ones(2, 2)


@pytest.mark.parametrize(
    ("precision", "dtype"), [("bfloat16", torch.bfloat16), ("float32", torch.float32), ("auto", torch.float32)]
)
def test_precision_is_what_products_are_computed_in(precision: str, dtype: torch.dtype) -> None:
    context = autocast(CPU, precision)  # type: ignore[arg-type]
    for _ in range(2):  # one context per forward pass
        with context():
            assert product().dtype == dtype
    assert product().dtype == torch.float32


def test_a_gpu_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert choose_device("auto") == choose_device("cpu") == CPU
    with pytest.raises(ValueError, match="torch finds no GPU"):
        choose_device("cuda")


def test_auto_takes_the_gpu_where_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert choose_device("auto") == choose_device("cuda") == torch.device("cuda")
    assert choose_device("cpu") == CPU


def test_bfloat16_is_refused_where_the_gpu_lacks_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: False)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Old GPU")
    with pytest.raises(ValueError, match="Old GPU lacks it"):
        autocast(torch.device("cuda"), "bfloat16")
    assert autocast(torch.device("cuda"), "auto")().__class__.__name__ == "nullcontext"


def flags() -> tuple[object, ...]:
    cuda = torch.backends.cuda
    kernels = (cuda.flash_sdp_enabled(), cuda.mem_efficient_sdp_enabled(), cuda.math_sdp_enabled())
    return (
        torch.get_float32_matmul_precision(),
        torch.backends.cudnn.allow_tf32,
        torch.backends.cudnn.benchmark,
        *kernels,
    )


@pytest.mark.parametrize(("tf32", "precision"), [(True, "high"), (False, "highest")])
@pytest.mark.parametrize("benchmark", [True, False])
def test_the_switches_of_a_gpu_hold_inside_and_are_put_back(tf32: bool, precision: str, benchmark: bool) -> None:
    before = flags()
    settings = SpeedSettings(tf32=tf32, cudnn_benchmark=benchmark)
    with switched(settings, torch.device("cuda")):
        assert flags()[:3] == (precision, tf32, benchmark)
    assert flags() == before


def test_they_are_put_back_after_an_error_too() -> None:
    before = flags()

    def fail() -> None:
        with switched(SpeedSettings(attention="eager"), torch.device("cuda")):
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert flags() == before


def test_a_cpu_keeps_its_products_exact() -> None:
    before = flags()
    with switched(SpeedSettings(tf32=True, cudnn_benchmark=True), CPU):
        assert flags() == before
    assert flags() == before


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_eager_attention_leaves_plain_products_only(device: str) -> None:
    before = flags()
    with switched(SpeedSettings(attention="eager"), torch.device(device)):
        assert flags()[3:] == (False, False, True)
    with switched(SpeedSettings(attention="fused"), torch.device(device)):
        assert flags()[3:] == before[3:]
    assert flags() == before


def test_the_compiler_may_still_read_the_precision_inside() -> None:
    with switched(SpeedSettings(), torch.device("cuda")):
        torch.get_float32_matmul_precision()
        assert torch.backends.cuda.matmul.fp32_precision == "tf32"
