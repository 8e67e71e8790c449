"""Notebook or YAML values -> a recipe's frozen settings; everything that is wrong with them in one error."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import fields
from typing import Any, TypeVar, get_type_hints

from pydantic import ConfigDict, ValidationError

Settings = TypeVar("Settings")

# For `@pydantic.dataclasses.dataclass(frozen=True, config=STRICT)`: unknown names are refused, "1e-4" is a number,
# and a run name that looks like a number stays a name.
STRICT = ConfigDict(extra="forbid", coerce_numbers_to_str=True, allow_inf_nan=False)

_SCALARS = (str, int, float, bool, type(None), list, tuple, dict)
_NOT_PARAMETERS = {"In", "Out"}  # IPython's own; names with a leading underscore never count
_PAPERMILL = {"PAPERMILL_INPUT_PATH", "PAPERMILL_OUTPUT_PATH"}  # from papermill --inject-paths


class SettingsError(ValueError):
    """Parameters that are misspelt, of the wrong type or out of range: all of them at once."""


def read_settings(cls: type[Settings], values: Mapping[str, Any]) -> Settings:
    """Build `cls` (a pydantic dataclass with the config STRICT) from a notebook's `globals()` or a YAML mapping.
    Modules, functions and names that start with an underscore are passed over; every other name must be a setting.
    Raises SettingsError listing each problem as `name: found, expected`."""
    known = {item.name for item in fields(cls)}  # type: ignore[arg-type]
    given = {
        name: value
        for name, value in values.items()
        if name in known
        or (
            isinstance(value, _SCALARS)
            and not name.startswith("_")
            and name not in _NOT_PARAMETERS
            and name not in _PAPERMILL
        )
    }
    kinds = get_type_hints(cls)
    problems = [
        f"{name}: found {value} (bool), expected a number"
        for name, value in given.items()
        if isinstance(value, bool) and name in known and kinds[name] in (int, float)
    ]
    try:
        settings = cls(**given)
        if not problems:
            return settings
    except ValidationError as error:
        problems += [line.strip() for item in error.errors() for line in _explain(item, known).splitlines()]
    raise SettingsError(
        f"{len(problems)} parameter{'s' * (len(problems) > 1)} cannot be used:\n  " + "\n  ".join(problems)
    )


def _explain(item: Any, known: set[str]) -> str:
    name = ".".join(str(part) for part in item["loc"])
    found = item["input"]
    if item["type"] in ("unexpected_keyword_argument", "extra_forbidden"):
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {near[0]}?" if near else "start its name with an underscore if it is a variable of yours"
        return f"{name}: not a parameter; {hint}"
    if item["type"] in ("missing", "missing_argument"):
        return f"{name}: not given, and it has no default"
    message = item["msg"].removeprefix("Value error, ")
    if item["type"] == "value_error" and not name:  # a check across fields: its message names them
        return message
    return f"{name}: found {found!r} ({type(found).__name__}). {message}"
