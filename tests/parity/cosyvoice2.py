"""CosyVoice2 cases: recognised by their inputs, built from their own `config`, filled by the rule of fill.py."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from tests.parity import fill
from tts_kernel.audio.spectrogram import LogMel, WhisperLogMel, speaker_fbank, whole_tokens
from tts_kernel.audio.wav import resample_sinc
from tts_kernel.models.cosyvoice2.config import FlowConfig, HiftConfig, LLMConfig
from tts_kernel.models.cosyvoice2.config_values import config_from_mapping
from tts_kernel.models.cosyvoice2.encoder import relative_positions
from tts_kernel.models.cosyvoice2.flow import TokenToMel, TrainingDraws
from tts_kernel.models.cosyvoice2.generation import (
    GREEDY,
    Sampling,
    candidates,
    generate,
    is_repeated,
    without,
)
from tts_kernel.models.cosyvoice2.hift import HiftGenerator
from tts_kernel.models.cosyvoice2.llm import SpeechLanguageModel
from tts_kernel.models.cosyvoice2.masks import attention_mask, real_positions
from tts_kernel.models.flow_matching import Draws
from tts_kernel.optim.schedules import learning_rate, warmup_lr

Case = dict[str, Any]
Arrays = dict[str, np.ndarray]


def recognise(case: Case, arrays: Arrays) -> Callable[[Case, Arrays], Arrays] | None:
    """The function that computes this case's outputs, or None if it is another family's."""
    for inputs, compute in (
        ({"in_text_token", "in_speech_token", "in_ras_scores"}, language_model),
        ({"in_est_x", "in_layer_x", "in_z"}, flow),
        ({"in_mel", "in_source", "in_sine_noise"}, vocoder),
    ):
        if inputs <= arrays.keys():
            return recorded_only(compute)
    if any(name.startswith("in_") and name.endswith("_24k") for name in arrays):
        return features
    if {"out_warmup_lr", "out_constant_lr"} <= arrays.keys():
        return schedule
    if not arrays and isinstance(case.get("state"), dict) and {"llm", "flow", "hift"} <= case["state"].keys():
        return layout
    return None


def recorded_only(compute: Callable[[Case, Arrays], Arrays]) -> Callable[[Case, Arrays], Arrays]:
    """A case may record fewer of a model's numbers than can be computed."""

    def computed(case: Case, arrays: Arrays) -> Arrays:
        return {name: value for name, value in compute(case, arrays).items() if name in arrays}

    return computed


def fitted(model: nn.Module, case: Case) -> nn.Module:
    """`model` in eval mode with regenerated weights. Raises ValueError if its names or shapes are not the case's."""
    expected = {name: tuple(shape) for name, shape, _ in case["state"]}
    found = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    if expected != found:
        raise ValueError(f"state differs from the record: {sorted(set(expected.items()) ^ set(found.items()))[:6]}")
    fill.fill(model)
    return model.eval()


def tensors(arrays: Arrays) -> dict[str, Tensor]:
    return {name[3:]: torch.from_numpy(value) for name, value in arrays.items() if name.startswith("in_")}


def on_real(arrays: Arrays, name: str, ours: Tensor, real: Tensor) -> Arrays:
    """Our values where they mean something, the recorded ones on padding, which the case leaves open."""
    return {name: np.where(real.numpy(), ours.detach().numpy(), arrays[name])} if name in arrays else {}


def gradients(model: nn.Module, loss: Tensor, named: dict[str, str], prefix: str) -> Arrays:
    """Gradients of `loss` by the case's name for a parameter, and their norm over all parameters."""
    model.zero_grad()
    loss.backward()
    found = {name: value.grad for name, value in model.named_parameters() if value.grad is not None}
    outputs = {f"{prefix}_grad_{short}": found[name].numpy() for short, name in named.items()}
    norm = np.sqrt(sum(float(value.double().square().sum()) for value in found.values()))
    return outputs | {f"{prefix}_grad_norm": np.asarray(norm)}


