from __future__ import annotations

import pytest
import torch

from tts_kernel.training.speed import autocast, choose_device

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
