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
NBVAL := --nbval --nbval-current-env --nbval-cell-timeout=900 --nbval-sanitize-with=tests/nbval_sanitise.cfg

export PYTHONHASHSEED := 0
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: help book test lint unit nightly nbval notebooks serve lock clean
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

lint: $(INSTALLED)  ## style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

unit: $(INSTALLED)  ## unit tests, doctests, coverage; the built book in a browser, if there is both
	$(BIN)/python -m pytest -q --doctest-modules --cov -n auto --dist worksteal

nightly: $(INSTALLED)  ## the comparisons with other libraries again, on 2,000 cases a property; and a very large image
	STNLIB_SLOW=1 $(BIN)/python -m pytest -q -n auto --hypothesis-profile=nightly tests/test_sampling.py \
	    tests/test_prefilter.py tests/test_interpolation.py tests/test_padding.py

nbval: $(INSTALLED)  ## run every chapter and compare what it prints with what is stored
	$(BIN)/python -m pytest -q $(NBVAL) -n 2 --dist loadscope -p no:cacheprovider $(NOTEBOOKS)

notebooks: $(INSTALLED)  ## run the chapters and store their outputs (NOTEBOOKS="book/…" for some)
	$(BIN)/jupyter nbconvert --log-level=WARN --to notebook --execute --inplace \
	    --ExecutePreprocessor.record_timing=False --ExecutePreprocessor.timeout=900 \
	    --Exporter.preprocessors=nbconvert.preprocessors.CoalesceStreamsPreprocessor $(NOTEBOOKS)

serve: book  ## show the book on http://localhost:8000
	$(BIN)/python -m http.server --bind localhost --directory _build/html 8000

lock:  ## choose the newest versions and pin them
	rm -rf $(VENV) && $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q torch==2.13.0
	$(BIN)/python -m pip install -q -e ".[test]"
	$(BIN)/python -m pip freeze --exclude-editable | sed -E 's/\+cpu$$//' > requirements.lock

clean:  ## remove what was installed and built
	rm -rf $(VENV) _build .coverage .hypothesis .pytest_cache .ruff_cache .mypy_cache

$(INSTALLED): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; v = sys.version_info; \
	    sys.exit(f"Python 3.11 or later is needed, and $(PYTHON) is {v[0]}.{v[1]}: make PYTHON=python3.12 …" if v < (3, 11) else 0)'
	@echo "Installing into $(VENV); this takes a minute or two the first time."
	@$(PYTHON) -m venv --clear $(VENV)
	@$(BIN)/python -m pip install -q -r requirements.lock
	@$(BIN)/python -m pip install -q --no-deps -e .
	@touch $@