def language_model(case: Case, arrays: Arrays) -> Arrays:
    outputs: Arrays = {}
    model, given = SpeechLanguageModel(config_from_mapping(LLMConfig, case["config"])), tensors(arrays)
    fitted(model, case)
    batch = [given[f"{kind}_token{part}"] for kind in ("text", "speech") for part in ("", "_len")]
    watched = {
        "llm_embedding": "llm_embedding.weight",
        "speech_embedding": "speech_embedding.weight",
        "llm_decoder_bias": "llm_decoder.bias",
        "q_proj0": "llm.model.model.layers.0.self_attn.q_proj.weight",
        "embed_tokens": "llm.model.model.embed_tokens.weight",
    }
    for mode, interleave in (("uni", False), ("bi", True)):
        sequences = model.lay_out_batch(*batch, interleave=[interleave] * len(batch[0]))
        embedded, real = model.embed(sequences), sequences.real[..., None]
        logits = model.llm_decoder(model.hidden(embedded))
        said = model(sequences)
        outputs |= {
            f"out_{mode}_lm_input": embedded.masked_fill(~real, -1.0).detach().numpy(),
            f"out_{mode}_lm_target": sequences.targets.numpy(),
            f"out_{mode}_lm_input_len": sequences.lengths.numpy(),
            f"out_{mode}_loss": said.loss.detach().numpy(),
            f"out_{mode}_acc": said.accuracy.numpy(),
        }
        outputs |= on_real(arrays, f"out_{mode}_logits", logits, real)
        outputs |= gradients(model, said.loss, watched, f"out_{mode}")
    ratios = {name: float(value) for name, value in case["config"]["inference"].items()}
    greedy = Sampling(top_k=GREEDY.top_k, window=GREEDY.window, ends="any", **ratios)
    for name, prompt in (("plain", ()), ("prompt", (given["prompt_text"][0], given["prompt_speech_token"][0]))):
        made = generate(model, given["text"][0], *prompt, sampling=greedy)
        outputs[f"out_infer_{name}_tokens"] = made.tokens.numpy()
        outputs[f"out_infer_{name}_logits"] = made.step_logits.numpy()
    return outputs | repetition_aware_sampling(given["ras_scores"], given["ras_history"])


def repetition_aware_sampling(scores: Tensor, histories: Tensor) -> Arrays:
    """What is drawn from; draws return the likeliest, as they were made to in the record."""
    sampling = Sampling()
    rows: dict[str, list[Any]] = {name: [] for name in ("first", "first_size", "redrawn", "second", "chosen")}
    for row, history in zip(scores, histories, strict=True):
        tokens = [token for token in history.tolist() if token >= 0]
        probabilities, ids = candidates(row, sampling.top_p, sampling.top_k)
        token = int(ids[0])
        redrawn = is_repeated(token, tokens, sampling)
        second = without(row, token) if redrawn else torch.zeros_like(row)
        rows["first"].append(nn.functional.pad(probabilities, (0, sampling.top_k - len(ids))).numpy())
        rows["first_size"].append(len(ids))
        rows["redrawn"].append(int(redrawn))
        rows["second"].append(second.numpy())
        rows["chosen"].append(int(second.argmax()) if redrawn else token)
    return {f"out_ras_{name}": np.stack(values) for name, values in rows.items()}


class Calls:
    """What modules receive and return, call by call, while this is open."""

    def __init__(self, **modules: nn.Module) -> None:
        self.inputs: dict[str, list[tuple[Any, ...]]] = {name: [] for name in modules}
        self.outputs: dict[str, list[Tensor]] = {name: [] for name in modules}
        self.hooks = [module.register_forward_hook(self._keep(name)) for name, module in modules.items()]

    def _keep(self, name: str) -> Callable[..., None]:
        def hook(module: nn.Module, inputs: Any, output: Tensor) -> None:
            self.inputs[name].append(inputs)
            self.outputs[name].append(output.detach())

        return hook

    def __enter__(self) -> Calls:
        return self

    def __exit__(self, *error: object) -> None:
        for hook in self.hooks:
            hook.remove()


def flow(case: Case, arrays: Arrays) -> Arrays:
    outputs: Arrays = {}
    model, given = TokenToMel(config_from_mapping(FlowConfig, case["config"])), tensors(arrays)
    fitted(model, case)
    model.encoder.reference_padding = True
    for mode, streaming in (("full", False), ("stream", True)):
        outputs |= flow_training(model, given, arrays, mode, streaming)
        with torch.no_grad():
            estimated = model.decoder.estimator(
                *(given[f"est_{name}"] for name in ("x", "mask", "mu", "t", "spks", "cond")), streaming
            )
        outputs[f"out_est_{mode}"] = estimated.numpy()
    outputs |= first_layer(model, given, arrays)
    return outputs | flow_inference(model, given)


