.DEFAULT_GOAL := help
SHELL := /bin/bash
PYTHON ?= python3
BIN := .venv/bin
ready := .venv/.ready

.PHONY: help setup demo test fast ray lint types imports slow lock clean

help: ## list the targets
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 12

setup: $(ready) ## make .venv with the locked versions

$(ready): requirements-uv.lock requirements-dev.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python 3.11 or newer is needed: make PYTHON=/path/to/python3"; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --require-hashes -r requirements-uv.lock
	$(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python --require-hashes -r requirements-dev.lock
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation --editable .
	touch $@

demo: $(ready) ## clips -> shards -> three stages on Ray -> evaluation -> report
	$(BIN)/aiaic demo

test: $(ready) ## the whole fast test suite: both halves, even if the first fails
	@$(MAKE) --no-print-directory --keep-going --jobs=1 fast ray

fast: $(ready) ## its tests that run side by side
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n auto --maxprocesses 4 -m "not ray and not slow and not gpu"

ray: $(ready) ## its tests that start Ray, which need the machine to themselves
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -m "ray and not slow and not gpu"

slow: $(ready) ## the slow suites
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -m slow --durations=12

lint: $(ready) ## style and format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(ready) ## static types
	$(BIN)/pyright

imports: $(ready) ## which package may import which
	$(BIN)/lint-imports

lock: $(ready) ## renew the locked versions
	for extra in "" "--extra dev"; do \
		$(BIN)/uv pip compile pyproject.toml $$extra --universal --python-version 3.11 \
		--generate-hashes --no-emit-index-url --no-emit-find-links --no-header --no-annotate \
		--quiet -o requirements$${extra:+-dev}.lock; done
	echo 'uv==0.13.9' | $(BIN)/uv pip compile - --universal --generate-hashes --no-emit-index-url \
		--no-emit-find-links --no-header --no-annotate --quiet -o requirements-uv.lock

clean: ## remove .venv, outputs and caches
	rm -rf .venv outputs .pytest_cache .ruff_cache .hypothesis .import_linter_cache *.egg-info
