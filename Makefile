# `make help` lists what there is to do. Everything happens inside .venv and _build; `make clean` removes both.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/installed
NOTEBOOKS ?= $(sort $(wildcard book/*.ipynb))
PAGE := _build/html/index.html
JUPYTER_BOOK := $(BIN)/jupyter-book build . -W -n --keep-going
# Sphinx looks at pages alone; a change of what lies beside them calls for all.
NEWER = $(shell find book/_static _config.yml _toc.yml -newer _build/html/book/index.html 2>/dev/null)
# NVRTC in the version that PyTorch's builds for CUDA pin, so that both can be installed.
NVIDIA := sys_platform == "linux" and platform_machine == "x86_64"
NVRTC := 'nvidia-cuda-nvrtc==13.0.*; $(NVIDIA)' 'nvidia-cuda-runtime==13.0.*; $(NVIDIA)'
# A C++ compiler for the emulator of CUDA, where the machine has none.
ZIG := ziglang==0.17.1
# axe-core for the tests in a browser, which drive it with Selenium: its Playwright is not needed.
AXE := axe-playwright-python==0.1.8
# For `make gpu`: the Python that has CuPy.
ON_GPU = $(shell $(BIN)/python -c 'import cupy' 2>/dev/null && echo $(BIN)/python || echo $(PYTHON))
# Two processes end together if the longest chapters begin.
LONGEST := $(patsubst %,book/%.ipynb,03_gradients 07_distorted_mnist 06_beyond_affine 02_bilinear_interpolation)
NBVAL := --nbval --nbval-current-env --nbval-cell-timeout=900 --nbval-sanitize-with=tests/nbval_sanitise.cfg

export PYTHONHASHSEED := 0
# No word from the CPU engine when it compiles: chapters would store it.
export STNLIB_QUIET := 1
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: help book test lint unit nightly gpu nbval print notebooks serve status lock clean
.DEFAULT_GOAL := help

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

book: $(INSTALLED)  ## install what is needed, build the book, say where it is
	@$(JUPYTER_BOOK) -q $(if $(NEWER),--all) || { rm -rf _build; echo "The book has warnings, above; they count as errors." >&2; exit 1; }
	@echo "The book is built. Open $(CURDIR)/$(PAGE)"

test: lint  ## everything that must hold before a merge
	@rm -rf _build
	@$(MAKE) --no-print-directory book
	@$(MAKE) --no-print-directory nbval
	@$(MAKE) --no-print-directory unit

lint: $(INSTALLED)  ## style, types, spelling and words
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python tests/lint_prose.py

unit: $(INSTALLED)  ## unit tests, doctests, coverage; the built book in a browser, if there is both
	$(BIN)/python -m pytest -q --doctest-modules --ignore=stnlib/engines/cuda.py --cov -n auto --dist worksteal \
	    --junitxml=_build/reports/unit.xml

nightly: $(INSTALLED)  ## the comparisons with other libraries again, on 2,000 cases a property; and a very large image
	STNLIB_SLOW=1 $(BIN)/python -m pytest -q -n auto --hypothesis-profile=nightly tests/test_sampling.py \
	    tests/test_prefilter.py tests/test_interpolation.py tests/test_padding.py \
	    tests/test_functional.py tests/test_engines.py tests/test_engines_kernels.py tests/test_engines_nvrtc.py

gpu: export PYTHONPATH := .$(if $(PYTHONPATH),:$(PYTHONPATH))
gpu:  ## on a machine with an NVIDIA GPU, installing nothing: its tests, benchmarks and sanitizers (PYTHON=… that has CuPy)
	@$(ON_GPU) -c 'from stnlib.engines.cuda import cupy; import sys; \
	    sys.exit(None if cupy.cuda.is_available() else "CuPy finds no GPU")'
	$(ON_GPU) -m pytest -q -rs -m gpu -p no:cacheprovider \
	    tests/test_engines_cuda.py tests/test_table1.py
	$(ON_GPU) -c 'from stnlib.cli import main; main()' bench --device cuda --scaling --first-call --training \
	    --json results/bench_gpu.json
	@if ! command -v compute-sanitizer >/dev/null; then echo "compute-sanitizer is not on PATH: left out"; exit; fi; \
	    for tool in memcheck racecheck initcheck; do \
	        echo "compute-sanitizer --tool $$tool"; \
	        compute-sanitizer --tool $$tool --error-exitcode 1 $(ON_GPU) tests/run_kernels.py cuda || exit 1; \
	    done

nbval: $(INSTALLED)  ## run every chapter and compare what it prints with what is stored
	$(BIN)/python -m pytest -q $(NBVAL) -n 2 --dist loadscope --no-loadscope-reorder -p no:cacheprovider \
	    --junitxml=_build/reports/nbval.xml $(filter $(NOTEBOOKS),$(LONGEST)) $(filter-out $(LONGEST),$(NOTEBOOKS))

print: book  ## the book to print: a PDF a page, in _build/pdf; needs chromium
	$(BIN)/python book/_ext/print_pages.py

notebooks: $(INSTALLED)  ## run the chapters and store their outputs (NOTEBOOKS="book/…" for some)
	$(BIN)/jupyter nbconvert --log-level=WARN --to notebook --execute --inplace \
	    --ExecutePreprocessor.record_timing=False --ExecutePreprocessor.timeout=900 \
	    --Exporter.preprocessors=nbconvert.preprocessors.CoalesceStreamsPreprocessor $(NOTEBOOKS)

status: $(INSTALLED)  ## what the last `make test` found, for the book's page on its state
	$(BIN)/python -m stnlib.experiments.status

serve: book  ## show the book on http://localhost:8000
	$(BIN)/python -m http.server --bind localhost --directory _build/html 8000

lock:  ## choose the newest versions and pin them
	rm -rf $(VENV) && $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q torch==2.13.0 $(NVRTC)
	$(BIN)/python -m pip install -q -e ".[test]"
	$(BIN)/python -m pip freeze --exclude-editable \
	    | sed -E 's/\+cpu$$//; s/^(nvidia-.*)$$/\1; $(NVIDIA)/' > requirements.lock

clean:  ## remove what was installed and built
	rm -rf $(VENV) _build .coverage .hypothesis .pytest_cache .ruff_cache .mypy_cache

$(INSTALLED): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; v = sys.version_info; \
	    sys.exit(f"Python 3.11 or later is needed, and $(PYTHON) is {v[0]}.{v[1]}: make PYTHON=python3.12 …" if v < (3, 11) else 0)'
	@echo "Installing into $(VENV); this takes a minute or two the first time."
	@$(PYTHON) -m venv --clear $(VENV)
	@$(BIN)/python -m pip install -q -r requirements.lock
	@$(BIN)/python -m pip install -q --no-deps -e . $(AXE)
	@command -v $${CXX:-g++} >/dev/null || command -v clang++ >/dev/null || \
	    { echo "There is no g++ or clang++: installing $(ZIG)"; $(BIN)/python -m pip install -q $(ZIG); }
	@touch $@
