# Thin: each verb is one command. `make demo` and `make test` set up everything on a machine that has
# Python, make and git only.
VENV ?= .venv
BIN := $(VENV)/bin
UV := $(or $(shell command -v uv 2>/dev/null),.uv/bin/uv)
export VIRTUAL_ENV := $(abspath $(VENV))
# `default` or `cpu` (without CUDA's libraries); what is there stays unless another is typed
INSTALLED := $(shell cat $(VENV)/.ready 2>/dev/null)
TORCH ?= $(or $(INSTALLED),default)

.PHONY: setup demo test check docs-check bench lock clean

setup: $(VENV)/.ready

# Compiled bytecode halves every later start.
$(VENV)/.ready: requirements.lock pyproject.toml $(if $(filter $(TORCH),$(INSTALLED)),,another) | $(filter .uv/%,$(UV))
	test -x $(BIN)/python || $(UV) venv --quiet --python '>=3.11' $(VENV)
	scripts/setup.sh $(UV) $(TORCH)

.PHONY: another
another:

.uv/bin/uv:
	python3 -m venv .uv
	.uv/bin/python -m pip install --quiet uv

demo: setup
	$(BIN)/crgan train experiment=demo

test: setup
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses auto --dist loadfile

check: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

# Run every command of the documentation at a tiny scale: some minutes on two cores.
docs-check: setup
	$(BIN)/python scripts/docs_check.py

# A minute on two cores. On a GPU: scripts/gpu_check.py, then bench.py without --device.
bench: setup
	$(BIN)/python scripts/bench.py train --arch sndcgan,resnet_sngan --reg none,gp,cr,icr \
	  --engine eager --precision fp32,bf16 --device cpu --batch 16 --width 0.25 --rounds 5 \
	  --json outputs/bench/train.json --markdown outputs/bench/train.md
	$(BIN)/python scripts/bench.py micro --device cpu --batch 16 --dims 1024 --rounds 5 \
	  --json outputs/bench/micro.json --markdown outputs/bench/micro.md

# The versions that everything is tested with: hashed, for every platform, whatever the index.
lock:
	$(UV) pip compile --quiet --universal --upgrade --python-version 3.11 --generate-hashes \
	  --group dev --no-emit-index-url --custom-compile-command 'make lock' \
	  --output-file requirements.lock pyproject.toml

clean:
	rm -rf $(VENV) .uv .pytest_cache .ruff_cache build dist
