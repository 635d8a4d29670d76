# Needs make and Python 3.11 to 3.13. After `make venv` nothing here needs the network.

PYTHON ?= python3
BIN := .venv/bin
CHECK_PYTHON := import sys; v = sys.version_info; (3, 11) <= v < (3, 14) or sys.exit( \
	"Python 3.11 to 3.13 is needed, got %d.%d; say which: make venv PYTHON=python3.12" % v[:2])

.DEFAULT_GOAL := help
.PHONY: help venv demo test test-slow test-oldest lint format bench clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-11s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

venv: .venv/.dev ## make .venv with the pinned dependencies and the developers' tools

# pip's own build environment (hatchling) takes its pins from the variables alone: from the first in
# older versions of pip, from the second in newer ones.
INSTALL := PIP_CONSTRAINT=constraints.txt PIP_BUILD_CONSTRAINT=constraints.txt \
	$(BIN)/python -m pip install -c constraints.txt -e

.venv/.demo: pyproject.toml constraints.txt
	@$(PYTHON) -c '$(CHECK_PYTHON)'
	$(PYTHON) -m venv .venv
	$(INSTALL) '.[demo]'
	@touch $@

.venv/.dev: .venv/.demo
	$(INSTALL) '.[demo,dev]'
	@touch $@

demo: .venv/.demo ## train, evaluate and look at a small segmenter, in runs/demo
	$(BIN)/botvision demo --overwrite

# A process for each core, so one thread for each process; a file's tests stay together, since they
# share what takes long to make.
test: venv ## run the tests, without the slow ones
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --maxprocesses 8 --dist loadfile

test-slow: venv ## run the slow tests alone
	$(BIN)/python -m pytest -m slow

# In an environment of its own; uv resolves to the lowest versions. Old packages may warn. The
# experimental implementations ask for the newest Triton.
test-oldest: ## run the main tests with the lowest allowed version of each dependency
	$(PYTHON) -m venv .venv-oldest
	.venv-oldest/bin/python -m pip install uv
	VIRTUAL_ENV=.venv-oldest .venv-oldest/bin/uv pip install --resolution lowest-direct \
		-e '.[demo,detr,hf,track,dev]'
	OMP_NUM_THREADS=1 .venv-oldest/bin/python -m pytest -n auto --maxprocesses 8 --dist loadfile \
		-W default --ignore tests/attention/experimental \
		tests/attention tests/models tests/tasks tests/predict

lint: venv ## check style, formatting and types; changes nothing
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: venv ## format the sources and mend what ruff can mend
	$(BIN)/ruff check --fix-only .
	$(BIN)/ruff format .

bench: venv ## time the attention layer against its peers, about two minutes
	$(BIN)/botvision benchmark attention

# runs/ is the user's and is never deleted here.
clean: ## delete .venv, builds and caches; runs/ stays
	rm -rf .venv .venv-oldest build dist src/*.egg-info
	rm -rf .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find src tests -type d -name __pycache__ -prune -exec rm -rf {} +
