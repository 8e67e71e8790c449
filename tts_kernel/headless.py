"""Execute a notebook without a browser, into its run folder, and print what it concluded.

python -m tts_kernel.headless notebooks/02_stage2_grl.ipynb -p batch_size 24
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import yaml

from tts_kernel.runs import Run, cache_folder, check_run_name, runs_folder
from tts_kernel.settings import SettingsError


def execute(notebook: Path, run_name: str, parameters: dict[str, Any], timeout: int) -> Path:
    """Run `notebook` through papermill; its executed copy is `runs/<run_name>/notebook.ipynb`, whose path is returned.
    Raises papermill's PapermillExecutionError for a failing cell, with the copy saved up to it."""
    import papermill

    folder = runs_folder() / run_name
    folder.mkdir(parents=True, exist_ok=True)
    copy = folder / "notebook.ipynb"
    papermill.execute_notebook(
        str(notebook),
        str(copy),
        parameters={**parameters, "run_name": run_name},
        cwd=str(notebook.parent),
        kernel_name="python3",
        progress_bar=False,
        log_output=False,
        stdout_file=sys.stdout,
        stderr_file=sys.stderr,
        execution_timeout=timeout,
        extra_arguments=["--log-level=40"],  # else the kernel warns that it speaks unencrypted, to this machine alone
    )
    return copy


def where_executed() -> str:
    """Said by a running kernel: where the executed copy of its notebook is, as far as the process that started it
    tells. Under papermill that is its second argument, or standard output where there is none."""
    import psutil
    from papermill.cli import papermill as command

    if session := os.environ.get("JPY_SESSION_NAME"):  # Jupyter Server's name for the notebook
        return f"open in Jupyter: {session}; saved there, not in this folder"
    try:
        parent = psutil.Process(int(os.environ.get("JPY_PARENT_PID", os.getppid())))
        words, folder = parent.cmdline(), Path(parent.cwd())
    except (psutil.Error, ValueError):
        return "unknown: the process that started the kernel could not be asked"
    names = [Path(word).name for word in words]
    if "papermill" not in names:
        return f"run by `{' '.join(words)}` in {folder}; an executed copy is where that program writes it"
    given = command.make_context("papermill", words[names.index("papermill") + 1 :], resilient_parsing=True).params
    output = given.get("output_path")
    if output in (None, "", "-"):
        return f"papermill wrote the executed copy of {given.get('notebook_path')} to its standard output"
    return str(folder / output)


def stop_kernel_first() -> None:
    """From now on SIGINT and SIGTERM interrupt the kernel, whose training saves and stops; a second one does what it
    would have done. Without this the process would end and take its kernel along, unsaved."""
    import psutil

    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def ask(number: int, frame: Any) -> None:
        for watched, handler in before.items():
            signal.signal(watched, handler)
        kernels = [
            child
            for child in psutil.Process().children(recursive=True)
            if any("ipykernel_launcher" in word for word in child.cmdline())
        ]
        if not kernels:
            signal.raise_signal(number)
        print("stopping: waiting for the kernel to save; a second signal does not wait", file=sys.stderr, flush=True)
        for kernel in kernels:
            kernel.send_signal(signal.SIGINT)

    for number in before:
        signal.signal(number, ask)


def main(arguments: list[str] | None = None) -> int:
    """0 when the notebook ran to its end, 1 when a cell failed or the run was stopped."""
    parser = argparse.ArgumentParser(prog="python -m tts_kernel.headless", description=__doc__.split("\n")[0])
    parser.add_argument("notebook", type=Path)
    parser.add_argument("-p", nargs=2, action="append", default=[], metavar=("NAME", "VALUE"), help="a parameter")
    parser.add_argument("-f", type=Path, metavar="FILE", help="YAML file of parameters; -p goes before it")
    parser.add_argument("--run-name", default="", help="default: the notebook's name and the time")
    parser.add_argument("--timeout", type=int, default=7 * 24 * 3600, help="seconds for one cell")
    options = parser.parse_args(arguments)
    notebook = options.notebook.resolve()
    for needed in filter(None, (options.notebook, options.f)):
        if not needed.is_file():
            parser.error(f"{needed}: no such file")
    try:
        parameters = read_parameters(options.f, dict(options.p))
        name = options.run_name or str(parameters.get("run_name") or "")
        name = name or time.strftime(f"{notebook.stem}-%Y%m%d-%H%M%S", time.gmtime())
        check_run_name(name)
    except ValueError as error:
        parser.error(str(error))
    from nbclient.exceptions import DeadKernelError
    from papermill.exceptions import PapermillExecutionError

    started = time.monotonic()
    print(f"run {name}; prepared corpora and base models are kept in {cache_folder()}", flush=True)
    stop_kernel_first()
    try:
        copy = execute(notebook, name, parameters, options.timeout)
    except (PapermillExecutionError, DeadKernelError, KeyboardInterrupt) as error:
        print(str(error) or type(error).__name__, file=sys.stderr)
        print(f"stopped; what the run left lies in {runs_folder() / name}", file=sys.stderr)
        if has_checkpoint(runs_folder() / name):
            print(f"it has a checkpoint: go on with --run-name {name}", file=sys.stderr)
        return 1
    Run(copy.parent).note_notebook("notebook.ipynb, in this folder")
    print(conclusion(copy.parent, time.monotonic() - started))
    return 0


def read_parameters(file: Path | None, given: dict[str, str]) -> dict[str, Any]:
    """Of a YAML file, and over them those of the command line. Raises SettingsError for what is no YAML, or no mapping
    of names to values."""
    try:
        values = yaml.safe_load(file.read_text(encoding="utf-8")) or {} if file else {}
        if not isinstance(values, dict):
            raise SettingsError(f"{file}: found a {type(values).__name__}, expected lines of `name: value`")
        return values | {name: yaml.safe_load(value) for name, value in given.items()}
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise SettingsError(f"{file or given}: no YAML: {error}") from error


def has_checkpoint(folder: Path) -> bool:
    """Whether the run in `folder` has something to go on from: its own or, where it trains several models, a part's."""
    names = [f"{part}checkpoints/{name}" for part in ("", "*/") for name in ("latest_full.pth", "step_*.pth")]
    return any(True for name in names for _ in folder.glob(name))


def conclusion(folder: Path, seconds: float) -> str:
    """What the run learned, and where everything lies."""
    result = json.loads((folder / "result.json").read_text(encoding="utf-8"))
    lines = ["", f"Done in {seconds:.0f} s.", *result.get("summary", []), ""]
    for title, name in (("notebook", "notebook.ipynb"), ("checkpoint", result.get("checkpoint"))):
        lines += [f"{title:<11} {folder / name}"] if name else []
    names = ", ".join(path.name for path in sorted((folder / "figures").glob("*.png")))
    lines.append(f"{'figures':<11} {folder / 'figures'}: {names}")
    return "\n".join(lines)


if __name__ == "__main__":
    raise SystemExit(main())
