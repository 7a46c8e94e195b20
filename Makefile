# `make` alone lists the targets.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed-from-lock
BACKEND ?= embedded
# Processes that the tests are spread over, four at the most: one more than processors, for many of them wait for servers.
WORKERS ?= $(shell expr $$(getconf _NPROCESSORS_ONLN) + 1)
# uv takes half of pip's time. Where it cannot reach the index that pip is configured for, pip does it.
INSTALL := --no-deps --require-hashes -r requirements-dev.lock
LOCK    := $(BIN)/uv pip compile --quiet --universal --generate-hashes --no-emit-index-url --no-emit-find-links --no-header

# Where it is set, as images of Python have it, every program that is started here would compile all of ours anew.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help setup demo test privacy campaign schemathesis lint lock clean

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## /{printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(STAMP)  ## build .venv from the lock file

# The stamp holds the lock it was made from: a changed lock builds anew, a half-made .venv never counts.
$(STAMP): requirements-dev.lock pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit("oddlog needs Python >= 3.11, this is %d.%d; set PYTHON=python3.11" % sys.version_info[:2] if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv $(VENV)
	grep -A1000 '^uv==' requirements-dev.lock | sed '/^    # via/,$$d' > $(VENV)/uv.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r $(VENV)/uv.lock
	$(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python $(INSTALL) || $(BIN)/python -m pip install --quiet --disable-pip-version-check $(INSTALL)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

demo: setup  ## run the whole life cycle (LOG=FILE for your own log, BACKEND=real for Kafka and Elasticsearch)
	$(BIN)/oddlog demo --backend $(BACKEND) $(if $(LOG),--log $(LOG))

# A plain `pytest` leaves the short fault campaign out: it is minutes long, and wants servers to kill.
test: setup  ## run every test and the short fault campaign (real Kafka and Elasticsearch where Java and Maven are)
	$(BIN)/python -m pytest -m 'not minute and not schemathesis' -n $(WORKERS) --maxprocesses 4 --dist loadfile --no-loadscope-reorder

campaign: setup  ## run the short fault campaign alone, on servers of its own (minutes)
	$(BIN)/python -m pytest -m campaign tests/integration/test_campaign_short.py

schemathesis: setup  ## hold every route of a real service to its OpenAPI: all checks, 200 examples each (minutes)
	$(BIN)/python -m pytest -m schemathesis -s tests/integration/test_service_docs.py

privacy: setup  ## look for planted addresses, names and query strings in everything that is stored with privacy on
	$(BIN)/python -m pytest -s tests/e2e/test_privacy.py

lint: setup  ## ruff, mypy --strict, import-linter
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

lock: setup  ## compile the lock files anew from pyproject.toml
	$(LOCK) pyproject.toml -o requirements.lock
	$(LOCK) --extra dev -c requirements.lock pyproject.toml -o requirements-dev.lock
	$(LOCK) -c requirements.lock deploy/bento/requirements.in -o deploy/bento/requirements.lock

clean:  ## remove .venv and caches (mlruns/ stays)
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis *.egg-info
