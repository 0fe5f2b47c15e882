# Every target makes what it needs: a virtual environment in .venv and the packages for that target only.
#   make demo | test | lint | bench | docs        PYTHON=python3.12 make test   picks another interpreter

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet -c constraints.txt
INPUTS := pyproject.toml constraints.txt

# Nothing here may phone home, wait for a network or open a window.
export HF_HUB_OFFLINE := 1
export HF_HUB_DISABLE_TELEMETRY := 1
export FLWR_TELEMETRY_ENABLED := 0
export RAY_USAGE_STATS_ENABLED := 0
export NO_MKDOCS_2_WARNING := 1
export MPLBACKEND := Agg
export TOKENIZERS_PARALLELISM := false
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.DEFAULT_GOAL := help
.PHONY: help demo test lint format bench docs clean

help:  ## show this list
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 16

demo: $(VENV)/.run  ## fine-tune a real language model across four clients, on two CPU cores
	$(BIN)/covector finetune --preset demo --out runs/demo

# pytest comes last, so that its closing line closes the output.
test: export OMP_NUM_THREADS := 1
test: $(VENV)/.dev  ## the floors, the types, every test and every example of the docs
	$(BIN)/lint-imports --no-logo
	$(BIN)/mypy
	$(BIN)/python -m pytest

lint: $(VENV)/.dev  ## style, format, types and the floors
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

format: $(VENV)/.dev  ## rewrite the sources in the project's format
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(VENV)/.bench  ## measure ours against the usual way, as ratios
	@for file in benchmarks/[a-z]*.py; do echo "== $$file"; $(BIN)/python $$file || exit 1; done

docs: $(VENV)/.docs  ## build the documentation into site/
	$(BIN)/mkdocs build --strict
	@echo "built site/index.html"

clean:  ## remove the environment, the caches and what the builds left
	rm -rf $(VENV) site dist build .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find src tests benchmarks docs -name __pycache__ -type d -prune -exec rm -rf {} + 2>/dev/null || true

# One stamp an install: a second run does nothing, a changed pyproject.toml or constraints.txt installs again.
$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  echo "Covector needs Python 3.11 or newer; '$(PYTHON)' is $$($(PYTHON) --version 2>&1)."; \
	  echo "Name a newer one: make PYTHON=python3.12 ..."; exit 1; }
	@echo "creating $(VENV) with $$($(PYTHON) --version)"
	@$(PYTHON) -m venv $(VENV) || { echo "venv is missing: on Debian, apt-get install python3-venv"; exit 1; }

# torch first and alone: the constraint decides its build, before any package that only asks for "torch".
$(VENV)/.torch: constraints.txt | $(BIN)/python
	@echo "installing torch (once)"
	@$(PIP) torch
	@touch $@

$(VENV)/.run: $(INPUTS) $(VENV)/.torch
	@echo "installing covector with its language and federated extras"
	@$(PIP) -e '.[language,federated]'
	@touch $@

$(VENV)/.dev: $(VENV)/.run
	@echo "installing what the tests need"
	@$(PIP) -e '.[language,data,federated,tensorboard,lightning,dev]'
	@touch $@

$(VENV)/.bench: $(VENV)/.run
	@echo "installing what the benchmarks need"
	@$(PIP) -e '.[language,federated,data,bench]'
	@touch $@

$(VENV)/.docs: $(INPUTS) $(VENV)/.torch
	@echo "installing what the documentation needs"
	@$(PIP) -e '.[docs]'
	@touch $@
