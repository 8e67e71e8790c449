"""MeloTTS cases: recognised by their inputs, built from their own `config`, filled by the rule of fill.py.

The models have one text encoder's features, as the cases' variant without `absent_in_variant`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Collection
from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from tests.parity import fill
from tts_kernel.audio.spectrogram import MELOTTS_GUARD, LogMel
from tts_kernel.data.buckets import BucketPlan
from tts_kernel.data.sampler import Position
from tts_kernel.models.melotts.alignment import (
    alignment_scores,
    monotonic_durations,
    noise_scale,
    noisy_scores,
    path_of,
    stretch,
)
from tts_kernel.models.melotts.config import DurationDiscriminatorConfig, SynthesizerConfig
from tts_kernel.models.melotts.config_values import config_from_mapping
from tts_kernel.models.melotts.discriminators import DurationDiscriminator, Judgement, MultiPeriodDiscriminator
from tts_kernel.models.melotts.layers import real_positions
from tts_kernel.models.melotts.losses import (
    discriminator_loss,
    duration_discriminator_loss,
    duration_generator_loss,
    feature_loss,
    generator_loss,
    kl_loss,
)
from tts_kernel.models.melotts.synthesizer import SpeechDraws, Synthesizer, TrainingDraws
from tts_kernel.models.melotts.text_encoder import Text
from tts_kernel.optim.schedules import by_epoch
from tts_kernel.text.language import canonical
from tts_kernel.text.phones import Phones, spread, to_ids, word2ph
from tts_kernel.text.symbols import MELOTTS, Symbols

Case = dict[str, Any]
Arrays = dict[str, np.ndarray]
Shapes = dict[str, tuple[int, ...]]


def recognise(case: Case, arrays: Arrays) -> Callable[[Case, Arrays], Arrays] | None:
    """The function that computes this case's outputs, or None if it is another family's."""
    if {"in_noise_mas", "in_dec_z", "in_bert"} <= arrays.keys():
        return synthesizer
    if {"in_y_hat", "in_dur_hat", "in_kl_z_p"} <= arrays.keys():
        return discriminators
    if {"in_wave", "out_mel_from_linear"} <= arrays.keys():
        return spectrograms
    searches = case.get("config", {})
    if searches and all(f"in_{name}_neg_cent" in arrays for name in searches):
        return searched_paths
    if {"in_bert_hidden", "out_mas_noise_scale"} <= arrays.keys():
        return training_facts
    if isinstance(case.get("state"), dict) and {"G", "D", "DUR"} <= case["state"].keys():
        return layout
    return None


def tensors(arrays: Arrays) -> dict[str, Tensor]:
    return {name[3:]: torch.from_numpy(value) for name, value in arrays.items() if name.startswith("in_")}


def fitted(model: nn.Module, state: list[list[Any]], absent: Collection[str] = ()) -> nn.Module:
    """`model` in eval mode with regenerated weights. Raises ValueError if its names or shapes differ from the case's,
    those `absent` in the variant left out."""
    expected = {name: tuple(shape) for name, shape, _ in state if name not in absent}
    found = shapes(model)
    if expected != found:
        raise ValueError(f"state differs from the record: {sorted(set(expected.items()) ^ set(found.items()))[:6]}")
    fill.fill(model)
    return model.eval()


def shapes(model: nn.Module) -> Shapes:
    return {name: tuple(value.shape) for name, value in model.state_dict().items()}


def text_of(given: dict[str, Tensor], prefix: str = "") -> Text:
    return Text(*(given[prefix + name] for name in ("x", "x_lengths", "tone", "language", "bert")))


@torch.no_grad()
def synthesizer(case: Case, arrays: Arrays) -> Arrays:
    given = tensors(arrays)
    config = config_from_mapping(SynthesizerConfig, case["config"])
    model = Synthesizer(replace(config, bert_channels=given["bert"].shape[1]), reference_padding=True)
    fitted(model, case["state"], case.get("absent_in_variant", []))
    outputs = parts(model, case, given) | training(model, case, given) | speaking(model, case, given)
    return {name: value for name, value in outputs.items() if name in arrays}


def parts(model: Synthesizer, case: Case, given: dict[str, Tensor]) -> Arrays:
    """The networks one by one."""
    speaker = model.emb_g(given["sid"])[..., None]
    prior = model.enc_p(text_of(given), speaker)
    short = model.enc_p(text_of(given, "short_"), model.emb_g(given["short_sid"])[..., None])
    frame_mask = real_positions(given["y_lengths"], given["y"].shape[2])
    posterior = model.enc_q(given["y"], frame_mask, speaker, given["noise_q"])
    noise = given["noise_sdp_reverse"]
    of_text = (prior.hidden, prior.mask)
    outputs = {
        "g": speaker,
        "enc_x": prior.hidden,
        "enc_m_p": prior.mean,
        "enc_logs_p": prior.log_deviation,
        "x_mask": prior.mask,
        "q_z": posterior.sample,
        "q_m": posterior.mean,
        "q_logs": posterior.log_deviation,
        "y_mask": frame_mask,
        "flow_forward": model.flow(posterior.sample, frame_mask, speaker),
        "flow_reverse": model.flow.inverse(given["flow_reverse"], frame_mask, speaker),
        "mas_path": searched(given["mas_neg_cent"], given["mas_mask"]),
        "sdp_loss": model.sdp(*of_text, given["sdp_w"], speaker, given["noise_sdp"]),
        "sdp_logw": model.sdp.sample(*of_text, speaker, noise * case["sdp_noise_scale"]),
        "sdp_logw_silent": model.sdp.sample(*of_text, speaker, torch.zeros_like(noise)),
        "dp_logw": model.dp(*of_text, speaker),
        "dec": model.dec(given["dec_z"], speaker),
        "short_enc_x": short.hidden,
        "short_enc_m_p": short.mean,
        "short_enc_logs_p": short.log_deviation,
    }
    return {f"out_{name}": value.numpy() for name, value in outputs.items()}


@torch.enable_grad()
def training(model: Synthesizer, case: Case, given: dict[str, Tensor]) -> Arrays:
    noise = case["current_mas_noise_scale"]
    draws = TrainingDraws(*(given[name] for name in ("noise_q", "noise_mas", "noise_sdp", "slice_uniform")))
    said = model(text_of(given), given["y"], given["y_lengths"], given["sid"], alignment_noise=noise, draws=draws)
    kl = kl_loss(said.z_p, said.posterior.log_deviation, said.m_p, said.logs_p, said.frame_mask)
    scores = alignment_scores(said.z_p, said.prior.mean, said.prior.log_deviation)
    outputs = {
        "neg_cent": noisy_scores(scores, draws.alignment, noise),
        "o": said.audio,
        "l_length": said.duration_loss,
        "attn": path_of(said.durations, said.z_p.shape[2])[:, None],
        "ids_slice": said.starts,
        "x_mask": said.prior.mask,
        "y_mask": said.frame_mask,
        "z": said.posterior.sample,
        "z_p": said.z_p,
        "m_p": said.m_p,
        "logs_p": said.logs_p,
        "m_q": said.posterior.mean,
        "logs_q": said.posterior.log_deviation,
        "x": said.prior.hidden,
        "logw": said.predicted_log_durations,
        "logw_": said.log_durations,
        "kl": kl,
    }
    losses = {"duration": said.duration_loss.sum(), "kl": kl, "audio": said.audio.square().mean()}
    for name, loss in losses.items():
        outputs[f"grad_{name}"] = gradient_norms(model, loss, case["grad_names"])
    return {f"out_train_{name}": value.detach().numpy() for name, value in outputs.items()}


def gradient_norms(model: nn.Module, loss: Tensor, names: list[str]) -> Tensor:
    """One norm per name, 0 for a parameter that `loss` does not reach."""
    model.zero_grad()
    loss.backward(retain_graph=True)
    found = dict(model.named_parameters())
    gradients = [found[name].grad for name in names]
    return torch.stack([torch.zeros(()) if gradient is None else gradient.norm() for gradient in gradients])


def speaking(model: Synthesizer, case: Case, given: dict[str, Tensor]) -> Arrays:
    """Every recorded way to speak: `sdp1_len120` without noise, sdp_ratio 1 and length_scale 1.2; `noisy` as listed."""
    outputs: Arrays = {}
    prior = model.enc_p(text_of(given), model.emb_g(given["sid"])[..., None])
    for name in case["infer_frames"]:
        if silent := re.fullmatch(r"out_infer_sdp(\d+)_len(\d+)", name):
            how = {"sdp_ratio": int(silent[1]), "length_scale": int(silent[2]) / 100}
            said = model.infer(text_of(given), given["sid"], noise_scale=0.0, noise_scale_w=0.0, **how)
        else:
            draws = SpeechDraws(given["noise_sdp_reverse"], given["noise_prior"])
            said = model.infer(text_of(given), given["sid"], draws=draws, **case["infer_noisy"])
        frames = said.z.shape[2]
        spoken = {
            "o": said.audio[:, None],
            "attn": path_of(said.durations, frames)[:, None],
            "y_mask": real_positions(said.durations.sum(dim=1), frames),
            "z": said.z,
            "z_p": said.z_p,
            "m_p": stretch(prior.mean, said.durations, frames),
            "logs_p": stretch(prior.log_deviation, said.durations, frames),
        }
        outputs |= {f"{name}_{kind}": value.numpy() for kind, value in spoken.items()}
    return outputs


@torch.no_grad()
def discriminators(case: Case, arrays: Arrays) -> Arrays:
    given = tensors(arrays)
    of_waves = fitted(MultiPeriodDiscriminator(), case["state"]["mpd"])
    config = config_from_mapping(DurationDiscriminatorConfig, case["config"]["dur_disc"])
    of_durations = fitted(DurationDiscriminator(config), case["state"]["dur_disc"])
    real, synthetic = of_waves(given["y"]), of_waves(given["y_hat"])
    total, of_real, of_synthetic = discriminator_loss(real, synthetic)
    generator_total, each = generator_loss(synthetic)
    outputs = {
        "loss_disc": total,
        "loss_disc_real": torch.stack(of_real),
        "loss_disc_fake": torch.stack(of_synthetic),
        "loss_gen": generator_total,
        "loss_gen_each": torch.stack(each),
        "loss_feature": feature_loss(real, synthetic),
        "loss_kl": kl_loss(*(given[f"kl_{name}"] for name in ("z_p", "logs_q", "m_p", "logs_p", "mask"))),
    }
    for kind, judgements in (("real", real), ("fake", synthetic)):
        outputs[f"mpd_map_stats_{kind}"] = map_statistics(judgements)
        outputs |= {f"mpd_{kind}_{number}": said.logits for number, said in enumerate(judgements)}
    mask = given["dur_x_mask"] > 0
    durations = (given["dur_x"], mask, given["dur_r"], given["dur_hat"])
    recorded, predicted = of_durations(*durations)
    with_speaker = of_durations(*durations, given["dur_g"])
    loss, of_recorded, of_predicted = duration_discriminator_loss(recorded, predicted, mask, reference=True)
    outputs |= {
        "dur_prob_r": recorded,
        "dur_prob_hat": predicted,
        "dur_prob_r_with_g": with_speaker[0],
        "dur_prob_hat_with_g": with_speaker[1],
        "loss_dur_disc": loss,
        "loss_dur_disc_r": of_recorded,
        "loss_dur_disc_hat": of_predicted,
        "loss_dur_gen": duration_generator_loss(predicted, mask, reference=True),
    }
    return {f"out_{name}": value.numpy() for name, value in outputs.items()}


def map_statistics(judgements: list[Judgement]) -> Tensor:
    """Mean and population deviation of every layer's output."""
    maps = [value for said in judgements for value in said.maps]
    return torch.stack([torch.stack([value.mean(), value.std(correction=0)]) for value in maps])


