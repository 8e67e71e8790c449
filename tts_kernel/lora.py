"""LoRA adapters by peft: attached to a model, saved beside it, merged into its weights under its own names, taken out.

An adapter belongs to the weights that it was trained on. A folder of one holds

adapter_config.json, adapter_model.safetensors   peft's own, which `PeftModel.from_pretrained` reads too
base.json                                        name and digest of those weights, and the digest of them merged

Sources: Hu et al. 2021 (arXiv 2106.09685), rank-stabilised scaling arXiv 2312.03732, DoRA arXiv 2402.09353.
"""

from __future__ import annotations

import hashlib
import json
import logging
import warnings
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tts_kernel.models.weights import read_checkpoint
from tts_kernel.runs import write_atomically
from tts_kernel.training.checkpoints import save as save_checkpoint

log = logging.getLogger(__name__)

CONFIG, TENSORS, BASE = "adapter_config.json", "adapter_model.safetensors", "base.json"
_MUST_AGREE = ("rank", "alpha", "rslora", "dora", "targets", "full")  # between an adapter's file and where it goes
_TOLD = {"r", "lora_alpha", "lora_dropout", "use_rslora", "use_dora", "target_modules", "modules_to_save"}  # by a Lora
_ABOUT = {"task_type", "auto_mapping", "peft_version", "base_model_name_or_path", "revision", "inference_mode"}


class LoraError(ValueError):
    """An adapter that does not belong to these weights, or cannot be merged into them; the message names both."""


@dataclass(frozen=True)
class Lora:
    """The shape of an adapter."""

    targets: tuple[str, ...]  # linear layers by the ends of their names
    rank: int = 16
    alpha: int = 32  # the product is scaled by alpha / rank
    dropout: float = 0.0  # on what the adapter reads
    rslora: bool = False  # alpha / sqrt(rank) instead: higher ranks keep their effect
    dora: bool = False  # the weight's length is learned apart from its direction
    full: tuple[str, ...] = ()  # modules by the ends of their names that are trained whole

    def __post_init__(self) -> None:
        for name in ("targets", "full"):  # their order means nothing, and files have it sorted
            object.__setattr__(self, name, tuple(sorted(getattr(self, name))))


@dataclass(frozen=True)
class Base:
    """The weights that an adapter was trained on."""

    name: str  # for people
    digest: str
    merged: str = ""  # digest of the same weights with the adapter in them, once it has been merged


