# Mallard's house-keeping. Every target sets up what it needs, once; the stamps in .venv know.

.DEFAULT_GOAL := help
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c

# What builds the environment: the Python the lock was made with, or else the first new enough.
PYTHON ?= $(shell for python in python3.11 python3 python3.12 python3.13; do \
	"$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && \
	command -v "$$python" && break; done)
BIN := $(CURDIR)/.venv/bin
STAMP := .venv/.stamp
TRACKER := mallard/web/tracker
# Node.js comes from a Python package of the lock, so that a bare machine needs none.
NPM := PATH="$(BIN):$$PATH" npm --no-audit --no-fund --loglevel=error
# Modules of tests run side by side, in their order: by their number of tests the longest would come
# last, alone. More than four at once would fight over the disk.
PYTEST := $(BIN)/pytest --numprocesses logical --maxprocesses 4 --dist loadfile --no-loadscope-reorder
PIP := $(BIN)/python -m pip --quiet --disable-pip-version-check
# A lock has to be the same on every machine, so no machine's own settings get into it.
COMPILE := $(BIN)/pip-compile --quiet --no-header --generate-hashes --strip-extras --allow-unsafe \
	--no-emit-index-url --no-emit-find-links --no-emit-trusted-host

.PHONY: help install run test test-long lint type bench format lock clean chromium

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

install: $(STAMP)-run ## set up .venv and build the tracker

run: $(STAMP)-run ## set up and serve on port 8000
	@exec $(BIN)/mallard serve

test: $(STAMP)-test chromium ## run the whole suite, browser tests included
	@$(PYTEST) -m "not long"

test-long: $(STAMP)-test chromium ## run the tests that take minutes too
	@$(PYTEST)

lint: $(STAMP)-test ## ruff: rules and format
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .

type: $(STAMP)-test ## mypy --strict
	@$(BIN)/mypy

bench: $(STAMP)-run ## measure ingestion against the targets
	@$(BIN)/mallard bench

format: $(STAMP)-test ## mend what ruff can mend
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

lock: $(STAMP)-test ## resolve pyproject.toml to requirements*.txt anew
	@$(COMPILE) --upgrade --extra build --output-file requirements.txt pyproject.toml
	@$(COMPILE) --upgrade --extra build --extra dev --constraint requirements.txt \
		--output-file requirements-dev.txt pyproject.toml

clean: ## remove everything that was built or installed; data stays
	@rm -rf .venv build dist *.egg-info $(TRACKER)/node_modules $(TRACKER)/dist
	@rm -rf .pytest_cache .mypy_cache .ruff_cache .hypothesis
	@find mallard tests -name __pycache__ -prune -exec rm -rf {} +

# The environment. `--no-deps --no-build-isolation`: nothing gets in past the lock.
.venv/bin/python:
	@test -n "$(PYTHON)" || { \
		echo "Mallard needs Python 3.11 or newer; make PYTHON=/path/to/python names one."; exit 1; }
	@echo "Setting up .venv (once) ..."
	@"$(PYTHON)" -m venv .venv || { rm -rf .venv; exit 1; }  # not half of one, for the next make

$(STAMP)-packages: requirements.txt pyproject.toml | .venv/bin/python
	@echo "Installing the locked packages ..."
	@$(PIP) install --require-hashes --requirement requirements.txt
	@$(PIP) install --no-deps --no-build-isolation --editable .
	@touch $@

$(STAMP)-node: $(TRACKER)/package-lock.json $(STAMP)-packages
	@echo "Installing the tracker's build tools ..."
	@cd $(TRACKER) && $(NPM) ci
	@touch $@

$(STAMP)-run: $(STAMP)-node $(TRACKER)/package.json $(wildcard $(TRACKER)/*.js)
	@echo "Building the tracker ..."
	@cd $(TRACKER) && $(NPM) run --silent build
	@touch $@

$(STAMP)-test: requirements-dev.txt $(STAMP)-run
	@echo "Installing the locked packages for development ..."
	@$(PIP) install --require-hashes --requirement requirements-dev.txt
	@touch $@

# The browser tests drive Debian's Chromium. Without it, and without the right to install it,
# they skip and say so.
chromium:
	@if command -v chromium >/dev/null; then :; \
	elif [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
		echo "Installing Chromium for the browser tests ..."; \
		apt-get -qq update </dev/null && DEBIAN_FRONTEND=noninteractive apt-get -qq install -y \
			--no-install-recommends chromium </dev/null >/dev/null; \
		command -v chromium >/dev/null; \
	else \
		echo "**** No Chromium here, and no right to install it: the browser tests will SKIP. ****"; \
		echo "**** Install the package 'chromium' to run them. ****"; \
	fi