def spectrograms(case: Case, arrays: Arrays) -> Arrays:
    names = ("sampling_rate", "filter_length", "hop_length", "n_mel_channels", "mel_fmin", "mel_fmax")
    mel = LogMel(*(case["config"][name] for name in names), guard=MELOTTS_GUARD)
    wave = torch.from_numpy(arrays["in_wave"])
    return {
        "out_linear": mel.magnitudes(wave).numpy(),
        "out_mel_from_linear": mel.of_magnitudes(mel.magnitudes(wave)).numpy(),
        "out_mel_direct": mel(wave).numpy(),
        "out_mel_basis": mel.filters.numpy(),
    }


def searched_paths(case: Case, arrays: Arrays) -> Arrays:
    given = tensors(arrays)
    return {
        f"out_{name}_path": searched(given[f"{name}_neg_cent"], given[f"{name}_mask"]).numpy()
        for name in case["config"]
    }


def searched(scores: Tensor, mask: Tensor) -> Tensor:
    """(batch, frames, tokens) each -> the path."""
    tokens, frames = mask.amax(dim=1).sum(dim=1).long(), mask.amax(dim=2).sum(dim=1).long()
    return path_of(monotonic_durations(scores, tokens, frames), scores.shape[1]) * mask


def training_facts(case: Case, arrays: Arrays) -> Arrays:
    config = case["config"]
    peak, decay = config["learning_rate"], config["lr_decay"]
    rates = [peak * by_epoch(7 * epochs, updates=7, decay=decay) for epochs in config["lr_epochs"]]
    initial, decrease = config["mas_noise_scale_initial"], config["noise_scale_delta"]
    outputs = {
        "out_lr": np.array(rates),
        # Without the optimizer's state a run begins anew, wherever its weights come from.
        "out_lr_on_resume": np.array([peak * by_epoch(0, updates=7, decay=decay) for _ in config["resume_epochs"]]),
        "out_mas_noise_scale": np.array([noise_scale(step, initial, decrease) for step in config["mas_steps"]]),
        "out_bert_phone": spread(arrays["in_bert_hidden"][-3], arrays["in_bert_word2ph"]),
    }
    for name, line in config["blanks"].items():
        count, inner = len(line["phones"]), line["word2ph"][1:-1]
        # Each token is one character, in the middle of which all its phones are said.
        places = [-1.0, *np.repeat(np.arange(len(inner)) + 0.5, inner), float(len(inner))]
        language = canonical(line["language"])
        said = Phones("", language, tuple(line["phones"]), tuple(line["tones"]), (language,) * count, tuple(places))
        ids = to_ids(said, Symbols(MELOTTS))
        tokens = [(0, 0), *((start, start + 1) for start in range(len(inner))), (0, 0)]
        outputs |= {
            f"out_blank_{name}_phone": ids.phones,
            f"out_blank_{name}_tone": ids.tones,
            f"out_blank_{name}_language": ids.languages,
            f"out_blank_{name}_word2ph": word2ph(said, tokens),
        }
    return outputs | bucketed(case, arrays)


