from __future__ import annotations

import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from tests.data.features.stored import write_shard
from tts_kernel.data.features import Features
from tts_kernel.data.features.compact import compact
from tts_kernel.data.features.folder_lock import StoreError, as_worker
from tts_kernel.data.features.store_lock import free_names, writing

MEL = {"mel/a": np.zeros((3, 2))}
HOLDING = """
import sys, time
from pathlib import Path
from tts_kernel.data.features.folder_lock import as_worker
from tts_kernel.data.features.store_lock import writing
folder = Path(sys.argv[1])
with writing(folder, "mel extraction") if sys.argv[2] == "job" else as_worker(folder):
    print("holds", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "features").mkdir()
    return tmp_path / "features"


def holder(folder: Path, what: str) -> subprocess.Popen[str]:
    process = subprocess.Popen([sys.executable, "-c", HOLDING, folder, what], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "holds\n"
    return process


def test_a_second_job_is_refused_with_the_name_of_the_first_until_that_dies(folder: Path) -> None:
    process = holder(folder, "job")
    try:
        with pytest.raises(StoreError) as caught, writing(folder, "packing"):
            pass
        first = f"job 'mel extraction' (pid {process.pid} on {socket.gethostname()}, since "
        assert first in str(caught.value)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    with writing(folder, "packing"):  # what a dead process held is free
        pass


def test_a_second_job_of_the_same_process_is_refused(folder: Path) -> None:
    refused = pytest.raises(StoreError, match=rf"job 'one' \(pid {os.getpid()} ")
    with writing(folder, "one"), refused, writing(folder, "two"):
        pass
    with writing(folder, "two"):
        pass


def test_a_job_that_ended_with_an_error_holds_nothing(folder: Path) -> None:
    with pytest.raises(KeyError), writing(folder, "one"):
        raise KeyError
    with writing(folder, "two"):
        pass


def test_many_workers_of_one_job_write_at_once(folder: Path) -> None:
    with writing(folder, "one"), as_worker(folder), as_worker(folder):
        write_shard(folder, "a", MEL)


def test_a_job_waits_for_workers_of_one_that_died(folder: Path) -> None:
    released = threading.Event()

    def work() -> None:
        with as_worker(folder):
            began.set()
            time.sleep(0.3)
            released.set()

    began = threading.Event()
    threading.Thread(target=work).start()
    began.wait()
    with writing(folder, "next"):
        assert released.is_set()


def test_a_worker_that_never_ends_is_named_at_last(folder: Path) -> None:
    process = holder(folder, "worker")
    (folder / f".mel-000001.{process.pid}.tmp").touch()
    try:
        named = pytest.raises(StoreError, match=rf"still writing \(\.mel-000001\.{process.pid}\.tmp\)")
        with named, writing(folder, "next", wait=0.1):
            pass
        assert (folder / f".mel-000001.{process.pid}.tmp").exists()
    finally:
        process.kill()
        process.wait()


def test_a_job_removes_what_is_unfinished_and_nothing_else(folder: Path) -> None:
    write_shard(folder, "whole", MEL)
    (folder / ".mel-000001.123.tmp").touch()
    (folder / ".mel-000001.arrow.123.tmp").touch()
    write_shard(folder, "alone", MEL)
    (folder / "alone.arrow").unlink()
    (folder / "notes.txt").touch()
    with writing(folder, "next"):
        left = {path.name for path in folder.iterdir()}
    assert left == {"whole.tar", "whole.arrow", "alone.tar", "notes.txt", ".job", ".workers"}


def test_shards_that_a_joint_index_lists_are_not_taken_for_unfinished(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_shard(folder, "a", MEL)
    write_shard(folder, "b", {"mel/b": MEL["mel/a"]})
    assert compact(folder) == (2, 1)
    with writing(folder, "next"):
        pass
    assert Features(folder.parent).has(["mel/a.npy", "mel/b.npy"]).all()
    (joint,) = folder.glob("index-*.arrow")
    joint.write_bytes(joint.read_bytes()[:100])  # now nobody knows which shards it lists
    with caplog.at_level(logging.WARNING), writing(folder, "next"):
        pass
    assert sorted(path.name for path in folder.glob("*.tar")) == ["a.tar", "b.tar"]
    assert "2 shards without an index of their own stay" in caplog.text


def test_free_names_count_on_from_those_that_are_there(folder: Path) -> None:
    write_shard(folder, "mel-000001", MEL)
    (folder / "mel-000003.tar").touch()
    names = free_names(folder, "mel")
    assert [next(names) for _ in range(3)] == ["mel-000002", "mel-000004", "mel-000005"]


def test_a_folder_that_cannot_be_made_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "features").write_text("a file")
    with pytest.raises(StoreError, match=r"features: cannot be made"), writing(tmp_path / "features", "job"):
        pass
