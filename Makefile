# Two commands set everything up on a machine with Python, git and make:
#   make study    the main study on embedded data, into runs/
#   make test     linters, type checker and tests
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STUDY ?= multistep_ste
ARGS ?=

.PHONY: study test lint format docs benchmark clean

study: $(VENV)/.experiments
	$(BIN)/python -m experiments.$(STUDY) $(ARGS)

test: lint
	$(BIN)/python -m pytest -n 2 $(ARGS)

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyrefly check --python-interpreter-path $(BIN)/python

format: $(VENV)/.dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

benchmark: $(VENV)/.experiments
	$(BIN)/python -m experiments.benchmark $(ARGS)

docs: $(VENV)/.docs
	$(BIN)/sphinx-build -W -b html docs docs/_build

# One environment; each extra leaves a mark, older than the metadata if stale.
$(VENV)/.%: pyproject.toml setup.py | $(BIN)/python
	$(BIN)/python -m pip install --quiet --editable '.[$*]'
	touch $@

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip

clean:
	rm -rf $(VENV) build dist *.egg-info docs/_build
