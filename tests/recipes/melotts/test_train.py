"""Whole runs of the recipe: what they leave, that they resume exactly, and what they refuse."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import soundfile
import torch

from tests.tiny_spoken import LONG, Studio, write_config
from tests.training.loop import assert_equal
from tts_kernel.data.corpora.table import CorpusError
from tts_kernel.models.melotts.config_values import read_commented_json, read_config
from tts_kernel.models.melotts.synthesizer import Synthesizer
from tts_kernel.models.melotts.weights import load_weights
from tts_kernel.models.weights import CheckpointError
from tts_kernel.recipes.melotts import explain, prepare
from tts_kernel.recipes.melotts.train import make_trainer
from tts_kernel.recipes.named import recipe_names
from tts_kernel.text.bge_m3 import EncoderError
from tts_kernel.text.symbols import MELOTTS
from tts_kernel.training.checkpoints.file import read
from tts_kernel.training.outcome import Outcome, TrainingError
from tts_kernel.training.processes import Processes


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_its_speed_is_told_in_tokens_of_text(finished: Studio) -> None:
    """They are many times the clips that the losses are means over."""
    spoken = [record["train/tokens_per_second"] for record in finished.run().records() if "loss/g/total" in record]
    clips = [4 * record["train/steps_per_second"] for record in finished.run().records() if "loss/g/total" in record]
    assert spoken
    assert all(many > 10 * few for many, few in zip(spoken, clips, strict=True))


def test_a_run_leaves_what_others_know_it_by(finished: Studio) -> None:
    run = finished.run()
    found = names(run.checkpoints)
    for kind in ("G", "D", "DUR", "optimizer"):
        assert {name for name in found if name.startswith(f"{kind}_") and "latest" not in name} == {
            f"{kind}_3.pth",
            f"{kind}_6.pth",
        }
    assert {"G_latest.pth", "config.json", "latest_full.pth", "best_model.pth"} <= found
    assert (run.checkpoints / "G_latest.pth").read_bytes() == (run.checkpoints / "G_6.pth").read_bytes()


def test_the_metrics_have_the_usual_names(finished: Studio) -> None:
    run = finished.run()
    for name in ("loss/g/total", "loss/g/mel", "loss/g/kl", "loss/g/dur", "loss/d/total", "learning_rate"):
        assert run.series(name)[0] == [1, 2, 3, 4, 5, 6]
    for name in ("grad_norm/g", "grad_norm/d", "grad_norm/dur", "train/mel_loss"):
        assert all(value > 0 for value in run.series(name)[1])
    assert run.series("val/loss")[0] == [0, 3, 6]
    rates = run.series("learning_rate")[1]
    assert rates == pytest.approx([3e-4 * 0.999875**epoch for epoch in (0, 0, 1, 1, 2, 2)], rel=1e-12)
    mel, weighted = run.series("train/mel_loss")[1], run.series("loss/g/mel")[1]
    assert weighted == pytest.approx([45 * value for value in mel])


def test_the_total_is_the_sum_of_its_parts(finished: Studio) -> None:
    parts = ("mel", "kl", "dur", "gen", "fm", "dur_gen")
    for record in finished.run().records():
        if "loss/g/total" in record:
            assert record["loss/g/total"] == pytest.approx(sum(record[f"loss/g/{part}"] for part in parts))


def test_the_generators_file_is_a_public_checkpoint(finished: Studio) -> None:
    folder = finished.run().checkpoints
    public = read_config(folder / "config.json")
    assert public.speakers == {"S0": 0, "S1": 1}
    report = load_weights(Synthesizer(public.model), folder / "G_latest.pth")
    assert report.fits
    assert not report.reinitialised


def test_sentences_are_spoken_and_drawn_at_every_validation(finished: Studio) -> None:
    folder = finished.run().folder / "samples"
    for step in (0, 3, 6):
        assert f"step_{step:06d}_alignment.png" in names(folder)
    wave, rate = soundfile.read(folder / "step_000006_0_kr.wav")
    assert rate == 44_100
    assert len(wave) > 0


def test_a_run_that_stopped_goes_on_to_the_same_weights(finished: Studio) -> None:
    finished.train("stopped", max_steps=2, **LONG)
    outcome = finished.train("stopped", **LONG)
    assert (outcome.status, outcome.step) == ("finished", 6)
    ours, expected = (read(finished.run(name).checkpoints / "latest_full.pth") for name in ("stopped", "run"))
    for key in ("model", "optimizer", "step", "epoch", "random"):
        assert_equal(ours[key], expected[key], key)


def test_a_resume_with_another_table_of_symbols_or_other_losses_is_refused(finished: Studio, tmp_path: Path) -> None:
    public = write_config(tmp_path / "config.json", symbols=list(MELOTTS))
    other: tuple[tuple[str, dict[str, Any]], ...] = (
        ("symbols", {"config": str(public)}),
        ("losses", {"reference_losses": True}),
    )
    for name, changes in other:
        prepared = prepare(finished.settings(**changes), finished.run())
        trainer = make_trainer(prepared, finished.run(), Processes(torch.device("cpu")))
        with pytest.raises(TrainingError, match=f"{name}: .* when it was saved"):
            trainer.resume_if_started()


def test_a_base_with_fewer_symbols_gives_its_rows_by_name(finished: Studio, studio: Studio) -> None:
    write_config(studio.config, symbols=list(MELOTTS))
    base = str(finished.run().checkpoints / "G_latest.pth")
    prepared = prepare(studio.settings(base_generator=base), studio.run())
    trainer = make_trainer(prepared, studio.run(), Processes(torch.device("cpu")))
    own = trainer.model.state_dict()["G.enc_p.emb.weight"]
    theirs = read(Path(base))["model"]["enc_p.emb.weight"]
    assert torch.equal(own, theirs[: len(MELOTTS)])


@pytest.mark.parametrize("same", [True, False])
def test_what_reads_another_encoders_features_starts_fresh(finished: Studio, studio: Studio, same: bool) -> None:
    base = finished.run().checkpoints / "G_latest.pth"
    taken = studio.folder / base.name
    shutil.copyfile(base, taken)
    values = read_commented_json(base.with_name("config.json")) | ({} if same else {"text_encoder": "another"})
    (studio.folder / "config.json").write_text(json.dumps(values), encoding="utf-8")
    settings = finished.settings(base_generator=str(taken))
    trainer = make_trainer(prepare(settings, studio.run()), studio.run(), Processes(torch.device("cpu")))
    own, theirs = trainer.model.state_dict()["G.enc_p.bert_proj.weight"], read(base)["model"]["enc_p.bert_proj.weight"]
    assert torch.equal(own, theirs) is same


def test_a_base_without_its_table_is_refused(finished: Studio, studio: Studio, tmp_path: Path) -> None:
    alone = tmp_path / "G_6.pth"
    alone.write_bytes((finished.run().checkpoints / "G_6.pth").read_bytes())
    write_config(studio.config, symbols=list(MELOTTS))
    prepared = prepare(studio.settings(base_generator=str(alone)), studio.run())
    with pytest.raises(CheckpointError, match="239 symbols, the model has 219; give both tables"):
        make_trainer(prepared, studio.run(), Processes(torch.device("cpu")))


def test_too_few_rows_for_the_speakers_are_refused(studio: Studio) -> None:
    with pytest.raises(CorpusError, match=r"n_speakers: found 1, the lists have 2 speakers .*expected at least 2"):
        prepare(studio.settings(n_speakers=1), studio.run())


def test_a_speaker_who_is_only_held_out_is_named(studio: Studio) -> None:
    path = studio.data / "val_list.txt"
    path.write_text(path.read_text(encoding="utf-8").replace("|S1|", "|S9|"), encoding="utf-8")
    with pytest.raises(CorpusError, match="S9"):
        prepare(studio.settings(), studio.run())


def test_an_encoder_that_lacks_files_is_refused(studio: Studio) -> None:
    (studio.encoder / "tokenizer.json").unlink()
    with pytest.raises(EncoderError, match=r"misses tokenizer\.json"):
        prepare(studio.settings(), studio.run())


def test_bad_lines_of_both_lists_stop_it_at_once(studio: Studio) -> None:
    for name in ("train_list.txt", "val_list.txt"):
        with (studio.data / name).open("a", encoding="utf-8") as file:
            file.write("wavs/00.wav|one field too few\n")
    with pytest.raises(CorpusError, match=r"(?s)train_list\.txt:9: 2 fields.*val_list\.txt:5: 2 fields"):
        prepare(studio.settings(), studio.run())


def test_a_run_says_what_it_will_do_and_what_it_did(finished: Studio) -> None:
    prepared = prepare(finished.settings(), finished.run())
    assert "8 clips" in str(prepared)
    assert "6 updates: 3 epochs of 2 batches of 4 clips" in str(prepared)
    outcome = Outcome(
        "finished", 6, 6, {"val/loss": 4.0, "val/longest_phone": 0.5}, {"val/loss": 3.0, "val/longest_phone": 0.1}, 1.0
    )
    told = explain(outcome, prepared, finished.run())
    assert "finished: 6 of 6 updates" in told
    assert "4.000 before, 3.000 at the end" in told
    assert "50% before, 10% at the end" in told


def test_the_references_buckets_say_what_they_leave_out(studio: Studio) -> None:
    prepared = prepare(studio.settings(batching="buckets", batch_size=3), studio.run())
    assert str(prepared.plan) in str(prepared)
    outcome = studio.train(batching="buckets", batch_size=3, max_steps=1)
    assert outcome.step == 1


def test_without_the_duration_discriminator_there_is_none(studio: Studio) -> None:
    studio.train(max_steps=1, duration_discriminator=False)
    assert not list(studio.run().checkpoints.glob("DUR_*"))
    assert "loss/dur/total" not in set().union(*studio.run().records())


def test_half_precision_lowers_its_scale_and_goes_on(studio: Studio) -> None:
    outcome = studio.train(max_steps=2, precision="float16")
    assert outcome.step == 2
    scales, skipped = (studio.run().series(name)[1] for name in ("loss_scale", "train/skipped"))
    lowered = 0
    for scale, was_skipped in zip(scales, skipped, strict=True):
        lowered += int(was_skipped)
        assert scale == 65_536 / 2**lowered
    saved = read(studio.run().checkpoints / "latest_full.pth")
    assert saved["scaler"]["value"] == scales[-1]


def test_the_recipe_is_found_by_its_name() -> None:
    assert "melotts" in recipe_names()