def flow_training(model: TokenToMel, given: dict[str, Tensor], arrays: Arrays, mode: str, streaming: bool) -> Arrays:
    prefix = f"out_train_{mode}"
    draws = TrainingDraws(streaming, given["prefix"], Draws(given["t"], given["z"], given["cfg_u"]))
    names = ("speech_token", "speech_token_len", "speech_feat", "speech_feat_len", "embedding")
    attention = model.encoder.encoders[0].self_attn  # type: ignore[union-attr]
    with Calls(project=model.encoder_proj, estimator=model.decoder.estimator, attention=attention) as calls:  # type: ignore
        said = model(*(given[name] for name in names), draws)
    y, mask, _, _, speaker, prompt, _ = calls.inputs["estimator"][0]
    frames = mask.transpose(1, 2) > 0
    outputs: Arrays = {f"{prefix}_loss": said.loss.detach().numpy()}
    outputs |= on_real(arrays, f"{prefix}_encoder", calls.inputs["project"][0][0], frames)
    outputs |= on_real(arrays, f"{prefix}_mu", calls.outputs["project"][0], frames)
    outputs |= on_real(arrays, f"{prefix}_pred", said.velocity, mask > 0)
    watched = {
        "spk_bias": "spk_embed_affine_layer.bias",
        "encoder_proj_bias": "encoder_proj.bias",
        "final_proj_weight": "decoder.estimator.final_proj.weight",
        "to_q0": "decoder.estimator.mid_blocks.0.1.0.attn1.to_q.weight",
        "pos_bias_u0": "encoder.encoders.0.self_attn.pos_bias_u",
    }
    outputs |= gradients(model, said.loss, watched, prefix)
    if not streaming:
        named = {"y": y, "mask": mask, "spks": speaker, "cond": prompt}
        outputs |= {f"out_train_{name}": value.detach().numpy() for name, value in named.items()}
        tokens = real_positions(given["speech_token_len"], given["speech_token"].shape[1])[..., None]
        outputs |= on_real(arrays, "out_attn0_input", calls.inputs["attention"][0][0], tokens)
        outputs |= on_real(arrays, "out_attn0", calls.outputs["attention"][0], tokens)
    return outputs


@torch.no_grad()
def first_layer(model: TokenToMel, given: dict[str, Tensor], arrays: Arrays) -> Arrays:
    x = given["layer_x"]
    real = real_positions(given["layer_len"], x.shape[1])
    positions = relative_positions(*x.shape[1:])
    made = model.encoder.encoders[0](x, positions, attention_mask(real))
    return {"out_layer_positions": positions.numpy()} | on_real(arrays, "out_layer", made, real[..., None])


def flow_inference(model: TokenToMel, given: dict[str, Tensor]) -> Arrays:
    outputs: Arrays = {}
    prompt = [given[f"infer_{name}"] for name in ("token", "prompt_token", "prompt_feat", "embedding")]
    for name, modes in (
        ("full", {}),
        ("stream_last", {"streaming": True}),
        ("stream_more", {"streaming": True, "more_to_come": True}),
    ):
        with Calls(project=model.encoder_proj, estimator=model.decoder.estimator) as calls:
            outputs[f"out_infer_{name}"] = model.infer(*prompt, **modes).numpy()
        outputs[f"out_infer_{name}_mu"] = calls.outputs["project"][0].numpy()
        if name == "full":
            outputs["out_infer_noise"] = calls.inputs["estimator"][0][0][:1].numpy()
            outputs["out_infer_t"] = np.array([float(inputs[3][0]) for inputs in calls.inputs["estimator"]])
            outputs["out_infer_first_velocity"] = calls.outputs["estimator"][0].numpy()
    return outputs


