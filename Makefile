# Two commands are the whole set-up, on a machine with Python 3.11 or later and make:
#   make run     creates the environment, installs vxsniff into it, and runs `vxsniff demo`
#   make test    the whole test suite
# `make check` and `make test-compiled` are what CI asks besides: format, lint and types; the build that mypyc makes. Longer, and not in CI:
#   make fuzz    each fuzzing target for a minute (FUZZ_SECONDS)
#   make bench   how fast, by stage, interpreted and compiled, beside tshark and Suricata where they are installed
#   make soak    ten minutes of mixed traffic at half of the machine's capacity, then five of chaos

PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin

FUZZ_SECONDS ?= 60

.PHONY: run test test-compiled compiled-tree check bench fuzz soak clean

# The installation that follows the source is interpreted: a compiled one would not see a change.
export VXSNIFF_PURE ?= 1
COMPILED := .compiled

run: $(VENV)/.run
	$(BIN)/vxsniff demo

test: $(VENV)/.test
	$(BIN)/python -m pytest $(PYTEST_ARGS)

# The tests of everything that is compiled, and of the main job, over the compiled build.
COMPILED_TESTS ?= tests/wire tests/flow tests/http tests/call tests/capture/test_file.py tests/app tests/doctor tests/property tests/test_build.py \
	tests/e2e/test_real_mirror.py tests/e2e/test_libpcap.py tests/e2e/test_demo.py

compiled-tree: $(VENV)/.dev
	rm -rf $(COMPILED) && mkdir $(COMPILED)
	cp -r vxsniff tests fuzz bench deploy setup.py pyproject.toml README.md LICENSE Dockerfile .env.example $(COMPILED)
	cd $(COMPILED) && VXSNIFF_PURE=0 $(abspath $(BIN))/python setup.py --quiet build_ext --inplace

test-compiled: compiled-tree
	cd $(COMPILED) && VXSNIFF_BUILD=compiled PYTHONPATH=$$PWD $(abspath $(BIN))/python -m pytest $(PYTEST_ARGS) $(COMPILED_TESTS)

check: $(VENV)/.dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

fuzz: $(VENV)/.fuzz
	for target in wire flow_http rules; do \
		$(BIN)/python -m fuzz $$target -max_total_time=$(FUZZ_SECONDS) || exit 1; done

bench: compiled-tree $(VENV)/.bench
	$(BIN)/python -m bench --compiled $(abspath $(COMPILED))

soak: $(VENV)/.test
	$(BIN)/python -m pytest -s tests/soak/soak.py

clean:
	rm -rf $(VENV) $(COMPILED) build

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

$(VENV)/.bench: $(VENV)/.test
	$(BIN)/pip install --quiet --disable-pip-version-check -e '.[bench]'
	touch $@

$(VENV)/.dev: $(VENV)/.test
	$(BIN)/pip install --quiet --disable-pip-version-check -e '.[dev]'
	touch $@
