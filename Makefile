# Type "make" for the list of commands. Each creates .venv and installs the locked versions when needed.
PYTHON ?= python3
PY := .venv/bin/python
STAMP := .venv/.installed
NOTEBOOKS := $(sort $(wildcard notebooks/[0-9]*.ipynb))
TORCH := $(shell sed -n 's/^\(torch==[^ ]*\).*/\1/p' requirements.lock)
# Tests run in JOBS processes; a file of tests, or a notebook, stays in one of them.
JOBS ?= 2
PYTEST := $(PY) -m pytest -n $(JOBS) --dist loadfile
# Committed notebooks show the phantom in quick mode, whatever is set outside; their figures need the inline backend.
# They train anew in a folder of their own, so that weights of older code cannot keep them green.
PHANTOM := env -u YNET_DATA_DIR -u YNET_DATASET -u YNET_PRESET -u YNET_MANIFEST -u YNET_CHANNELS -u MPLBACKEND YNET_OUT="$(CURDIR)/out/notebooks"
# Output is meant for the terminal, progress bars included.
export PYTHONUNBUFFERED := 1
# One thread per process: faster for networks of this size, and the same numbers on every run.
export OMP_NUM_THREADS := 1
export OPENBLAS_NUM_THREADS := 1
export MKL_NUM_THREADS := 1
export NUMBA_NUM_THREADS := 1
export PYTHONHASHSEED := 0

.DEFAULT_GOAL := help
.PHONY: help venv reproduce test test-all notebooks local figures full docs lint clean

help:  ## show this list
	@awk 'BEGIN {FS = ":.*## "} /^[a-z-]+:.*## / {printf "make %-11s %s\n", $$1, $$2}' Makefile
	@echo
	@echo 'YNET_DATASET=busbra YNET_DATA_DIR=<dir> make reproduce   the same on real breast ultrasound'
	@echo 'YNET_DATASET=csv YNET_MANIFEST=<file> make local         every notebook on your own images (YNET_CHANNELS=3: in colour)'
	@echo 'make JOBS=4 test                                         tests in four processes (default: 2; 0: in none of their own)'
	@echo 'make TORCH_INDEX=<url> <command>                         install PyTorch from this index (its CPU build on Linux)'
	@echo 'make PYTHON=python3.12 <command>                         create .venv with this Python (3.11 or newer)'

venv: $(STAMP)  ## create .venv and install the locked versions (done by every other command when needed)

reproduce: $(STAMP)  ## data, a trained Y-Net, codes, the retrieval table: compared with the committed one
	$(PY) -m ynet_lite.paper.reproduce

test: lint  ## lint, unit tests, then every notebook run and compared with its committed output
	$(PYTEST) tests -m "not whole and not browser"
ifneq ($(NOTEBOOKS),)
	rm -rf out/notebooks
	$(PHANTOM) $(PYTEST) --nbval --nbval-current-env --nbval-cell-timeout=600 $(NOTEBOOKS)
endif

test-all: test  ## and what needs a browser, a wheel or many minutes
	$(PYTEST) tests -m "whole or browser"

notebooks: $(STAMP)  ## execute every notebook in place, as committed (phantom, quick)
ifneq ($(NOTEBOOKS),)
	rm -rf out/notebooks
	$(PHANTOM) $(PY) -m nbconvert --to notebook --execute --inplace \
	    --ExecutePreprocessor.record_timing=False --ExecutePreprocessor.store_widget_state=False \
	    --ExecutePreprocessor.kernel_name=python3 \
	    --ExecutePreprocessor.timeout=1800 $(NOTEBOOKS)
else
	@echo 'no notebooks/NN_*.ipynb here'
endif

local: $(STAMP)  ## execute copies of every notebook on YOUR set (YNET_DATASET), into figures/local/; compares nothing
	$(PY) -m ynet_lite.paper.run_notebooks

figures: $(STAMP)  ## rebuild figures and tables from the committed result rows (trains nothing)
	$(PY) -m ynet_lite.paper.report

full: $(STAMP)  ## do what is missing of the planned runs of the first edition (FRESH=1: all anew, into out/fresh/results; needs the real images)
	$(if $(FRESH),YNET_OUT="$(CURDIR)/out/fresh") $(PY) -m ynet_lite.paper.run $(if $(FRESH),--anew --folder out/fresh/results)

docs: $(STAMP)  ## build the site from docs/ and the stored notebooks, into out/docs/ (open out/docs/index.html)
	$(PY) -m sphinx -q -W --keep-going -c docs -d out/docs-cache . out/docs

lint: $(STAMP)  ## check style and formatting of code and notebooks
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .

clean:  ## remove .venv, out/ (with rows of make full), resized copies and caches; never data/raw
	rm -rf .venv out data/cache build *.egg-info .pytest_cache .ruff_cache .hypothesis .coverage
	find . \( -name __pycache__ -o -name .ipynb_checkpoints \) -type d -prune -exec rm -rf {} +

$(STAMP): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; v = sys.version_info; v >= (3, 11) or sys.exit(f"Python 3.11 or newer is needed, $(PYTHON) is {v.major}.{v.minor}: make PYTHON=python3.11")'
	@echo 'Installing the locked versions into .venv (some minutes, once)'
	$(PYTHON) -m venv .venv
ifdef TORCH_INDEX
	$(PY) -m pip install --quiet --index-url "$(TORCH_INDEX)" $(TORCH)
endif
	$(PY) -m pip install --quiet -r requirements.lock
	$(PY) -m pip install --quiet --no-deps --no-build-isolation -e .
	@touch $(STAMP)