@torch.no_grad()
def vocoder(case: Case, arrays: Arrays) -> Arrays:
    model, given = HiftGenerator(config_from_mapping(HiftConfig, case["config"])), tensors(arrays)
    fitted(model, case)
    noise, f0 = given["sine_noise"], given["f0"]
    source, voiced = model.m_source(f0, noise)
    with Calls(post=model.conv_post) as calls:
        magnitude, phase = model.spectrum(given["mel"], given["source"])
    ours = {
        "f0": model.f0_predictor(given["mel"]),
        "conv_post": calls.outputs["post"][0],
        "wave_unclamped": model.inverse_stft(magnitude, phase),
        "wave": model.decode(given["mel"], given["source"]),
        "source": source.transpose(1, 2),
        "uv": voiced.transpose(1, 2),
        "source_noiseless": model.m_source(f0, torch.zeros_like(noise))[0].transpose(1, 2),
        "istft": model.inverse_stft(given["magnitude"], given["angle"]),
    }
    adjust = case["config"]["adjust"]
    model.conv_post.parametrizations.weight.original0 *= adjust["conv_post_gain_times"]  # type: ignore[union-attr]
    model.f0_predictor.classifier.bias += adjust["f0_bias_plus"]
    mel = given["mel"][:1]
    f0 = model.f0_predictor(mel)
    source, _ = model.m_source(f0, noise)
    ours |= {"adjusted_f0": f0, "adjusted_source": source, "adjusted_wave": model.decode(mel, source)}
    return {f"out_{name}": value.numpy() for name, value in ours.items()}


def features(case: Case, arrays: Arrays) -> Arrays:
    sizes, outputs = case["config"]["mel"], {}
    mel = LogMel(
        sizes["sampling_rate"], sizes["n_fft"], sizes["hop_size"], sizes["num_mels"], sizes["fmin"], sizes["fmax"]
    )
    whisper = WhisperLogMel(case["config"]["whisper"]["n_mels"])
    rate = int(case["config"]["fbank"]["sample_frequency"])
    for name in [key[3:-4] for key in arrays if key.startswith("in_") and key.endswith("_24k")]:
        wav, at_16k = arrays[f"in_{name}_24k"], arrays[f"in_{name}_16k"]
        padded = whole_tokens(wav, case["config"]["num_frames"])
        ours = {
            "mel_training": mel.of_clip(padded),
            "mel_prompt": mel.of_clip(wav),
            "fbank": speaker_fbank(at_16k, case["config"]["fbank"]["num_mel_bins"]),
            "whisper": whisper.of_clip(at_16k),
            "whisper_training": whisper.of_clip(resample_sinc(padded, mel.sample_rate, rate)),
            "16k": resample_sinc(wav, mel.sample_rate, rate),
        }
        outputs |= {f"out_{name}_{kind}": value for kind, value in ours.items()}
    return outputs


def schedule(case: Case, arrays: Arrays) -> Arrays:
    """The reference counts updates from 1. Its first update after resuming has the first rate again, and later ones
    count from the step it was told; ours goes on instead, so only here that number is put in."""
    config = case["config"]
    constant = learning_rate("constant", warmup=0, total=max(config["updates"]))
    resumed = [0 if update == 1 else config["resume"] + update - 1 for update in config["updates"]]
    ours = {
        "warmup_lr": [warmup_lr(update - 1, warmup=config["warmup_steps"]) for update in config["updates"]],
        "warmup_lr_resumed": [warmup_lr(step, warmup=config["warmup_steps"]) for step in resumed],
        "constant_lr": [constant(update - 1) for update in config["updates"]],
    }
    return {f"out_{name}": config["lr"] * np.array(factors) for name, factors in ours.items()}


def layout(case: Case, arrays: Arrays) -> Arrays:
    """Names, shapes and types of the full-size models, built without memory: how many entries differ."""
    with torch.device("meta"):
        models: dict[str, nn.Module] = {
            "llm": SpeechLanguageModel(config_from_mapping(LLMConfig, {"qwen2": case["config"]["qwen2"]})),
            "flow": TokenToMel(FlowConfig()),
            "hift": HiftGenerator(HiftConfig()),
        }
    outputs = {}
    for name, model in models.items():
        expected = {(key, tuple(shape), kind) for key, shape, kind in case["state"][name]}
        found = {(key, tuple(shape), kind) for key, shape, kind in fill.spec(model.state_dict())}
        outputs[f"{name}_entries"] = np.array(len(expected ^ found))
    return outputs
