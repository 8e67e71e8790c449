"""The families' recipes by name."""

from __future__ import annotations

import difflib
import importlib
import pkgutil
from types import ModuleType

from tts_kernel import recipes
from tts_kernel.settings import SettingsError


def recipe_names() -> list[str]:
    return sorted(module.name for module in pkgutil.iter_modules(recipes.__path__) if module.ispkg)


def nearest_recipe(name: str) -> str:
    """The name that was meant, empty where none is near."""
    known = recipe_names()
    return name if name in known else next(iter(difflib.get_close_matches(name, known, n=1)), "")


def recipe_named(name: str) -> ModuleType:
    """`tts_kernel.recipes.<name>`. Raises SettingsError for an unknown name."""
    if name not in recipe_names():
        near = nearest_recipe(name)
        hint = f"did you mean {near}?" if near else f"expected one of {', '.join(recipe_names())}"
        raise SettingsError(f"recipe: found {name!r}; {hint}")
    return importlib.import_module(f"{recipes.__name__}.{name}")
