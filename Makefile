# Two commands set everything up on a machine with Python, git and make:
#   make study    the main study on embedded data, into runs/
#   make test     linters, type checker and tests
#   make studies  every study as a command, on its smallest preset; jobs, and several devices
# And, for those who change the project:
#   make modes    every public computation in every mode of JAX
#   make test-all the long grids and studies too, without programs kept between runs
#   make docs     the site, into docs/_build
#   make package  the wheel, installed outside the checkout and tried
# And every night (TESTS=tests/data runs a part of the suite):
#   make nightly         make modes, and these two, each in an environment that is thrown
#                        away afterwards:
#   make nightly-oldest  the suite with all requirements at the minimum that
#                        pyproject.toml declares, on the oldest Python (OLDEST=python3.11)
#   make nightly-newest  the suite with all at their newest, on PYTHON=python3.13, say
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STUDY ?= multistep_ste
ARGS ?=
OLDEST ?= python3.11
TESTS ?=

.PHONY: study test studies modes test-all lint format docs package benchmark clean
.PHONY: nightly nightly-oldest nightly-newest

study: $(VENV)/.experiments
	$(BIN)/python -m experiments.$(STUDY) $(ARGS)

test: lint
	$(BIN)/python -m pytest -n 2 --dist loadfile $(ARGS)

studies: $(VENV)/.dev
	$(BIN)/python -m pytest -n 2 -m 'study and not slow' $(ARGS)

modes: $(VENV)/.dev
	$(BIN)/python -m pytest -n 2 -m slow tests/modes_test.py $(ARGS)

test-all: lint
	JAX_ENABLE_COMPILATION_CACHE=0 $(BIN)/python -m pytest -n 2 --dist loadfile \
	  -m '' $(ARGS)

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

# What somebody gets who installs the wheel, first without the extra that studies need.
package: $(BIN)/python
	rm -rf build dist
	$(BIN)/python -m pip wheel --quiet --no-deps --wheel-dir dist .
	set -e; try=$$(mktemp -d); trap 'rm -rf "$$try"' EXIT; \
	wheel=$$(ls "$$PWD"/dist/*.whl); $(PYTHON) -m venv "$$try/env"; cd "$$try"; \
	env/bin/python -m pip install --quiet "$$wheel"; \
	env/bin/python -c 'import bitjax; bitjax.quantizers.sign(); import bitjax.nn'; \
	env/bin/bitjax; \
	! env/bin/bitjax estimator_gallery --preset=smoke 2> said; \
	grep -q 'bitjax\[experiments\]' said; test $$(wc -l < said) = 1; \
	env/bin/python -m pip install --quiet "$$wheel[experiments]"; \
	env/bin/bitjax estimator_gallery --preset=smoke; \
	test -s runs/estimator_gallery/smoke/figure.png

# Old packages may call what newer ones deprecate: that warns, and is no error of ours.
nightly: modes nightly-oldest nightly-newest
nightly-oldest:
	$(call trial,$(OLDEST),--resolution lowest-direct,\
	  -W default::DeprecationWarning -W default::PendingDeprecationWarning \
	  -W default::FutureWarning)
nightly-newest:
	$(call trial,$(PYTHON),--resolution highest,)

# $(1) is the Python, $(2) how versions are chosen, $(3) options of pytest.
define trial
	set -e; try=$$(mktemp -d); trap 'rm -rf "$$try"' EXIT; \
	$(1) -m venv "$$try/env"; "$$try/env/bin/python" -m pip install --quiet uv; \
	"$$try/env/bin/uv" pip install --quiet --python "$$try/env/bin/python" $(2) \
	  --editable '.[dev]'; \
	"$$try/env/bin/uv" pip freeze --python "$$try/env/bin/python"; \
	"$$try/env/bin/python" -m pytest -n 2 --dist loadfile -m 'not slow' \
	  $(strip $(3)) $(TESTS) $(ARGS)
endef

# One environment; each extra leaves a mark, older than the metadata if stale.
$(VENV)/.%: pyproject.toml setup.py | $(BIN)/python
	$(BIN)/python -m pip install --quiet --editable '.[$*]'
	touch $@

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip

clean:
	rm -rf $(VENV) build dist *.egg-info docs/_build ~/.cache/bitjax/tests
