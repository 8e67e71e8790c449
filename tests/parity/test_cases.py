from __future__ import annotations

import runpy
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.models.cosyvoice2 import tiny_models
from tests.models.melotts import tiny_models as tiny_melotts
from tests.parity import fill
from tests.parity.__main__ import main
from tests.parity.compare import UnknownCaseError, compare_case
from tests.tiny_voice import CONFIG, random_clips
from tts_kernel.models.cosyvoice2.config_values import to_mapping
from tts_kernel.models.indextts2.gpt import UnifiedVoice
from tts_kernel.models.melotts.alignment import monotonic_durations, path_of
from tts_kernel.models.melotts.config_values import to_mapping as melotts_mapping

ROOT = Path(__file__).parents[2]
CASES = sorted(path.parent for path in (ROOT / "tests" / "fixtures" / "parity").glob("*/*/case.json"))
assert CASES, "nothing collected: the test below would pass by not running"
SMALL = next(case for case in CASES if case.name == "wsd")


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.parent.name}/{case.name}")
def test_every_recorded_array_is_met(case: Path) -> None:
    rows = list(compare_case(case))
    assert rows
    assert [row for row in rows if not row.passed] == []


def command(monkeypatch: pytest.MonkeyPatch, *folders: Path) -> int:
    monkeypatch.setattr(sys, "argv", ["parity", *map(str, folders)])
    return main()


def altered(case: Path, folder: Path, name: str, change: float) -> Path:
    shutil.copytree(case, folder)
    arrays = dict(np.load(folder / "io.npz"))
    arrays[name] = arrays[name].copy()
    arrays[name].flat[-1] += change
    np.savez_compressed(folder / "io.npz", **arrays)
    return folder


