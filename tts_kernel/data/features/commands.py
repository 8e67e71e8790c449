"""The commands of `python -m tts_kernel.data.features`."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Iterable
from pathlib import Path

from tts_kernel.data.features.compact import compact
from tts_kernel.data.features.features import FOLDER, Features
from tts_kernel.data.features.folder_lock import StoreError
from tts_kernel.data.features.pack import KINDS, pack
from tts_kernel.data.features.shard_check import check

HALF = ("mel", "condition")  # whose values float16 holds without a measurable effect on the loss
SHOWN = 20  # failures that are printed

log = logging.getLogger(__name__)


def main(arguments: list[str] | None = None) -> int:
    """Returns 1 if something is damaged, unreadable or not as it should be, else 0."""
    parser = argparse.ArgumentParser(
        prog="python -m tts_kernel.data.features", description="Packed features of a data folder."
    )
    commands = parser.add_subparsers(dest="command", required=True)
    packing = commands.add_parser("pack", help="pack the folders of .npy files into DATA/features/")
    packing.add_argument("--kinds", nargs="+", help=f"folders to pack; those of {', '.join(KINDS)} that are there")
    packing.add_argument(
        "--half", nargs="*", help=f"kinds to store as float16; without names {' and '.join(HALF)}", metavar="KIND"
    )
    packing.add_argument("--delete-source", action="store_true", help="remove each file once its array was read back")
    packing.add_argument("--workers", type=int, default=1, help="processes")
    packing.add_argument("--clips-per-shard", type=int, default=4096)
    checking = commands.add_parser("check", help="compare every array with its checksum")
    compacting = commands.add_parser("compact", help="put the indices of all shards together into one file")
    for command in (packing, checking, compacting):
        command.add_argument("data", type=Path, help="data folder")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    if not options.data.is_dir():
        log.error("%s: no such folder; expected a data folder", options.data)
        return 1
    try:
        return {"pack": _pack, "check": _check, "compact": _compact}[options.command](options)
    except (StoreError, ValueError) as error:
        log.error("%s", error)
        return 1


def _pack(options: argparse.Namespace) -> int:
    half = options.half
    if half is not None and not half:
        half = [kind for kind in HALF if kind in (options.kinds or KINDS) and (options.data / kind).is_dir()]
    report = pack(
        options.data, options.kinds, options.clips_per_shard, half or (), options.workers, options.delete_source
    )
    _show(f"{path}: {reason}" for path, reason in report.failures)
    log.info("%s", report)
    damaged = Features(options.data).problems
    _show(damaged)
    return int(bool(report.failures or damaged))


def _check(options: argparse.Namespace) -> int:
    report = check(options.data, options.data / FOLDER, [kind for kind in KINDS if (options.data / kind).is_dir()])
    for line in (*report.problems, *report.damaged):  # all: it is what was asked for
        log.warning("%s", line)
    log.info("%s", report)
    return int(bool(report.problems or report.damaged))


def _compact(options: argparse.Namespace) -> int:
    before, after = compact(options.data / FOLDER)
    log.info("%s: %d indices, now %d", options.data / FOLDER, before, after)
    return 0


def _show(lines: Iterable[str]) -> None:
    shown = list(lines)
    for line in shown[:SHOWN]:
        log.warning("%s", line)
    if len(shown) > SHOWN:
        log.warning("and %d more; `check` lists them", len(shown) - SHOWN)
