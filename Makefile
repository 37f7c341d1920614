# Two commands do all the set-up they need: make run, make test.
PYTHON ?= python3
BIN := .venv/bin
SOURCES := fmexp hydra_plugins tests benchmarks docs examples

.DEFAULT_GOAL := help
.PHONY: help install torch run ui test lint types unit settings wheel compat bench soak clean

help: ## list the targets
	@awk -F':.*## ' '/^[a-z]+:.*## /{printf "  make %-8s %s\n", $$1, $$2}' Makefile

run: .venv/installed ## train on the default data, record it in ./mlflow.db
	$(BIN)/fmexp run

test: .venv/dev ## what CI runs: lint, types, the wheel outside the checkout, tests
	@$(MAKE) --no-print-directory -j2 lint types wheel
	@$(MAKE) --no-print-directory unit

ui: .venv/installed ## MLflow's UI on ./mlflow.db
	$(BIN)/fmexp ui

install: .venv/installed ## make .venv with fmexp and its pinned dependencies, nothing else

torch: .venv/torch ## add PyTorch to .venv, for backend=torch_adam

lint: .venv/dev
	$(BIN)/ruff check $(SOURCES)
	$(BIN)/ruff format --check $(SOURCES)

types: .venv/dev
	$(BIN)/mypy

unit: .venv/dev
	$(BIN)/pytest -q -n 2 --dist worksteal

# Two at a time, and one thread in each of torch's: CI has two cores.
settings: .venv/dev ## tests that touch torch or kernels, on code paths of other CPUs
	@printf '%s\n' 'NUMBA_CPU_NAME=x86-64-v2 NUMBA_CPU_FEATURES= $(BIN)/pytest -q -k golden' \
	  'ATEN_CPU_CAPABILITY=default OMP_NUM_THREADS=1 $(BIN)/pytest -q -k torch' \
	  'ATEN_CPU_CAPABILITY=avx2 OMP_NUM_THREADS=1 $(BIN)/pytest -q -k torch' \
	  'OMP_NUM_THREADS=1 $(BIN)/pytest -q -k "torch or golden"' | xargs -d '\n' -P 2 -I% \
	  sh -c 'env % tests/test_backends_golden.py tests/test_backends_torch_adam.py \
	  tests/test_training_fit.py || exit 255'

wheel: .venv/dev
	$(BIN)/python tests/check_wheel.py

compat: ## the tests with the lowest and the highest versions of what fmexp needs (half an hour)
	$(PYTHON) tests/check_compat.py $(SET) -n 2 --dist worksteal

bench: .venv/bench ## every benchmark, each with its table
	for script in $$(grep -l __main__ benchmarks/*.py); do \
	  echo "== $$script"; $(BIN)/python $$script || exit 1; done

soak: .venv/dev ## kill, race and repeat far more often than the tests do (half an hour)
	FMEXP_SLOW=1 FMEXP_KILLS=10 FMEXP_TOGETHER=20 $(BIN)/pytest -q tests/test_record_kills.py tests/test_together.py
	FMEXP_SLOW=1 FMEXP_REPRODUCE=40 $(BIN)/pytest -q tests/test_reproduce.py
	FMEXP_SOAK=1 $(BIN)/pytest -q tests/test_sweep_crashes.py tests/test_sweep_races.py tests/test_record_server.py tests/test_ui.py tests/test_clusters.py tests/test_sweep_machines.py tests/test_slurm.py tests/test_scale.py tests/test_data_exports.py tests/hostile

clean: ## remove .venv and what tools left
	rm -rf .venv .compat dist .mypy_cache .pytest_cache .ruff_cache .hypothesis

# The environment is made anew when the pins change. Each of these is one call of pip; all cores
# compile what pip would compile with one, tests of other packages left out.
.venv/made: constraints.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "fmexp needs Python 3.11 or newer: make PYTHON=/path/to/python3.11 $(MAKECMDGOALS)"; exit 1; }
	rm -rf .venv
	$(PYTHON) -m venv .venv
	touch $@

.venv/torch: EXTRAS := [torch]
.venv/dev: EXTRAS := [torch,dev]
.venv/bench: EXTRAS := [torch,dev,bench]
.venv/dev .venv/bench: HOLDS := .venv/torch
.venv/bench: HOLDS += .venv/dev
.venv/installed .venv/torch .venv/dev .venv/bench: .venv/made
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile -c constraints.txt -e '.$(EXTRAS)'
	@$(BIN)/python -m compileall -q -j 0 -x '/tests?/' .venv/lib fmexp hydra_plugins >/dev/null || true # a file needs Python 3.12
	$(BIN)/python -m fmexp.backends.warm
	touch .venv/installed $(HOLDS) $@
