"""Pipelines from YAML, in our layout or in CosyVoice's own files, read for their values: no tag runs anything.

    train_data_pipeline:                 data_pipeline: [!ref <parquet_opener>, !ref <filter>, ...]
      - processor: filter                filter: !name:cosyvoice.dataset.processor.filter
        conf: {max_length: 40960}            max_length: 40960

`!new:`, `!name:` and `!apply:` become the name of what they would call and its arguments, `!ref <key>` the value of the
key. Any other tag is refused, a key that occurs twice as well, which YAML would settle in silence.
"""

from __future__ import annotations

import re
from collections.abc import Hashable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import yaml

from tts_kernel.data.pipeline.processors import Pipeline, PipelineError, build

OURS, UPSTREAM = "train_data_pipeline", "data_pipeline"
_PROCESSORS = "cosyvoice.dataset.processor."
_LARGEST = 10_000  # values of a file with aliases and references written out, which a few letters stand for
_PRODUCT = re.compile(r"<([\w.]+)>(?:\s*\*\s*<([\w.]+)>)?")


@dataclass(frozen=True)
class Call:
    """What a tag would call, and with what."""

    target: str
    values: Any


@dataclass(frozen=True)
class Reference:
    """`<key>`, or a product of two."""

    text: str


class _Values(yaml.SafeLoader):
    """YAML's plain values, and upstream's tags as records."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in seen:
                    raise yaml.constructor.ConstructorError(
                        None, None, f"key {key.value!r} occurs twice; remove one", key.start_mark
                    )
                seen.add(key.value)
        return super().construct_mapping(node, deep)


def _call(loader: _Values, target: str, node: yaml.Node) -> Call:
    if isinstance(node, yaml.MappingNode):
        return Call(target, loader.construct_mapping(node, deep=True))
    if isinstance(node, yaml.SequenceNode):
        return Call(target, loader.construct_sequence(node, deep=True))
    return Call(target, {})


def _reference(loader: _Values, node: yaml.Node) -> Reference:
    if not isinstance(node, yaml.ScalarNode):
        _refuse(loader, node)
    return Reference(str(node.value))


def _refuse(loader: _Values, node: yaml.Node) -> NoReturn:
    raise yaml.constructor.ConstructorError(
        None, None, f"tag {node.tag!r} would run code or read other files; write the value itself", node.start_mark
    )


for _tag in ("!new:", "!name:", "!apply:"):
    _Values.add_multi_constructor(_tag, _call)
_Values.add_constructor("!ref", _reference)
_Values.add_constructor(None, _refuse)


def read_pipeline(path: Path) -> Pipeline:
    """Read `train_data_pipeline` of a YAML file, or `data_pipeline` of CosyVoice's own. Raises PipelineError naming the
    file and every problem: no such list, a tag that is none of upstream's, an unknown processor or setting."""
    path = Path(path)
    try:
        values = yaml.load(path.read_text(encoding="utf-8"), Loader=_Values)
    except OSError as error:
        why = "no such file" if isinstance(error, FileNotFoundError) else str(error.strerror).lower()
        raise PipelineError(f"{path}: {why}; expected a YAML file with {OURS} or {UPSTREAM}") from error
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise PipelineError(f"{path}: nothing was run; {' '.join(str(error).split())}") from error
    return parse_pipeline(values, str(path))


def parse_pipeline(values: Any, source: str) -> Pipeline:
    """The same from the values that the file holds."""
    values = values if isinstance(values, dict) else {}
    if _size(values, values, {}) > _LARGEST:
        raise PipelineError(f"{source}: more than {_LARGEST:,} values, or some in a circle; write the values out")
    found = values.get(OURS, values.get(UPSTREAM))
    if not isinstance(found, list) or not found:
        raise PipelineError(f"{source}: no list {OURS} or {UPSTREAM}; expected processors, each with its conf")
    layout, problems = [], []
    for number, item in enumerate(found, start=1):
        try:
            layout.append(_processor(item, values))
        except PipelineError as error:
            problems.append(f"entry {number}: {error}")
    return build(layout, source, problems)


def _size(value: Any, values: dict[str, Any], known: dict[int, int]) -> int:
    """How many values it holds, those behind an alias or a reference each time."""
    inner = value.values if isinstance(value, Call) else value
    if not isinstance(inner, dict | list | Reference):
        return 1
    if id(inner) not in known:
        known[id(inner)] = _LARGEST  # met again within itself: endless
        if isinstance(inner, Reference):
            inside: Iterable[Any] = [values[key] for key in _keys(inner) if key in values]
        else:
            inside = inner.values() if isinstance(inner, dict) else inner
        known[id(inner)] = 1 + sum(_size(each, values, known) for each in inside)
    return known[id(inner)]


def _keys(reference: Reference) -> list[str]:
    """One, or the two of a product; none where it is something else."""
    match = _PRODUCT.fullmatch(reference.text.strip())
    return [key for key in match.groups() if key] if match else []


def _processor(item: Any, values: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    if isinstance(item, Reference):
        name = item.text.strip("<> ")
        if not isinstance(values.get(name), Call):
            raise PipelineError(f"!ref {item.text}: no processor of that name in the file")
        item = values[name]
    if isinstance(item, Call):
        if not item.target.startswith(_PROCESSORS):
            raise PipelineError(f"{item.target} is no processor; expected {_PROCESSORS}<name>")
        return item.target.removeprefix(_PROCESSORS), _plain(item.values, values) or {}
    if not isinstance(item, dict) or not isinstance(item.get("processor"), str):
        raise PipelineError(f"{item!r:.80}: expected a processor and its conf")
    more = sorted(map(str, item.keys() - {"processor", "conf"}))
    if more:
        raise PipelineError(f"processor {item['processor']}: unknown key {', '.join(more)}; settings belong under conf")
    return item["processor"], _plain(item.get("conf") or {}, values)


def _plain(value: Any, values: dict[str, Any]) -> Any:
    """References resolved, calls as mappings with the name of what they would call."""
    if isinstance(value, Reference):
        keys = _keys(value)
        if not keys or any(key not in values for key in keys):
            raise PipelineError(f"!ref {value.text}: no such value in the file")
        found = [_plain(values[key], values) for key in keys]
        if len(found) == 1:
            return found[0]
        if not all(isinstance(factor, int | float) for factor in found):
            raise PipelineError(f"!ref {value.text}: found {found[0]!r:.40} and {found[1]!r:.40}, expected two numbers")
        return found[0] * found[1]
    if isinstance(value, Call):
        inside = _plain(value.values, values)
        return {"name": value.target, **inside} if isinstance(inside, dict) else {"name": value.target, "of": inside}
    if isinstance(value, dict):
        return {key: _plain(inner, values) for key, inner in value.items()}
    if isinstance(value, list):
        return [_plain(inner, values) for inner in value]
    return value
