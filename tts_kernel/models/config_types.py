"""Values of a published configuration as the types that ours has, and what every configuration of a model checks."""

from __future__ import annotations

from dataclasses import fields
from typing import Any


class ConfigError(ValueError):
    """A model configuration with unknown keys, wrong types, or sizes that contradict each other."""


def typed(value: Any, default: Any, name: str, problems: list[str]) -> Any:
    """`value` as its default's type; lists become tuples."""
    if isinstance(default, tuple):
        if not isinstance(value, (list, tuple)) or not value:
            problems.append(f"{name} is {value!r}, expected a list")
            return default
        return tuple(typed(item, default[0], name, problems) for item in value)
    allowed = (int, float) if isinstance(default, float) else int
    if isinstance(value, bool) or not isinstance(value, allowed):
        problems.append(f"{name} is {value!r}, expected {'a number' if isinstance(default, float) else 'an integer'}")
        return default
    return value


def below_one(config: Any, but: tuple[str, ...] = ()) -> list[str]:
    """Integers of `config`, in its lists too, that are below 1."""

    def numbers(value: Any) -> list[int]:
        if isinstance(value, tuple):
            return [number for item in value for number in numbers(item)]
        return [value] if isinstance(value, int) else []

    return [
        f"{item.name} is {getattr(config, item.name)}, expected at least 1"
        for item in fields(config)
        if item.name not in but and min(numbers(getattr(config, item.name)), default=1) < 1
    ]


def no_shares(config: Any, ending: str) -> list[str]:
    """Settings whose name ends so and that are no share in [0, 1)."""
    return [
        f"{item.name} is {getattr(config, item.name)}, expected at least 0 and below 1"
        for item in fields(config)
        if item.name.endswith(ending) and not 0 <= getattr(config, item.name) < 1
    ]


def refuse(problems: list[str]) -> None:
    """Raise ConfigError with all of them, if there are any."""
    if problems:
        raise ConfigError("; ".join(problems))
