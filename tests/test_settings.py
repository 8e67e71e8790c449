from __future__ import annotations

import math
from typing import Annotated, Any, Literal

import pytest
from pydantic import Field, model_validator
from pydantic.dataclasses import dataclass

from tts_kernel.settings import STRICT, SettingsError, read_settings


@dataclass(frozen=True, config=STRICT)
class Example:
    run_name: str = ""
    stage: Literal[1, 2, 3] = 2
    batch_size: Annotated[int, Field(ge=1)] = 16
    learning_rate: Annotated[float, Field(gt=0)] = 2.0e-4
    shuffle: bool = True
    warmup_steps: int = 10
    total_steps: int = 100

    @model_validator(mode="after")
    def _consistent(self) -> Example:
        problems = []
        if self.warmup_steps > self.total_steps:
            problems.append(f"warmup_steps: found {self.warmup_steps}, expected at most {self.total_steps}")
        if self.stage == 3 and self.shuffle:
            problems.append("shuffle: found True in stage 3")
        if problems:
            raise ValueError("\n  ".join(problems))
        return self


@dataclass(frozen=True, config=STRICT)
class WithoutDefault:
    data: str
    epochs: int = 1


def refusal(**values: Any) -> str:
    with pytest.raises(SettingsError) as caught:
        read_settings(Example, values)
    return str(caught.value)


def test_given_values_replace_the_defaults_and_the_rest_stays() -> None:
    assert read_settings(Example, {"batch_size": 3, "shuffle": False}) == Example(batch_size=3, shuffle=False)
    assert read_settings(Example, {}) == Example()


def test_a_misspelt_parameter_is_refused_with_the_name_that_was_meant() -> None:
    assert "batchsize: not a parameter; did you mean batch_size?" in refusal(batchsize=4)


@pytest.mark.parametrize("value", [3, 0.5, "text", True, None, [1], (1,), {"a": 1}])
def test_an_unknown_variable_is_refused_with_a_way_out(value: object) -> None:
    text = refusal(zzz=value)
    assert text.startswith("1 parameter cannot be used:\n")
    assert "zzz: not a parameter; start its name with an underscore" in text


@pytest.mark.parametrize(
    ("values", "found"),
    [
        ({"batch_size": "sixteen"}, "batch_size: found 'sixteen' (str). Input should be a valid integer"),
        ({"batch_size": 1.5}, "batch_size: found 1.5 (float). Input should be a valid integer"),
        ({"learning_rate": [1]}, "learning_rate: found [1] (list). Input should be a valid number"),
        ({"shuffle": "perhaps"}, "shuffle: found 'perhaps' (str). Input should be a valid boolean"),
        ({"run_name": None}, "run_name: found None (NoneType). Input should be a valid string"),
        ({"batch_size": math}, "batch_size: found <module 'math'"),
    ],
)
def test_a_wrong_type_is_named_with_what_was_found_and_expected(values: dict[str, Any], found: str) -> None:
    assert found in refusal(**values)


@pytest.mark.parametrize(
    ("values", "found"),
    [
        ({"batch_size": 0}, "batch_size: found 0 (int). Input should be greater than or equal to 1"),
        ({"learning_rate": 0.0}, "learning_rate: found 0.0 (float). Input should be greater than 0"),
        ({"learning_rate": math.nan}, "learning_rate: found nan (float). Input should be a finite number"),
        ({"learning_rate": math.inf}, "learning_rate: found inf (float). Input should be a finite number"),
        ({"stage": 4}, "stage: found 4 (int). Input should be 1, 2 or 3"),
    ],
)
def test_a_value_out_of_range_is_named_with_what_was_found_and_expected(values: dict[str, Any], found: str) -> None:
    assert found in refusal(**values)


def test_all_problems_come_in_one_error() -> None:
    text = refusal(batch_size=0, learning_rate="fast", batchsize=1, stage=9)
    assert text.startswith("4 parameters cannot be used:\n")
    for name in ("batch_size: found 0", "learning_rate: found 'fast'", "batchsize: not", "stage: found 9"):
        assert f"\n  {name}" in text


def test_problems_across_fields_are_listed_and_counted_one_by_one() -> None:
    text = refusal(stage=3, warmup_steps=101)
    assert text.splitlines() == [
        "2 parameters cannot be used:",
        "  warmup_steps: found 101, expected at most 100",
        "  shuffle: found True in stage 3",
    ]


def test_a_parameter_without_a_value_or_default_is_named() -> None:
    with pytest.raises(SettingsError, match=r"1 parameter cannot be used:\n  data: not given, and it has no default$"):
        read_settings(WithoutDefault, {"epochs": 2})


def test_a_number_in_yaml_that_is_read_as_text_is_a_number() -> None:
    assert read_settings(Example, {"learning_rate": "1e-4"}).learning_rate == 1e-4
    assert read_settings(Example, {"batch_size": "8"}).batch_size == 8


def test_a_run_name_that_looks_like_a_number_stays_a_name() -> None:
    assert read_settings(Example, {"run_name": 20240301}).run_name == "20240301"


def test_what_a_notebook_has_beside_its_parameters_is_passed_over() -> None:
    notebook = {
        "_private": 1,
        "__name__": "__main__",
        "_": [2],
        "_i3": "code",
        "In": ["", "code"],
        "Out": {1: 2},
        "PAPERMILL_INPUT_PATH": "a.ipynb",
        "PAPERMILL_OUTPUT_PATH": "b.ipynb",
        "math": math,
        "helper": refusal,
        "Example": Example,
        "exit": object(),
        "batch_size": 5,
    }
    assert read_settings(Example, notebook) == Example(batch_size=5)