def bucketed(case: Case, arrays: Arrays) -> Arrays:
    """Batches of every recorded list, shared by as many processes as its name says."""
    config, outputs = case["config"], dict[str, np.ndarray]()
    for array in arrays:
        if not (named := re.fullmatch(r"out_(\w+)_r(\d+)_bucket_sizes", array)):
            continue
        lengths, world, name = arrays[f"in_{named[1]}_lengths"], int(named[2]), f"out_{named[1]}_r{named[2]}"
        rows, boundaries = np.arange(len(lengths)), tuple(config["boundaries"])
        plan = BucketPlan(rows, lengths, config["batch_size"] * world, boundaries)
        buckets = plan.buckets
        outputs[f"{name}_boundaries"] = np.array([boundaries[0], *(bucket.upper for bucket in buckets)])
        outputs[f"{name}_bucket_sizes"] = np.array([len(bucket.rows) for bucket in buckets])
        outputs[f"{name}_bucket_padded"] = np.array([plan.padded(bucket) for bucket in buckets])
        for rank, epoch in product(range(world), config["sampler_epochs"]):
            batches = [planned.rows for planned in plan.share(rank, world).epoch(Position(epoch))]
            outputs[f"{name}_rank{rank}_epoch{epoch}"] = np.stack(batches)
    return outputs


