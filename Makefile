# Two commands do everything on a fresh machine: `make demo` and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check

.PHONY: demo test check bench torture clean

demo: $(VENV)/.demo ## merge the bundled pair, evaluate parents and merges, print the table
	$(BIN)/laconic demo

test: check ## everything CI runs: lint, types, tests
	$(BIN)/python -m pytest -n 2 --dist loadfile

check: $(VENV)/.test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(VENV)/.test ## merging beside mergekit, as whole processes
	$(BIN)/python -m bench.merge --mergekit $(BIN)/mergekit-yaml

torture: $(VENV)/.test ## merging with full disks, broken files, races and 50 kills; ten to thirty minutes
	$(BIN)/python -m bench.torture

clean:
	rm -rf $(VENV) demo-out bench-out .pytest_cache .mypy_cache .ruff_cache

$(VENV)/.demo: requirements.txt pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) --requirement requirements.txt
	$(PIP) --no-deps --editable .
	touch $@

$(VENV)/.test: requirements-dev.txt $(VENV)/.demo
	$(PIP) --requirement requirements-dev.txt
	touch $@
