# Two commands are enough: `make demo` and `make test`. Both set up everything first.
SHELL := /bin/sh
.DEFAULT_GOAL := help
unexport PYTHONDONTWRITEBYTECODE
export PYTHONUNBUFFERED := 1

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: help setup demo test lint fmt up down lock vectors bench bench-peers adversary fuzz clean

help: ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 12

setup: $(READY) ## make .venv from the hash-locked requirements

$(READY): requirements.lock requirements-bootstrap.lock pyproject.toml mpc_ops/pyproject.toml mpc_ops/setup.py \
		mpc_ops/kernels/kernels.c mpc_ops/kernels/kernels.h infra/setup.sh
	@PYTHON="$(PYTHON)" VENV="$(VENV)" sh infra/setup.sh
	@touch $(READY)

demo: $(READY) ## run the first group report, three months, on real servers
	@$(BIN)/python infra/demo/run.py $(if $(SCHEDULERS),--schedulers,)

test: $(READY) ## run every test
	@$(BIN)/python -m pytest $(PYTEST_ARGS)

lint: $(READY) ## style, types and layering
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

fmt: $(READY) ## format the sources
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix-only .

up: $(READY) ## start real schedulers and web pages of two sites on loopback (FRESH=1: all anew)
	@$(BIN)/python infra/demo/up.py up $(if $(FRESH),--fresh,)

down: $(READY) ## stop what `make up` started
	@$(BIN)/python infra/demo/up.py down

lock: ## resolve requirements.in again into requirements.lock (all platforms, Python 3.11 to 3.14)
	@$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
		--no-emit-find-links --no-header requirements.in -o requirements.lock
	@$(BIN)/python infra/bootstrap_lock.py

vectors: $(READY) ## write the test vectors again
	@$(BIN)/python tests/vectors/make_vectors.py

bench: $(READY) ## measure the engine: three processes, W1 to W7 (ARGS="--only W1,W2 --link 80ms:300mbit")
	@$(BIN)/python tests/benchmarks/engine_bench/run.py $(ARGS)

adversary: $(READY) ## attack every message of every protocol, in every position (ARGS="--program flow")
	@$(BIN)/python tests/adversary/run_matrix.py --out var/adversary.json $(ARGS)
	@ADVERSARY_RUNS=10000 $(BIN)/python -m pytest -q -n 2 -p no:cacheprovider --timeout=3600 tests/adversary/test_views.py

fuzz: $(READY) ## give every decoder strange bytes for a while (FUZZ_SECONDS each, FUZZ_SEED)
	@FUZZ_SECONDS=$${FUZZ_SECONDS:-20} FUZZ_SEED=$${FUZZ_SEED:-1} $(BIN)/python -m pytest -q -p no:cacheprovider tests/adversary/test_fuzz*.py

bench-peers: $(READY) ## the engine beside SPU and MPyC in one run (installs them into var/bench/peers)
	@$(BIN)/python tests/benchmarks/engine_peers/run.py $(ARGS)

clean: ## remove what setup, tests and the demo made
	rm -rf $(VENV) var .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
