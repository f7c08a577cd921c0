# Two commands are the whole set-up, on a machine with Python 3.11 or later and make:
#   make run     creates the environment, installs vxsniff into it, and runs `vxsniff demo`
#   make test    the whole test suite
# `make check` is what CI asks besides: format, lint and types. Longer, and not in CI:
#   make fuzz    each fuzzing target for a minute (FUZZ_SECONDS)
#   make soak    ten minutes of mixed traffic at half of the machine's capacity, then five of chaos

PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin

FUZZ_SECONDS ?= 60

.PHONY: run test check fuzz soak clean

run: $(VENV)/.run
	$(BIN)/vxsniff demo

test: $(VENV)/.test
	$(BIN)/python -m pytest $(PYTEST_ARGS)

check: $(VENV)/.dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

fuzz: $(VENV)/.fuzz
	for target in wire flow_http rules; do \
		$(BIN)/python -m fuzz $$target -max_total_time=$(FUZZ_SECONDS) || exit 1; done

soak: $(VENV)/.test
	$(BIN)/python -m pytest -s tests/soak/soak.py

clean:
	rm -rf $(VENV)

$(BIN)/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "vxsniff needs Python 3.11 or later: make PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)

# -e: a change of the source needs no new installation; a change of pyproject.toml does.
$(VENV)/.run: $(BIN)/python pyproject.toml
	$(BIN)/pip install --quiet --disable-pip-version-check -e .
	touch $@

# usagelogger pins an old requests; its rules are all that the tests compare with, so it comes without its dependencies.
$(VENV)/.test: $(BIN)/python pyproject.toml
	$(BIN)/pip install --quiet --disable-pip-version-check -e '.[test]'
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps usagelogger==2.2.5
	touch $@

$(VENV)/.fuzz: $(VENV)/.test
	$(BIN)/pip install --quiet --disable-pip-version-check -e '.[fuzz]'
	touch $@

$(VENV)/.dev: $(VENV)/.test
	$(BIN)/pip install --quiet --disable-pip-version-check -e '.[dev]'
	touch $@
