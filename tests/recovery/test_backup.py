from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tts_kernel.recovery import backup
from tts_kernel.recovery.backup import BackupError, check, moves


def make_run(folder: Path) -> Path:
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "metrics.jsonl").write_text('{"step": 1}\n', encoding="utf-8")
    (folder / "checkpoints" / "latest.pth").write_bytes(b"weights")
    return folder


def test_a_run_of_ours_goes_away_whole_and_keeps_every_byte(tmp_path: Path) -> None:
    run = make_run(tmp_path / "voice")
    (move,) = moves(run, [], ours=True)
    check([move], tmp_path)
    move.carry_out()
    assert not run.exists()
    assert move.target.parent == tmp_path
    assert move.target.name.startswith("voice-backup-20")
    assert (move.target / "checkpoints" / "latest.pth").read_bytes() == b"weights"


def test_of_another_programs_run_only_the_checkpoints_move(tmp_path: Path) -> None:
    files = [tmp_path / "latest.pth", tmp_path / "ckpts" / "step_7.pth"]
    for path in files:
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(path.name.encode())
    (tmp_path / "train.log").write_text("log", encoding="utf-8")
    planned = moves(tmp_path, files, ours=False)
    for move in planned:
        move.carry_out()
    assert [move.target.read_bytes() for move in planned] == [b"latest.pth", b"step_7.pth"]
    assert (tmp_path / "train.log").exists()


def test_a_move_that_has_been_done_is_not_done_again(tmp_path: Path) -> None:
    (move,) = moves(make_run(tmp_path / "voice"), [], ours=True)
    move.carry_out()
    again = make_run(tmp_path / "voice")  # the restart's own
    move.carry_out()
    assert (again / "checkpoints" / "latest.pth").exists()


def test_a_backup_on_another_file_system_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (move,) = moves(make_run(tmp_path / "voice"), [], ours=True)
    monkeypatch.setattr(backup, "_device", lambda path: hash(path))
    with pytest.raises(BackupError, match="another file system"):
        check([move], tmp_path)
    assert move.source.exists()


def test_too_little_room_for_new_checkpoints_beside_the_old_is_told_with_both_sizes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (move,) = moves(make_run(tmp_path / "voice"), [], ours=True)
    (move.source / "checkpoints" / "big.pth").write_bytes(bytes(3_000_000))
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(backup.shutil, "disk_usage", lambda path: usage._replace(free=1_000_000))
    with pytest.raises(BackupError, match=r"3\.0 MB.*1\.0 MB are free.*TTS_KERNEL_RUNS"):
        check([move], tmp_path / "not" / "yet" / "there")
    assert move.source.exists()


def test_a_move_that_fails_says_that_nothing_has_moved(tmp_path: Path) -> None:
    (move,) = moves(tmp_path / "missing", [], ours=True)
    with pytest.raises(BackupError, match="it is where it was"):
        move.carry_out()
