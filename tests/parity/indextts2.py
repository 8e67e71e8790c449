"""IndexTTS-2 cases: recognised by their inputs, built from their own `config`, filled by the rule of fill.py."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from tests.parity import fill
from tts_kernel.audio.spectrogram import LogMel, PowerLogMel
from tts_kernel.models.indextts2.config import config_from_mapping
from tts_kernel.models.indextts2.generation import Sampling, code_latents, generate
from tts_kernel.models.indextts2.gpt import DurationMode, UnifiedVoice
from tts_kernel.optim.schedules import reversal_ramp, wsd, wsd_decay_steps

Case = dict[str, Any]
Arrays = dict[str, np.ndarray]
POSITION_TABLE = "embed.pos_enc.pe"  # filled like a weight in plain outputs, kept as computed in out_sinpe_*


def recognise(case: Case, arrays: Arrays) -> Callable[[Case, Arrays], Arrays] | None:
    """The function that computes this case's outputs, or None if it is another family's."""
    if {"in_spk_feats", "in_codes"} <= arrays.keys():
        return gpt
    if {"in_spk_feats", "in_pad_text_ids"} <= arrays.keys():
        return generation
    if {"in_mel", "in_condition", "in_labels"} <= arrays.keys():
        return reversal
    if {"in_step", "out_exponential"} <= arrays.keys():
        return ramp
    if arrays.keys() >= {f"in_step_{run}" for run in case.get("params", {}).get("runs", {"?": 0})}:
        return schedule
    if {"in_wave", "out_fork_logmel"} <= arrays.keys():
        return mel
    if not arrays and any(name == "speed_emb.weight" for name, *_ in case.get("state", [])):
        return layout
    return None


def build(case: Case, sinusoids: bool) -> UnifiedVoice:
    """The case's model with regenerated weights; `sinusoids` keeps the computed position tables."""
    model = UnifiedVoice(config_from_mapping(case["config"]), reference_padding=True).eval()
    expected = {name: tuple(shape) for name, shape, _ in case["state"]}
    found = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    if expected != found:
        raise ValueError(f"state differs from the record: {sorted(set(expected.items()) ^ set(found.items()))[:6]}")
    tables = {name: value.clone() for name, value in model.state_dict().items() if name.endswith(POSITION_TABLE)}
    fill.fill(model)
    if sinusoids:
        model.load_state_dict(tables, strict=False)
    return model