class Adapted(nn.Module):
    """A model whose layers carry an adapter; only that is trained, and only that is in the state dict."""

    def __init__(self, model: nn.Module, lora: Lora, base: str = "") -> None:
        """`base` names the weights that `model` has. Raises LoraError with everything that is wrong with the shape:
        numbers out of range, targets without a layer; and for a model that carries an adapter already."""
        _check(model, lora)
        super().__init__()
        from peft import LoraConfig, get_peft_model

        self.lora, self.base = lora, Base(base, digest(model.state_dict()))
        config = LoraConfig(
            r=lora.rank,
            lora_alpha=lora.alpha,
            lora_dropout=lora.dropout,
            use_rslora=lora.rslora,
            use_dora=lora.dora,
            target_modules=list(lora.targets),
            modules_to_save=list(lora.full) or None,
        )
        self.peft: Any = get_peft_model(model, config)
        self.merged = False
        self.register_state_dict_post_hook(_keep_trained)
        self.register_load_state_dict_post_hook(_miss_trained_only)

    @property
    def model(self) -> Any:
        """The model itself, which computes with the adapter."""
        return self.peft.get_base_model()

    def forward(self, *arguments: Any, **options: Any) -> Any:
        return self.model(*arguments, **options)

    def trained(self) -> set[str]:
        """Names of what is trained."""
        return {name for name, parameter in self.named_parameters() if parameter.requires_grad}

    def save(self, folder: Path) -> None:
        """Write the adapter's folder."""
        folder = Path(folder)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # peft looks for a configuration of the base that a plain module has not
            self.peft.save_pretrained(str(folder), save_embedding_layers=False)
        (folder / "README.md").unlink(missing_ok=True)  # an empty model card
        write_atomically(folder / BASE, json.dumps(asdict(self.base), indent=1, ensure_ascii=False) + "\n")

    def load(self, folder: Path) -> None:
        """Take the values of an adapter's folder. Raises LoraError listing how the adapter there differs from this one:
        another base, one that holds it already, another rank; and while this one is merged."""
        from peft import set_peft_model_state_dict

        folder = Path(folder)
        found = read_lora(folder)
        problems = [
            f"{name}: {getattr(found, name)} there, {getattr(self.lora, name)} here"
            for name in _MUST_AGREE
            if getattr(found, name) != getattr(self.lora, name)
        ]
        problems += _other_base(folder, self.base)
        if self.merged:
            problems.append("another one is merged into these weights; unmerge it first")
        if problems:
            raise LoraError("\n  ".join([f"{folder}: the adapter does not fit:", *problems]))
        try:
            result: Any = set_peft_model_state_dict(self.peft, read_checkpoint(folder / TENSORS))
        except RuntimeError as error:  # shapes, all of them in torch's message
            raise LoraError(f"{folder / TENSORS}: {error}") from error
        own = {name.removeprefix("peft.") for name in self.trained()}
        lost = sorted(own & set(result.missing_keys)) + sorted(result.unexpected_keys)
        if lost:
            raise LoraError(f"{folder / TENSORS}: missing or unexpected: {', '.join(lost[:4])}; copy it again")

    def merge(self) -> None:
        """Add the adapter to the weights that it adapts; the model computes the same. Raises LoraError where that has
        been done, and for an adapter that is not finite, which leaves the weights as they were."""
        if self.merged:
            raise LoraError(f"the adapter is merged into {self.base.name or 'its base'} already; unmerge it first")
        own = dict(self.named_parameters())
        lost = [name for name in sorted(self.trained()) if not own[name].isfinite().all()]
        if lost:
            named = f"{', '.join(lost[:4])}{', ...' if len(lost) > 4 else ''}"
            raise LoraError(f"the adapter holds NaN or infinite values: {named}; take an earlier checkpoint of it")
        self.peft.base_model.merge_adapter()
        self.merged = True

    def unmerge(self) -> None:
        """Take it out again, up to rounding. Raises LoraError where it is not merged."""
        if not self.merged:
            raise LoraError(f"the adapter is not merged into {self.base.name or 'its base'}: nothing to take out")
        self.peft.base_model.unmerge_adapter()
        self.merged = False

    def whole(self) -> dict[str, Tensor]:
        """The merged weights under the names that the model had before it was adapted. Raises LoraError where the
        adapter is not merged."""
        if not self.merged:
            raise LoraError("whole weights are those of a merged adapter; call merge first")
        return _own_names(self.model.state_dict())

    def export(self, path: Path) -> None:
        """Write the whole weights, merged, as one flat file of nothing but tensors, which loads strictly. `save` after
        it remembers what they are, so that the adapter is not merged into them once more."""
        self.merge()
        try:
            whole = self.whole()
            self.base = replace(self.base, merged=digest(whole))
            save_checkpoint(Path(path), whole)
        finally:
            self.unmerge()


def opened(model: nn.Module, folder: Path, base: str = "") -> Adapted:
    """`model` with the adapter of a folder. Raises LoraError as `Adapted` and its `load` do."""
    lora = read_lora(folder)
    try:
        adapted = Adapted(model, lora, base)
    except LoraError as error:
        raise LoraError(f"{folder}: {error}") from error
    adapted.load(folder)
    return adapted


def read_lora(folder: Path) -> Lora:
    """The shape of the adapter in a folder. Raises LoraError where there is none, or one of another kind."""
    path = Path(folder) / CONFIG
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        strange = _strange(values)
        if strange:
            raise LoraError(f"{path}: {strange}: not of the adapters that are made here; merge it where it was made")
        return Lora(
            targets=tuple(values["target_modules"]),
            rank=values["r"],
            alpha=values["lora_alpha"],
            dropout=values["lora_dropout"],
            rslora=values["use_rslora"],
            dora=values["use_dora"],
            full=tuple(values["modules_to_save"] or ()),
        )
    except FileNotFoundError as error:
        raise LoraError(f"{path}: no such file; expected the folder of an adapter saved by peft") from error
    except LoraError:
        raise
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise LoraError(f"{path}: not the configuration of a LoRA adapter ({error!r}); save it again") from error


