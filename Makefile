# make app        serve the page at http://127.0.0.1:7860    make app ARGS="--model small --port 8000"
# make test       run the tests                              make test ARGS="tests/mesh -k unwrap"
# make test-fast  run those that need no browser and little time: under three minutes on two cores
# make bench-dry  run every benchmark once, at small sizes   make bench-dry ARGS="volume raster"
# make lint       run ruff (lint and format) and mypy
# make setup      create .venv, in which the others run      make setup PYTHON=python3.12

PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python
STAMP := $(VENV)/.installed
ARGS ?=

.PHONY: app test test-fast bench-dry lint setup

app: setup
	@$(RUN) app.py $(ARGS)

# The whole suite runs in two processes; tests named in ARGS run in one, so that --pdb works. Tests of missing
# programs are skipped. To run them all on Debian and Ubuntu: apt install chromium fontconfig fonts-noto-core
# fonts-dejavu-core blender python3-numpy assimp-utils nginx-light nodejs npm && npm ci --prefix tests
# tests/ui/test_mcp.py needs an environment of its own: see CONTRIBUTING.md.
test: setup
	@$(RUN) -m pytest $(or $(ARGS),-n 2)

test-fast: setup
	@$(RUN) -m pytest -n 2 -m "not browser and not slow" $(ARGS)

# A line for each benchmark; its figures mean nothing at these sizes.
bench-dry: setup
	@$(RUN) -m benchmarks.dry $(ARGS)

lint: setup
	@$(RUN) -m ruff check .
	@$(RUN) -m ruff format --check .
	@$(RUN) -m mypy

setup: $(STAMP)

# The stamp is touched last, so that an interrupted set-up is resumed by the next call.
$(STAMP): requirements.txt requirements-dev.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null || { \
	  echo "triplaneturbo needs Python 3.10 or newer, and '$(PYTHON)' is not: install one and name it, as in 'make $(firstword $(MAKECMDGOALS) setup) PYTHON=python3.12'." >&2; exit 1; }
	@$(RUN) -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv $(VENV) >/dev/null || { \
	  echo "Cannot make $(VENV): install Python's venv module (on Debian and Ubuntu: apt install python3-venv)." >&2; exit 1; }
	@echo "Installing into $(VENV) (several GB the first time) ..."
	@$(RUN) -m pip install -qq --disable-pip-version-check -r requirements.txt -r requirements-dev.txt
	@echo "Compiling its loops ..."
	@$(RUN) -m triplaneturbo.mesh.warmup
	@touch $@