def record_outputs(outputs: Arrays, named: dict[str, nn.Module]) -> list[Any]:
    """Write what each module returns under its name, by forward hooks; the caller removes them."""

    def keep(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            first = output if isinstance(output, Tensor) else getattr(output, "last_hidden_state", output[0])
            outputs[name] = first.detach().numpy()

        return hook

    return [module.register_forward_hook(keep(name)) for name, module in named.items()]


def branch(model: UnifiedVoice, prefix: str, features: Tensor, lengths: Tensor) -> tuple[Tensor, Arrays]:
    """The speaker ("spk") or emotion ("emo") conditioner with everything it passes through."""
    speaker = prefix == "spk"
    encoder = model.conditioning_encoder if speaker else model.emo_conditioning_encoder
    perceiver = model.perceiver_encoder if speaker else model.emo_perceiver_encoder
    outputs: Arrays = {}
    first = encoder.encoders[0]
    named: dict[str, nn.Module] = {
        f"{prefix}_embed": encoder.embed,
        f"{prefix}_block0_attn": first.self_attn,
        f"{prefix}_block0_conv": first.conv_module,
        f"{prefix}_block0_ff": first.feed_forward,
        f"{prefix}_conformer": encoder.after_norm,
        f"{prefix}_perc_context": perceiver.proj_context,
    }
    named |= {f"{prefix}_block{i}": block for i, block in enumerate(encoder.encoders)}
    for i, (attend, feed_forward) in enumerate(perceiver.layers):
        named |= {f"{prefix}_perc{i}_attn": attend, f"{prefix}_perc{i}_ff": feed_forward}
    if not speaker:
        named["emovec_layer"] = model.emovec_layer
    hooks = record_outputs(outputs, named)
    if speaker:
        result = model.speaker_latents(features, lengths)
        outputs["spk_latents"] = result.numpy()
    else:
        with_norm = record_outputs(outputs, {"emo_perceiver": perceiver.norm})
        result = model.emotion_vector(features, lengths)
        outputs["emo_perceiver"] = outputs["emo_perceiver"][:, 0]
        outputs["emo_vec"] = result.numpy()
        hooks += with_norm
    for hook in hooks:
        hook.remove()
    outputs[f"{prefix}_mask"] = encoder(features, lengths)[1].numpy()[:, None]
    return result, outputs


def losses(model: UnifiedVoice, conditions: Tensor, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    """Mean text loss, mean code loss and top-1 over real positions."""
    said = model(conditions, batch["text_ids"], batch["text_lens"], batch["codes"], batch["code_lens"])
    hits = (said.code_logits.argmax(-1) == said.code_targets).float().mean()
    return (
        cross_entropy(said.text_logits, said.text_targets),
        cross_entropy(said.code_logits, said.code_targets),
        hits,
    )


def tensors(arrays: Arrays) -> dict[str, Tensor]:
    return {name[3:]: torch.from_numpy(value) for name, value in arrays.items() if name.startswith("in_")}


def wanted(computed: Arrays, arrays: Arrays, prefix: str) -> Arrays:
    """Only what the record has under `prefix`."""
    return {prefix + name: value for name, value in computed.items() if prefix + name in arrays}


@torch.no_grad()
def gpt(case: Case, arrays: Arrays) -> Arrays:
    outputs: Arrays = {}
    for prefix, sinusoids in (("out_", False), ("out_sinpe_", True)):
        model, batch, ours = build(case, sinusoids), tensors(arrays), {}
        latents, speaker = branch(model, "spk", batch["spk_feats"], batch["spk_lens"])
        emotion, emotional = branch(model, "emo", batch["emo_feats"], batch["emo_lens"])
        ours |= speaker | emotional
        base = model.emotion_vector(batch["spk_feats"], batch["spk_lens"])
        for alpha in case["params"]["alphas"]:
            ours[f"merge_{round(100 * alpha):03d}"] = torch.lerp(base, emotion, alpha).numpy()
        row = case["params"]["alone"]
        alone = {}
        for name in ("spk", "emo"):
            length = batch[f"{name}_lens"][row : row + 1]
            alone[name] = (batch[f"{name}_feats"][row : row + 1, : int(length)], length)
        ours["alone_spk_latents"] = model.speaker_latents(*alone["spk"]).numpy()
        ours["alone_emo_vec"] = model.emotion_vector(*alone["emo"]).numpy()

        text, codes = (batch["text_ids"], batch["text_lens"]), (batch["codes"], batch["code_lens"])
        config = model.config
        text_inputs = model._framed(*text, config.start_text_token, config.stop_text_token)
        code_inputs = model._framed(*codes, config.start_mel_token, config.stop_mel_token)
        for name, inputs, stop in (
            ("text", text_inputs, config.stop_text_token),
            ("mel", code_inputs, config.stop_mel_token),
        ):
            ours[f"{name}_inputs"] = inputs.numpy()
            ours[f"{name}_targets"] = nn.functional.pad(inputs[:, 1:], (0, 1), value=stop).numpy()
        text_emb, mel_emb = model.embed_text(*text), model.embed_codes(*codes)
        ours |= {"text_emb": text_emb.numpy(), "mel_emb": mel_emb.numpy()}
        modes: list[DurationMode] = ["binary", "length"]
        for mode in modes:
            conditions = model.conditions(latents, emotion, batch["code_lens"], mode)
            prefix_length = conditions.shape[1]
            inside: Arrays = {}
            named: dict[str, nn.Module] = {f"gpt_block{i}": block for i, block in enumerate(model.gpt.h)}
            hooks = record_outputs(inside, named | {"gpt_ln_f": model.gpt.ln_f})
            hidden = model.hidden(
                conditions, text_emb, mel_emb, model.layout(batch["text_lens"], batch["code_lens"], prefix_length)
            )[:, prefix_length:]
            for hook in hooks:
                hook.remove()
            if mode == "binary":
                ours |= inside | {"gpt_final": hidden.numpy()}
            split = text_emb.shape[1]
            text_loss, code_loss, top1 = losses(model, conditions, batch)
            ours |= {
                f"{mode}_conds": conditions.numpy(),
                f"{mode}_text_logits": model.text_head(hidden[:, :split]).transpose(1, 2).numpy(),
                f"{mode}_mel_logits": model.mel_head(hidden[:, split:]).transpose(1, 2).numpy(),
                f"{mode}_text_loss": text_loss.numpy(),
                f"{mode}_mel_loss": code_loss.numpy(),
                f"{mode}_mel_top1": top1.numpy(),
            }
        outputs |= wanted(ours, arrays, prefix)
    return outputs


@torch.no_grad()
def generation(case: Case, arrays: Arrays) -> Arrays:
    outputs: Arrays = {}
    params = case["params"]
    for prefix, sinusoids in (("out_", False), ("out_sinpe_", True)):
        model, given, ours = build(case, sinusoids), tensors(arrays), {}
        speech, emotion = given["spk_feats"], given["emo_feats"]

        def vector(features: Tensor, model: UnifiedVoice = model) -> Tensor:
            return model.emotion_vector(features, torch.tensor([features.shape[1]]))

        latents = model.speaker_latents(speech, torch.tensor([speech.shape[1]]))
        merged = torch.lerp(vector(speech), vector(emotion), params["alpha"])
        conditions = model.conditions(latents, merged)
        text = given["text_ids"][0].long()
        limit = params["max_generate_length"]
        runs = {
            "": Sampling(max_codes=limit, skip_first_position=True),
            "nokv_": Sampling(max_codes=limit),
            "rp10_": Sampling(
                max_codes=limit, skip_first_position=True, repetition_penalty=10.0, penalize_placeholders=True
            ),
        }
        for name, sampling in runs.items():
            made = generate(model, conditions, [text], sampling)
            stop = [model.config.stop_mel_token] if made.stopped[0] else []
            ours |= {
                f"{name}codes": np.array([made.codes[0].tolist() + stop]),
                f"{name}step_logits": made.step_logits[0].numpy(),
                f"{name}latent": code_latents(model, conditions, text, made.codes[0]).numpy(),
            }
        embeds, mask = model.prompt(conditions, [text])
        padded = [row[row != model.config.stop_text_token] for row in given["pad_text_ids"]]
        pad_embeds, pad_mask = model.prompt(conditions.expand(len(padded), -1, -1), padded)
        for name, these, real in (("", embeds, mask), ("pad_", pad_embeds, pad_mask)):
            # The reference appends the start token's place to ids and mask; its ids are placeholders.
            ids = np.ones((len(these), these.shape[1] + 1), dtype=np.int64)
            ids[:, -1] = model.config.start_mel_token
            ours |= {
                f"{name}prompt_embeds": these.numpy(),
                f"{name}prompt_ids": ids,
                f"{name}prompt_mask": np.pad(real.numpy().astype(np.int64), ((0, 0), (0, 1)), constant_values=1),
            }
        ours |= {"spk_latents": latents.numpy(), "emo_vec": merged.numpy(), "prompt_conds": conditions.numpy()}
        outputs |= wanted(ours, arrays, prefix)
    return outputs


def reversal(case: Case, arrays: Arrays) -> Arrays:
    outputs: Arrays = {}
    params = case["params"]
    for prefix, sinusoids in (("out_", False), ("out_sinpe_", True)):
        model, batch, ours = build(case, sinusoids), tensors(arrays), {}
        hidden, mask = model.emo_conditioning_encoder(batch["mel"], batch["mel_lens"])
        ours |= {"conformer": hidden.detach().numpy(), "mask": mask.numpy()[:, None]}
        masked = model.emotion_vector(batch["mel"], batch["mel_lens"])
        ours["emo_vec_masked"] = masked.detach().numpy()

        def forward(labels: Tensor, strength: float, model: UnifiedVoice = model, batch: Any = batch) -> dict:
            model.zero_grad()
            model.reversal.strength = strength
            emotion = model.emotion_vector(batch["mel"], batch["mel_lens"], mask_perceiver=False)
            text, code, _ = losses(model, model.conditions(batch["condition"], emotion), batch)
            logits = model.speaker_logits(emotion)
            known = labels >= 0
            speaker = cross_entropy(logits, labels, ignore_index=-1, reduction="sum") / known.sum().clamp(min=1)
            accuracy = ((logits.argmax(-1) == labels) & known).sum() / known.sum().clamp(min=1)
            return {
                "emo_vec": emotion,
                "speaker_logits": logits,
                "text_loss": text,
                "mel_loss": code,
                "speaker_loss": speaker,
                "speaker_acc": accuracy,
            }

        def gradients(name: str, loss: Tensor, model: UnifiedVoice = model, ours: Arrays = ours) -> None:
            loss.backward()
            found = {
                key: torch.zeros_like(value) if value.grad is None else value.grad
                for key, value in model.named_parameters()
            }
            squares = {key: float(value.double().square().sum()) for key, value in found.items()}
            groups = [
                sum(square for key, square in squares.items() if group == "all parameters" or key.startswith(group))
                for group in params["grad_groups"]
            ]
            ours[f"{name}_group_norms"] = np.sqrt(groups)
            ours[f"{name}_param_norms"] = np.sqrt([squares[key] for key in params["grad_params"]])
            for entry, place in params["grad_entries"].items():
                key, index = re.fullmatch(r"([\w.]+)\[(.*)\]", place).groups()  # type: ignore[union-attr]
                ours[f"{name}_g_{entry}"] = found[key][parse_index(index)].numpy()

        for name, strength in (("l00", 0.0), ("l05", 0.5), ("l10", 1.0)):
            said = forward(batch["labels"], strength)
            total = 0.2 * said["text_loss"] + 0.8 * said["mel_loss"] + 0.1 * said["speaker_loss"]
            gradients(name, total)
        ours |= {key: value.detach().numpy() for key, value in said.items()}
        gradients("speaker_only_l10", 0.1 * forward(batch["labels"], 1.0)["speaker_loss"])
        one_unknown = forward(batch["labels_one_unknown"], 1.0)["speaker_loss"]
        ours["speaker_loss_one_unknown"] = one_unknown.detach().numpy()
        gradients("unknown_speaker_only_l10", 0.1 * one_unknown)
        nobody = forward(torch.full_like(batch["labels"], -1), 1.0)["speaker_loss"]
        ours["speaker_loss_all_unknown"] = nobody.detach().numpy()
        outputs |= wanted(ours, arrays, prefix)
    return outputs


def parse_index(text: str) -> tuple[int | slice, ...]:
    """':4, 0, :' -> (slice(None, 4), 0, slice(None))."""

    def part(piece: str) -> int | slice:
        if ":" not in piece:
            return int(piece)
        return slice(*(int(bound) if bound.strip() else None for bound in piece.split(":")))

    return tuple(part(piece.strip()) for piece in text.split(","))


def ramp(case: Case, arrays: Arrays) -> Arrays:
    total = case["params"]["total"]
    return {
        name: np.array([reversal_ramp(int(step), total=total, ramp=name[4:]) for step in arrays["in_step"]])
        for name in arrays
        if name.startswith("out_")
    }


def schedule(case: Case, arrays: Arrays) -> Arrays:
    outputs = {}
    for name, run in case["params"]["runs"].items():
        decay = wsd_decay_steps(run["total"], run["warmup"], run["stable_ratio"])
        outputs[f"out_{name}"] = np.array(
            [
                wsd(int(step), warmup=run["warmup"], decay=decay, total=run["total"], floor=run["min_lr_ratio"])
                for step in arrays[f"in_step_{name}"]
            ]
        )
    return outputs


def mel(case: Case, arrays: Arrays) -> Arrays:
    official = case["params"]["official"]
    rate, sizes = official["sampling_rate"], (official["n_fft"], official["hop_size"], official["num_mels"])
    wave = torch.from_numpy(arrays["in_wave"])
    return {
        "out_fork_logmel": PowerLogMel(rate, *sizes).of_clip(arrays["in_wave"]),
        "out_official_mel": LogMel(rate, *sizes)(wave[None]).numpy(),
    }


def layout(case: Case, arrays: Arrays) -> Arrays:
    """Names and shapes of the full-size model, built without memory; 0 where every entry agrees."""

    def differing(config: dict[str, Any], state: dict[str, tuple[int, ...]]) -> np.ndarray:
        with torch.device("meta"):
            model = UnifiedVoice(config_from_mapping(config))
        found = {name: tuple(value.shape) for name, value in model.state_dict().items()}
        return np.array(len(set(found.items()) ^ set(state.items())))

    state = {name: tuple(shape) for name, shape, _ in case["state"]}
    outputs = {"names_and_shapes": differing(case["config"], state)}
    for title, difference in case.get("differences", {}).items():
        config = dict(case["config"])
        if match := re.search(r"number_text_tokens (\d+)", title):
            config["number_text_tokens"] = int(match[1])
        if match := re.search(r"num_speakers (\d+)", title):
            config["num_speakers"] = int(match[1])
        if match := re.search(r"emo_mel_input_size (\d+)", title):
            config["emo_mel_input_size"] = int(match[1])
        changed = state | {name: tuple(shape) for name, shape, _ in difference["changed"] + difference["added"]}
        for name in difference["removed"]:
            changed.pop(name if isinstance(name, str) else name[0])
        outputs[title] = differing(config, changed)
    return outputs
