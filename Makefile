# Two commands do all the set-up they need: make run, make test.
PYTHON ?= python3
BIN := .venv/bin
SOURCES := fmexp tests benchmarks

.DEFAULT_GOAL := help
.PHONY: help install torch run ui test lint types unit wheel bench soak clean

help: ## list the targets
	@awk -F':.*## ' '/^[a-z]+:.*## /{printf "  make %-8s %s\n", $$1, $$2}' Makefile

install: .venv/installed ## make .venv with fmexp and its pinned dependencies

run: .venv/installed ## train on the default data, record it in ./mlflow.db
	$(BIN)/fmexp run

ui: .venv/installed ## MLflow's UI on ./mlflow.db
	$(BIN)/fmexp ui

torch: .venv/torch ## add PyTorch, for backend=torch_adam

test: lint types unit wheel ## what CI runs: lint, types, tests, and the wheel outside the checkout

lint: .venv/dev
	$(BIN)/ruff check $(SOURCES)
	$(BIN)/ruff format --check $(SOURCES)

types: .venv/dev
	$(BIN)/mypy

unit: .venv/dev
	$(BIN)/pytest -q

wheel: .venv/dev
	$(BIN)/python tests/check_wheel.py

bench: .venv/dev ## every benchmark, with its table
	for script in benchmarks/[a-z]*.py; do $(BIN)/python $$script || exit 1; done

clean: ## remove .venv and what tools left
	rm -rf .venv dist .mypy_cache .pytest_cache .ruff_cache .hypothesis

# The environment is made anew when the pins change. `|| rm` leaves no half-made one behind.
.venv/installed: constraints.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "fmexp needs Python 3.11 or newer: make PYTHON=/path/to/python3.11 $(MAKECMDGOALS)"; exit 1; }
	rm -rf .venv
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e .
	touch $@

.venv/torch: .venv/installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[torch]'
	touch $@

.venv/dev: .venv/torch
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[torch,dev]'
	touch $@