@pytest.mark.filterwarnings("ignore:.*found in sys.modules:RuntimeWarning")
def test_the_command_takes_any_folder_and_exits_with_its_status(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As `python -m tests.parity FOLDER` runs it, without a second import of torch."""
    moved = shutil.copytree(SMALL, tmp_path / "moved")
    for folder, status in ((moved, 0), (tmp_path, 1)):
        monkeypatch.setattr(sys, "argv", ["parity", str(folder)])
        with pytest.raises(SystemExit) as left:
            runpy.run_module("tests.parity", run_name="__main__")
        assert left.value.code == status
    assert "0 failed" in capsys.readouterr().out


def test_one_altered_number_fails_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    name = next(name for name in np.load(SMALL / "io.npz").files if name.startswith("out_"))
    assert command(monkeypatch, SMALL) == 0
    assert command(monkeypatch, altered(SMALL, tmp_path / "wrong", name, 1e-3), SMALL) == 1
    missed = [line for line in capsys.readouterr().out.splitlines() if "MISS" in line]
    assert len(missed) == 1
    assert name in missed[0]


def test_a_number_that_is_not_one_fails_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = next(name for name in np.load(SMALL / "io.npz").files if name.startswith("out_"))
    assert command(monkeypatch, altered(SMALL, tmp_path / "nan", name, float("nan"))) == 1


def test_a_folder_that_is_no_case_fails_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fill.save_case(tmp_path / "unknown", {"case": "other"}, in_what=np.ones(2), out_what=np.ones(2))
    assert command(monkeypatch, tmp_path / "unknown") == 1
    assert command(monkeypatch, tmp_path) == 1
    printed = capsys.readouterr().out
    assert "no family knows its inputs ['in_what']" in printed
    assert "case.json" in printed
    with pytest.raises(UnknownCaseError):
        list(compare_case(tmp_path / "unknown"))


def test_a_case_of_other_sizes_is_compared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = replace(CONFIG, layers=2, model_dim=48, heads=3, condition_num_latent=5, number_text_tokens=61)
    model, clips = UnifiedVoice(config, reference_padding=True).eval(), random_clips()
    fill.fill(model)
    with torch.no_grad():
        latents = model.speaker_latents(clips.features, clips.feature_lengths)
        emotion = model.emotion_vector(clips.features, clips.feature_lengths)
        said = model(
            model.conditions(latents, emotion), clips.text, clips.text_lengths, clips.codes, clips.code_lengths
        )
        loss = torch.nn.functional.cross_entropy(said.code_logits, said.code_targets)
    meta = {
        "case": "other sizes",
        "config": config.to_mapping(),
        "state": fill.spec(model.state_dict()),
        "params": {"alphas": [0.65], "alone": 1},
        "rtol": 1e-4,
        "atol": 1e-5,
    }
    given = {
        "in_spk_feats": clips.features,
        "in_spk_lens": clips.feature_lengths,
        "in_emo_feats": clips.features,
        "in_emo_lens": clips.feature_lengths,
        "in_text_ids": clips.text,
        "in_text_lens": clips.text_lengths,
        "in_codes": clips.codes,
        "in_code_lens": clips.code_lengths,
    }
    recorded = {"out_spk_latents": latents, "out_emo_vec": emotion, "out_binary_mel_loss": loss}
    arrays = {name: value.numpy() for name, value in {**given, **recorded}.items()}
    fill.save_case(tmp_path / "sizes", meta, **arrays)
    assert command(monkeypatch, tmp_path / "sizes") == 0
    assert command(monkeypatch, altered(tmp_path / "sizes", tmp_path / "wrong", "out_emo_vec", 1e-2)) == 1


def test_a_cosyvoice2_case_of_other_sizes_is_compared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_models.llm(mix_ratio=(1, 3))
    text, lengths = torch.tensor([[4, 9, 7], [5, 8, 0]]), torch.tensor([3, 2])
    speech = torch.arange(24).view(2, 12)
    with torch.no_grad():
        said = model(model.lay_out_batch(text, lengths, speech, torch.tensor([12, 8]), interleave=[True, True]))
    meta = {
        "config": to_mapping(model.config) | {"inference": {"max_token_text_ratio": 4, "min_token_text_ratio": 2}},
        "state": fill.spec(model.state_dict()),
        "tolerances": {"out_bi_loss": [1e-4, 1e-5]},
    }
    given = {
        "in_text_token": text,
        "in_text_token_len": lengths,
        "in_speech_token": speech,
        "in_speech_token_len": torch.tensor([12, 8]),
        "in_text": text[:1],
        "in_prompt_text": text[1:],
        "in_prompt_speech_token": speech[:1],
        "in_ras_scores": torch.randn(1, 33).log_softmax(-1),
        "in_ras_history": torch.tensor([[3, -1]]),
    }
    recorded = {"out_bi_loss": said.loss, "out_bi_acc": said.accuracy}
    arrays = {name: value.numpy() for name, value in {**given, **recorded}.items()}
    fill.save_case(tmp_path / "sizes", meta, **arrays)
    assert command(monkeypatch, tmp_path / "sizes") == 0
    assert command(monkeypatch, altered(tmp_path / "sizes", tmp_path / "close", "out_bi_loss", 1e-5)) == 0
    assert command(monkeypatch, altered(tmp_path / "sizes", tmp_path / "wrong", "out_bi_loss", 1e-3)) == 1


def test_a_melotts_case_of_other_sizes_is_compared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, given = tiny_melotts.synthesizer(reference_padding=True), tiny_melotts.clips()
    drawn = tiny_melotts.draws(model, given)
    said = tiny_melotts.step(model, given, drawn, alignment_noise=0.01)
    spoken = model.infer(given.text, given.speakers, noise_scale=0.0, noise_scale_w=0.0, sdp_ratio=1.0)
    scores, short = torch.randn(3, 19, 7), given.alone(1).text
    cells = (torch.arange(19) < given.lengths[:, None])[:, :, None] & said.prior.mask
    inputs = {
        "x": given.text.phones,
        "x_lengths": given.text.lengths,
        "tone": given.text.tones,
        "language": given.text.languages,
        "bert": given.text.features,
        "sid": given.speakers,
        "y": given.spectrogram,
        "y_lengths": given.lengths,
        "noise_q": drawn.posterior,
        "noise_mas": drawn.alignment,
        "noise_sdp": drawn.durations,
        "noise_sdp_reverse": drawn.durations,
        "slice_uniform": drawn.segments,
        "flow_reverse": drawn.posterior,
        "sdp_w": said.durations.float()[:, None],
        "mas_neg_cent": scores,
        "mas_mask": cells.float(),
        "dec_z": said.z_p[:, :, :4],
        "short_x": short.phones,
        "short_x_lengths": short.lengths,
        "short_tone": short.tones,
        "short_language": short.languages,
        "short_bert": short.features,
        "short_sid": given.speakers[1:2],
    }
    outputs = {
        "train_o": said.audio,
        "train_logw": said.predicted_log_durations,
        "infer_sdp1_len100_o": spoken.audio[:, None],
        "mas_path": path_of(monotonic_durations(scores, given.text.lengths, given.lengths), 19),
    }
    meta = {
        "config": melotts_mapping(model.config),
        "state": fill.spec(model.state_dict()),
        "current_mas_noise_scale": 0.01,
        "sdp_noise_scale": 0.8,
        "infer_frames": {"out_infer_sdp1_len100": spoken.z.shape[2]},
        "grad_names": ["dp.proj.bias"],
        "exact": ["out_mas_path"],
        "atol_of": {"out_train_o": 1e-6, "out_train_logw": 1e-6, "out_infer_sdp1_len100_o": 1e-6},
    }
    arrays = {f"in_{name}": value.detach().numpy() for name, value in inputs.items()}
    arrays |= {f"out_{name}": value.detach().numpy() for name, value in outputs.items()}
    fill.save_case(tmp_path / "sizes", meta, **arrays)
    assert command(monkeypatch, tmp_path / "sizes") == 0
    assert command(monkeypatch, altered(tmp_path / "sizes", tmp_path / "close", "out_train_logw", 5e-7)) == 0
    assert command(monkeypatch, altered(tmp_path / "sizes", tmp_path / "wrong", "out_train_logw", 1e-4)) == 1
    assert command(monkeypatch, altered(tmp_path / "sizes", tmp_path / "path", "out_mas_path", 1e-7)) == 1
