# Everything runs inside .venv, which `make env` makes; nothing outside this folder is touched.
PYTHON ?= python3
# Processes of pytest; one thread each (tests/conftest.py).
WORKERS ?= 2
PYTEST_ARGS ?=
# Tests that compute with torch in their own process.
PORTABLE := tests/contract tests/golden tests/property tests/unit

VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

# DVC's stages and the demo's subprocesses find the same programs as we do.
export PATH := $(CURDIR)/$(BIN):$(PATH)
export PIP_DISABLE_PIP_VERSION_CHECK := 1

# One target after the other under `make -j` too: headings stay with their output.
.NOTPARALLEL:
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help
.PHONY: help env demo tune-demo test lint types layers tests test-faults test-portable test-slow format bench docs clean

help: ## Show this list
	@printf 'Targets (PYTHON=%s makes the environment):\n' '$(PYTHON)'
	@sed -n 's/^\([a-z-]*\):[^#]*## \(.*\)/  make \1\t\2/p' Makefile | expand -t 20

env: $(READY) ## Make .venv and install the package with its tools

$(READY): pyproject.toml
	@printf '\n== Environment (%s), once\n' '$(VENV)'
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		printf 'Python 3.11 or newer is needed; "%s" is not. Try: make PYTHON=python3.12 env\n' \
			'$(PYTHON)' >&2; exit 1; }
	@"$(PYTHON)" -m venv $(VENV) || { \
		printf 'No virtual environment could be made. On Debian: apt install python3-venv\n' >&2; \
		exit 1; }
	@$(BIN)/python -m pip install --editable '.[dev]'
	@touch $(READY)

demo: env ## Build a small bank with real data and predict with it (6 to 9 minutes)
	@printf '\n== Demonstration\n'
	@$(BIN)/adapterbank demo

tune-demo: env ## Search N, rank and kernel on two tasks, then build them (9 minutes)
	@printf '\n== Demonstration of a search\n'
	@$(BIN)/adapterbank demo --tune

test: lint layers ## Check everything: lint, layers, types and tests side by side (5 minutes)
	@$(MAKE) --no-print-directory types >$(VENV)/types.log 2>&1 & types=$$!; \
		$(MAKE) --no-print-directory tests; tests=$$?; \
		wait $$types; types=$$?; cat $(VENV)/types.log; rm -f $(VENV)/types.log; \
		exit $$((tests + types))

lint: env ## Check style and formatting
	@printf '\n== Lint (ruff)\n'
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check

types: env ## Check types
	@printf '\n== Types (mypy --strict)\n'
	@$(BIN)/mypy

layers: env ## Check that imports go downwards only
	@printf '\n== Import layers (import-linter)\n'
	@$(BIN)/lint-imports --no-logo

tests: env ## Run the tests
	@printf '\n== Tests (pytest)\n'
	@$(BIN)/python -m pytest --numprocesses $(WORKERS) --dist worksteal $(PYTEST_ARGS)

test-faults: env ## Kill, fill, flip and race, and what takes long (18 minutes)
	@printf '\n== Tests under faults (pytest)\n'
	@$(BIN)/python -m pytest --numprocesses $(WORKERS) --dist worksteal \
		-m '(faults or slow) and not gpu and not network' $(PYTEST_ARGS)

# Other kernels give other last bits: a test that needs equal ones of two computations fails here.
test-portable: env ## Run the tests with plain kernels and two threads, as on another processor
	@printf '\n== Tests on plain kernels (pytest)\n'
	@ATEN_CPU_CAPABILITY=default ONEDNN_MAX_CPU_ISA=SSE41 OMP_NUM_THREADS=2 OMP_WAIT_POLICY=PASSIVE \
		$(BIN)/python -m pytest --numprocesses $(WORKERS) --dist worksteal \
		$(PORTABLE) $(PYTEST_ARGS)

test-slow: env ## Run the slow tests too
	@printf '\n== All tests but those for a GPU or a network (pytest)\n'
	@$(BIN)/python -m pytest --numprocesses $(WORKERS) --dist worksteal \
		-m 'not gpu and not network' $(PYTEST_ARGS)

format: env ## Format the code and mend what can be mended
	@printf '\n== Format (ruff)\n'
	@$(BIN)/ruff check --fix-only
	@$(BIN)/ruff format

bench: env ## Time a training step and a forward against the method as drawn
	@printf '\n== Benchmark of a step\n'
	@$(BIN)/python -m benchmarks.step

docs: env ## Build the documentation in site/, strictly
	@printf '\n== Documentation (mkdocs)\n'
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

clean: ## Remove the environment and every cache; a bank's data stays
	@printf '\n== Clean\n'
	@rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis \
		.import_linter_cache site ./*.egg-info
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
