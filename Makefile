# Everything here sets up .venv by itself. `make help` lists the targets.

VENV    := .venv
BIN     := $(VENV)/bin
STAMP   := $(VENV)/installed
# The demo needs PyTorch alone; where all is set up already, it takes that.
DEMO    := $(if $(wildcard $(STAMP)),$(STAMP),$(VENV)/installed-for-demo)
LOCK    := requirements.lock
SOURCES := src tests benchmarks deploy notebooks .ci docs/update_reference.py

# A Python that tenfold runs on; 3.11 first, because the versions in $(LOCK) are those of 3.11.
PYTHON ?= $(firstword $(foreach p,python3.11 python3.12 python3.13 python3,\
            $(if $(shell $(p) -c 'import sys; assert sys.version_info >= (3, 11)' 2>/dev/null && echo yes),$(p))))
UV     ?= $(shell command -v uv 2>/dev/null)

# Bytecode is compiled when things are installed: the first command a user runs does not wait for it.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help install demo test lint format notebook lock image clean bench-cpu bench-gpu bench-serving

help: ## This list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/make \1|\2/p' $(MAKEFILE_LIST) | column -t -s '|' 2>/dev/null || \
	  sed -n 's/^\([a-z-]*\):.*## \(.*\)/make \1   \2/p' $(MAKEFILE_LIST)

install: $(STAMP) ## Set up .venv with all that development needs

demo: $(DEMO) ## Train on digits on the CPU, about a minute with the set-up; ends with where the report is
	$(BIN)/tenfold train digits --device cpu

# One engine is loaded in a process, so each but PyTorch's has a run of its own. These compile for seconds, opencl for up
# to half a minute, in nearly every case: each network, rule and field is tried here, but not each pair of them, and of
# the presets none that differs from another in widths and numbers alone; opencl, which compiles longest, takes none. What
# is Keras's own is tried in one of the two engines on it. Without -k all are.
ENGINES := opencl tensorflow jax
FOLDER_tensorflow := keras
FOLDER_jax        := keras
FOLDER_opencl     := tinygrad
LEFT_OUT        := adamw-sprint or adamw-resnet18 or muon-cnn or muon-resnet18 \
  or (test_a_preset and (balanced or strong or sprint))
LEFT_OUT_opencl := or sgd-cnn or sgd-sprint or (test_a_preset and (accurate or quick)) \
  or (test_overfits and (adam or sgd)) or sgd-lowres-patience or (test_logits_of_no_images and cnn)
LEFT_OUT_jax    := or (test_its_graph and not MobileNetV3Small) or test_pretrained_weights_come_from_a_file \
  or test_files_that_do_not_fit or test_weights_of_a_bgr_family

# Two runs at a time, since most of each keeps one core busy. The engines' give way to the first, some of whose tests look
# at the clock, and what they say comes when each is done.
test: $(STAMP) ## The tests, about twelve minutes on two cores; ARGS="tests/cli -x" for some of them
ifdef ARGS
	$(BIN)/python -m pytest $(ARGS)
else
	@$(MAKE) --no-print-directory -j2 test-most $(ENGINES:%=test-%)
endif

.PHONY: test-most $(ENGINES:%=test-%)
# PyTorch's threads would spin while they wait for each other, and take the cores from what they wait for.
test-most:
	@OMP_WAIT_POLICY=passive $(BIN)/python -m pytest

$(ENGINES:%=test-%): test-%:
	@said=$$(mktemp); trap 'rm -f "$$said"' EXIT; trap 'exit 130' INT TERM; failed=0; \
	nice -n 10 $(BIN)/python -m pytest tests/engines/test_engine_contract.py tests/engines/$(FOLDER_$*) --engine $* \
	  -k "not ($(LEFT_OUT) $(LEFT_OUT_$*))" >"$$said" 2>&1 || failed=$$?; \
	echo; echo "The contract of the $* engine"; cat "$$said"; exit $$failed

lint: $(STAMP) ## Style and types
	$(BIN)/ruff check $(SOURCES)
	$(BIN)/ruff format --check $(SOURCES)
	$(BIN)/mypy

format: $(STAMP) ## Put the style right
	$(BIN)/ruff check --fix $(SOURCES)
	$(BIN)/ruff format $(SOURCES)

notebook: $(STAMP) ## Run notebooks/quickstart.ipynb from top to bottom and keep its outputs, half a minute on two cores
	$(BIN)/python notebooks/execute.py

