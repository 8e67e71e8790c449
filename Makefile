# `make` alone lists what can be done. PYTHON=python3.12 picks the interpreter, JOBS=8 the number of test processes.
# `make bench-data ROWS=200000 SCRATCH=/mnt/fast` measures a smaller manifest, its files on that disk; BENCH_ARGS goes
# to `python -m benchmarks.data`, whose --help lists the rest.
SHELL := /bin/sh
.DEFAULT_GOAL := help
.PHONY: help env demo test lab check notebooks bench-data bench-training bench-diagnosis bench-melotts clean distclean

PYTHON ?=
JOBS ?= 2
BIN := .venv/bin

# One thread per process: JOBS processes share the cores. No bars: their timings would be part of a notebook's outputs.
TESTING := OMP_NUM_THREADS=1 TQDM_DISABLE=1
CELL_SECONDS := 600

help: ## list these targets
	@echo "tts_kernel: fine-tune open TTS models. Start with: make demo"
	@awk 'BEGIN { FS = ":.*## " } /^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' Makefile

env: ## make .venv and install the pinned packages; does nothing when they are in place
	@for python in $(or $(PYTHON),python3.11 python3.12 python3); do \
	    if "$$python" -c 'import ensurepip, sys, venv; sys.exit(not (3, 11) <= sys.version_info < (3, 13))' 2>/dev/null; then \
	        exec "$$python" tools/make_env.py $(if $(PYTHON),--this-python); \
	    fi; \
	done; \
	echo "make env: no usable Python among: $(or $(PYTHON),python3.11 python3.12 python3)." >&2; \
	echo "Needed: Python 3.11 or 3.12 with its venv module (Debian: apt-get install python3-venv)." >&2; \
	echo "Name yours with: make env PYTHON=/path/to/python3.12" >&2; \
	exit 1

demo: env ## train stage 2 on the embedded demo corpus, on a CPU, and write a run folder
	@echo "demo: running notebooks/02_stage2_grl.ipynb with its defaults"
	@$(BIN)/python -m tts_kernel.headless notebooks/02_stage2_grl.ipynb

test: check ## all that CI checks: the house rules, the test suite, the notebooks
	@echo "test: the suite, in $(JOBS) processes"
	@$(TESTING) $(BIN)/python -m pytest -n $(JOBS) -m "not gpu" --ignore=tests/house
	@echo "test: every notebook runs, and its stored outputs still hold"
	@$(TESTING) $(BIN)/python -m pytest --nbval-lax --nbval-current-env --nbval-cell-timeout $(CELL_SECONDS) \
	    --timeout $$(($(CELL_SECONDS) + 60)) -n $(JOBS) --dist loadfile -p no:cacheprovider notebooks/

lab: env ## open JupyterLab on this folder; it prints the address with its token
	@$(BIN)/python -m jupyterlab --ServerApp.root_dir=. $(LAB_ARGS)

check: env ## the quick part of the tests: style, types, house rules
	@echo "check: ruff, mypy, then tests/house"
	@$(BIN)/python -m ruff check .
	@$(BIN)/python -m ruff format --check .
	@$(BIN)/python -m mypy
	@$(BIN)/python -m pytest -q tests/house

notebooks: env ## run every notebook again and store the outputs that nbval compares
	@$(TESTING) $(BIN)/python -m tools.record_notebooks --cell-seconds $(CELL_SECONDS)

bench-data: env ## measure the data layer at the guide's size (15 minutes, 20 GB of disk), write docs/benchmarks/data.md
	@$(BIN)/python -m benchmarks.data $(if $(ROWS),--rows $(ROWS)) $(if $(SCRATCH),--scratch $(SCRATCH)) $(BENCH_ARGS)

bench-training: env ## measure the training engine beside a plain loop (over an hour), write docs/benchmarks/training.md
	@$(BIN)/python -m benchmarks.training $(if $(SCRATCH),--scratch $(SCRATCH)) $(BENCH_ARGS)

bench-diagnosis: env ## measure the diagnosis of damaged runs on simulated ones (4 minutes), write docs/benchmarks/recovery.md
	@$(BIN)/python -m benchmarks.diagnosis $(BENCH_ARGS)

bench-melotts: env ## measure MeloTTS's training beside its usual loop (8 minutes), write docs/benchmarks/melotts.md
	@$(BIN)/python -m benchmarks.melotts $(BENCH_ARGS)

clean: ## remove caches and build leftovers; keeps .venv and runs
	@echo "clean: removing caches (.venv and runs stay)"
	@rm -rf .mypy_cache .pytest_cache .ruff_cache build dist *.egg-info
	@find tts_kernel tests tools benchmarks notebooks -name __pycache__ -prune -exec rm -rf {} + 2>/dev/null || true
	@find notebooks -name .ipynb_checkpoints -prune -exec rm -rf {} + 2>/dev/null || true

distclean: clean ## clean, and remove .venv too; keeps runs
	@echo "distclean: removing .venv"
	@rm -rf .venv
