"""Values of a published configuration as the types that ours has."""

from __future__ import annotations

from typing import Any


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