# $(call set_up,EXTRA): .venv with tenfold and an extra of it
define set_up
	@test -n "$(PYTHON)" || { echo "tenfold needs Python 3.11 or later; none was found. Name one: make PYTHON=/path/to/python3" >&2; exit 1; }
	@rm -f $@
	@set -e; \
	test -x $(BIN)/python || $(if $(UV),$(UV) venv --quiet --python $(PYTHON) $(VENV),$(PYTHON) -m venv $(VENV)); \
	pins=$$($(BIN)/python -c 'import sys; print("-c $(LOCK)" if sys.version_info[:2] == (3, 11) else "")'); \
	test -n "$$pins" || echo "$(LOCK) is for Python 3.11; $$($(BIN)/python --version) gets the newest versions that fit."; \
	echo "Setting up $(VENV) with $(if $(UV),uv,pip): $(2)"; \
	$(if $(UV),$(UV) pip install --quiet --compile-bytecode --python $(BIN)/python,$(BIN)/python -m pip install --quiet --compile) \
	  $$pins -e '.[$(1)]'
	@$(BIN)/python -m compileall -q src
	@touch $@
endef

$(STAMP): pyproject.toml $(LOCK)
	$(call set_up,dev,a few minutes the first time)

$(VENV)/installed-for-demo: pyproject.toml $(LOCK)
	$(call set_up,torch,about a minute the first time)

lock: ## Write requirements.lock anew from a fresh install on Python 3.11
	@$(PYTHON) -c 'import sys; assert sys.version_info[:2] == (3, 11)' 2>/dev/null || { echo "The lock is made on Python 3.11: make lock PYTHON=python3.11" >&2; exit 1; }
	@set -e; fresh=$$(mktemp -d); trap 'rm -rf "$$fresh"' EXIT; \
	$(PYTHON) -m venv "$$fresh"; \
	"$$fresh/bin/python" -m pip install --quiet '.[dev]'; \
	{ sed -n '/^#/p' $(LOCK); "$$fresh/bin/python" -m pip freeze --all --exclude tenfold --exclude pip | sed 's/+.*//'; } > "$$fresh/lock"; \
	cp "$$fresh/lock" $(LOCK)

image: $(STAMP) ## Build the image that serves and try it; ARGS="--target train" for the one that trains
	deploy/build.sh $(ARGS)

# The peers have environments of their own. One that can't be set up here is left out of the race, which says so.
.bench/%/installed: benchmarks/requirements-%.txt
	@echo "Setting up .bench/$* for the race: a few minutes and up to 5 GB the first time"
	@{ test -x .bench/$*/bin/python || $(if $(UV),$(UV) venv --quiet --python $(PYTHON) .bench/$*,$(PYTHON) -m venv .bench/$*); } && \
	  $(if $(UV),$(UV) pip install --quiet --compile-bytecode --python .bench/$*/bin/python,.bench/$*/bin/python -m pip install --quiet --compile) -r $< && \
	  touch $@ || { rm -rf .bench/$*; echo ".bench/$* could not be set up; the race goes on without it"; }

RACE := $(BIN)/python benchmarks/race.py

bench-cpu: $(STAMP) .bench/keras/installed .bench/torchvision/installed ## Race tenfold against its peers on the CPU, hours; goes on where it was stopped. ARGS="--fresh"
	$(RACE) tenfold:quick=5 keras=1 pytorch=1 tenfold:balanced=3 tenfold:strong=3 --target 0.90 --target 0.93 $(ARGS)
	$(BIN)/python benchmarks/plot.py benchmarks/results/cpu.json
	$(BIN)/python benchmarks/tables.py benchmarks/results/cpu.json --write-readme

bench-gpu: $(STAMP) .bench/torchvision/installed ## The same on a CUDA card. ARGS="--airbench PATH --speedrun PATH" for your copies of the records
	$(RACE) tenfold:sprint=20 airbench94=5 speedrun=5 tenfold:accurate=3 airbench96=3 pytorch=1 resnet18=1 --device cuda --target 0.94 --target 0.96 $(ARGS)
	$(BIN)/python benchmarks/plot.py benchmarks/results/gpu.json
	$(BIN)/python benchmarks/tables.py benchmarks/results/gpu.json --write-readme

SERVING := benchmarks/results/serving.json

bench-serving: $(STAMP) .bench/serving/installed ## tenfold serve beside its peers, a quarter of an hour; goes on where it was stopped. ARGS="--fresh", ARGS=--quick for a look
	$(BIN)/python benchmarks/serving/serve_race.py $(ARGS)
	$(if $(findstring --quick,$(ARGS)),,$(BIN)/python benchmarks/serving/serve_plot.py $(SERVING))
	$(if $(findstring --quick,$(ARGS)),,$(BIN)/python benchmarks/serving/serve_tables.py $(SERVING) --write)

clean: ## Remove .venv and what tools leave; runs/ and .bench/ stay
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