def layout(case: Case, arrays: Arrays) -> Arrays:
    """Names and shapes of the full-size models, built without memory; 0 where every entry agrees."""
    config = config_from_mapping(SynthesizerConfig, case["config"]["G"])
    of_durations = config_from_mapping(DurationDiscriminatorConfig, case["config"]["DUR"])
    states = {part: {name: tuple(shape) for name, shape, _ in case["state"][part]} for part in ("G", "D", "DUR")}
    second = states["G"].get("enc_p.ja_bert_proj.weight", (0, 0))[1]
    with torch.device("meta"):
        models = {
            "G": Synthesizer(replace(config, ja_bert_channels=second)),
            "D": MultiPeriodDiscriminator(),
            "DUR": DurationDiscriminator(of_durations),
        }
        variant = shapes(Synthesizer(config))
    kept = {name: shape for name, shape in states["G"].items() if name not in case.get("absent_in_variant", [])}
    differing = {part: set(shapes(model).items()) ^ set(states[part].items()) for part, model in models.items()}
    differing["variant"] = set(variant.items()) ^ set(kept.items())
    counts = [(sum(map(math.prod, shapes(model).values())), len(shapes(model))) for model in models.values()]
    outputs = {f"{part}_names_and_shapes": np.array(len(names)) for part, names in differing.items()}
    return outputs | {
        "out_parameters": np.array([count for count, _ in counts]),
        "out_tensors": np.array([tensors for _, tensors in counts]),
    }