def _strange(values: Mapping[str, Any]) -> str:
    """What a configuration of peft's asks for that a `Lora` cannot say, and that would be lost."""
    from peft import LoraConfig

    plain = LoraConfig().to_dict()
    others = {name: value for name, value in values.items() if name not in _TOLD | _ABOUT}
    found = [name for name, value in others.items() if (value != plain[name] if name in plain else value)]
    found += ["target_modules"] if isinstance(values["target_modules"], str) else []  # a pattern
    return ", ".join(f"{name} {values[name]!r}" for name in sorted(found))


def digest(state: Mapping[str, Tensor]) -> str:
    """Of names and values, in whatever order."""
    found = hashlib.blake2b(digest_size=12)
    for name in sorted(state):
        value = state[name].detach()
        found.update(f"{name} {value.dtype} {list(value.shape)}".encode())
        if not value.is_meta:
            found.update(value.cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return found.hexdigest()


def _other_base(folder: Path, base: Base) -> list[str]:
    """What speaks against the adapter being for `base`."""
    try:
        theirs = Base(**json.loads((folder / BASE).read_text(encoding="utf-8")))
    except FileNotFoundError:
        log.warning("%s has no %s: whether the adapter belongs to these weights is not known", folder, BASE)
        return []
    except (ValueError, TypeError) as error:
        raise LoraError(f"{folder / BASE}: damaged ({error}); save the adapter again") from error
    if theirs.digest == base.digest:
        return []
    if theirs.merged == base.digest:
        return [f"base: merged into {base.name or 'these weights'} already; use them as they are, or {theirs.name}"]
    return [f"base: trained on {theirs.name} ({theirs.digest}), here are {base.name} ({base.digest})"]


def _check(model: nn.Module, lora: Lora) -> None:
    modules = dict(model.named_modules())
    if any(".lora_" in name for name in modules):
        raise LoraError("the model carries an adapter already; load its base again for another one")
    problems = []
    if lora.rank < 1:
        problems.append(f"rank: found {lora.rank}, expected 1 at least")
    if lora.alpha <= 0:
        problems.append(f"alpha: found {lora.alpha}, expected more than 0, which the adapter is scaled by")
    if not 0 <= lora.dropout < 1:
        problems.append(f"dropout: found {lora.dropout}, expected 0 to below 1")
    layers = [name for name, module in modules.items() if isinstance(module, nn.Linear)]
    lost = [end for end in lora.targets if not any(_ends(name, end) for name in layers)]
    lost += [end for end in lora.full if not any(_ends(name, end) for name in modules)]
    if lost or not lora.targets:
        said = ", ".join(lost) or "no targets"
        problems.append(
            f"{type(model).__name__} has no layers for {said}; name linear layers by the ends of their names"
        )
    if problems:
        raise LoraError("\n  ".join(["an adapter cannot have this shape:", *problems]))


def _ends(name: str, end: str) -> bool:
    return name == end or name.endswith(f".{end}")


def _own_names(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Of merged weights, without what peft has put in between."""
    return {
        name.replace(".base_layer.", ".").replace(".modules_to_save.default.", "."): value
        for name, value in state.items()
        if ".lora_" not in name and ".original_module." not in name
    }


def _keep_trained(module: nn.Module, state: dict[str, Any], prefix: str, metadata: Any) -> None:
    assert isinstance(module, Adapted)
    trained = {prefix + name for name in module.trained()}
    for name in [name for name in state if name.startswith(prefix) and name not in trained]:
        del state[name]


def _miss_trained_only(module: nn.Module, result: Any) -> None:
    assert isinstance(module, Adapted)
    trained = module.trained()
    result.missing_keys[:] = [name for name in result.missing_keys if any(name.endswith(own) for own in trained)]
