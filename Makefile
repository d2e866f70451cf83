# qmdd: everything that a fresh clone needs, with Python >= 3.10 and make.
#
# The environment is made once, in .venv, from the files that were tested: requirements.lock,
# torch-cpu.lock and torch.lock hold their SHA-256 (constraints.txt their versions). It is made again
# when these, pyproject.toml or the native operators (runtime/native, C++) change. qmdd itself is
# installed editable: new files are seen at once. On Linux, pip's default torch brings CUDA libraries
# along; the smaller CPU build is taken where pip finds it: set PIP_EXTRA_INDEX_URL to PyTorch's index
# of CPU builds, or PIP_FIND_LINKS to a folder with it. A build that no lock lists:
# make TORCH=torch==2.13.0

PYTHON ?= python3
VENV ?= .venv
OUT ?= out/resnet23-w2a2-onnx
PYTEST_ARGS ?=
TORCH ?=

BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
NATIVE := $(wildcard runtime/native/*.cpp runtime/native/*.h) runtime/native/CMakeLists.txt
LINKS := build/mypy/qmdd
ROOMS := models calibration exporter runtime cli
PIP := $(BIN)/python -m pip install -qq --disable-pip-version-check

# In two steps: given both at once, pip takes the one whose hash an index states, not the CPU build
# in a folder.
ifeq ($(TORCH),)
TORCH_INSTALL = $(PIP) --no-deps --require-hashes --requirement torch-cpu.lock 2>/dev/null || \
  $(PIP) --no-deps --require-hashes --requirement torch.lock
else
TORCH_INSTALL = $(PIP) --no-deps $(TORCH)
endif

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help env export test test-browser test-deploy test-aarch64 test-docs test-hardening docs fuzz faults all-floats native-fuzz parity-matrix hostile lock engines lint clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

env: $(STAMP) ## make the environment in .venv

export: $(STAMP) ## export the built-in checkpoint and prove the result exact
	$(BIN)/qmdd export --bits 2 --force --output $(OUT)

test: $(STAMP) ## run the tests, one process a core (PYTEST_ARGS="-k word" for some of them)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist loadfile \
	  --ignore tests/browser --ignore tests/deploy --ignore tests/hardening $(PYTEST_ARGS)

test-deploy: $(STAMP) ## deploy to real OpenSSH servers on this machine, and break that (a few minutes)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist loadfile tests/deploy $(PYTEST_ARGS)

test-browser: $(STAMP) ## look at what is for people in headless Chromium (screenshots: out/screenshots)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/browser $(PYTEST_ARGS)

test-aarch64: $(STAMP) ## prove wheel and bundles on an emulated device of aarch64 (a few minutes)
	$(BIN)/python -m pytest tests/aarch64/check_device.py $(PYTEST_ARGS)

test-hardening: $(STAMP) ## try shortly to break it: fuzzing, faults, edges, trust (a few minutes)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto tests/hardening $(PYTEST_ARGS)

fuzz: $(STAMP) ## 1.2 million mutated inputs (over an hour; goes on where it was)
	$(BIN)/python -m hardening.fuzzing --record hardening/results/fuzzing.json

faults: $(STAMP) ## kill, starve and interrupt every command that writes (two hours; goes on)
	$(BIN)/python -m hardening.faults --record hardening/results/faults.json

all-floats: $(STAMP) ## every quantizer and width against its table on all 2^32 floats (hours; goes on)
	$(BIN)/python -m hardening.edges.all_floats --record hardening/results/all_floats.json
	$(BIN)/python -m hardening.edges.runtime_floats --record hardening/results/runtime_floats.json

native-fuzz: $(STAMP) ## the native operators under libFuzzer and sanitizers (needs clang)
	$(BIN)/python -m hardening.edges.native_fuzz --record hardening/results/native_fuzz.json

parity-matrix: $(STAMP) ## every runtime by level, threads, batch, size and versions
	$(BIN)/python -m hardening.edges.parity_matrix --record hardening/results/parity_matrix.json

hostile: $(STAMP) ## what hostile inputs cost in memory (ten minutes)
	$(BIN)/python -m hardening.resources --record hardening/results/resources.json

lock: $(STAMP) ## requirements.lock and torch's locks anew, from constraints.txt (asks the index)
	$(BIN)/python -m hardening.supply.lock

docs: $(STAMP) ## make the documentation's site in out/site; a warning is an error
	rm -rf out/site
	$(BIN)/sphinx-build -q -E -W --keep-going -j auto -c docs/site -d build/doctrees . out/site

test-docs: docs ## run every command block of the documentation, look at every link (a few minutes)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto tests/site/check_*.py $(PYTEST_ARGS)

engines: $(STAMP) ## build and audit the engines of all full-size networks (a few minutes)
	$(BIN)/python benchmarks/engine_matrix.py

lint: $(STAMP) ## check style, types and the Dockerfile
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/bandit --quiet --recursive --configfile pyproject.toml $(ROOMS)
	@mkdir -p $(LINKS)
	@for room in $(ROOMS); do ln -sfn ../../../$$room $(LINKS)/$$room; done
	$(BIN)/mypy
	@if [ -x $(BIN)/hadolint ]; then echo $(BIN)/hadolint Dockerfile && $(BIN)/hadolint Dockerfile; \
	else echo "hadolint: no build of it for this machine; Dockerfile not checked"; fi

clean: ## remove all that make made (not runs/, where training leaves its results)
	rm -rf $(VENV) runtime/native/*.so build dist out *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find $(ROOMS) tests -name __pycache__ -type d -prune -exec rm -rf {} +

$(STAMP): constraints.txt requirements.lock torch-cpu.lock torch.lock pyproject.toml setup.py $(NATIVE)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
	{ echo "qmdd needs Python 3.10 or newer; name one: make PYTHON=python3.11" >&2; exit 1; }
	@echo "making the environment in $(VENV) (a few minutes)"
	@$(PYTHON) -m venv $(VENV)
	@$(PIP) --require-hashes --no-deps --requirement requirements.lock
	@$(TORCH_INSTALL)
	@$(PIP) --constraint constraints.txt --no-build-isolation --editable '.[dev]'
	@touch $@
