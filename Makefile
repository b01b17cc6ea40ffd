# `make` lists the commands. A fresh machine needs Python 3.11 to 3.13, make and git; everything else comes from
# Python packages, into .bootstrap/ and .venv/.

PYTHON ?= python3
UV_VERSION := 0.13.9

SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-builtin-rules

UV := .bootstrap/bin/uv
BIN := .venv/bin
TYPED := $(filter-out libs/protos/src,$(wildcard libs/*/src services/*/src gateway/src deploy/*/src))
# Each folder of tests on its own, since their files have equal names.
TESTS := $(wildcard libs/*/tests services/*/tests gateway/tests deploy/*/tests tests/*)
MEMBERS := $(wildcard libs/*/pyproject.toml services/*/pyproject.toml gateway/pyproject.toml deploy/*/pyproject.toml)

export UV_PYTHON_DOWNLOADS := never

##@ The local stack

.PHONY: up
up: setup ## Start PostgreSQL, NATS, all services, a worker and the gateway; wait until they are ready
	@$(BIN)/headrace up

.PHONY: down
down: setup ## Stop the stack; its data stay
	@$(BIN)/headrace down

.PHONY: status
status: setup ## Show each process of the stack
	@$(BIN)/headrace status

.PHONY: demo
demo: setup ## Load 336,776 real flights through the stack and check that the rows are right
	@$(BIN)/headrace demo

##@ Development

.PHONY: setup
setup: .venv/.synced ## Install everything into .venv (other commands do so by themselves)

.PHONY: test
test: setup ## Run all tests, on up to four processors at once
	$(BIN)/python -m pytest --numprocesses logical --maxprocesses 4 --dist loadfile

.PHONY: fault
fault: setup ## Kill, stop, cut off and fill up real processes in every way that is known, for about an hour
	$(BIN)/python -m pytest tests/fault -m "long or not long" -rA

SEEDS ?= 5000
FIRST ?= 1

.PHONY: simulate
simulate: setup ## Play execution under SEEDS=5000 crash schedules, from FIRST=1 on; a failure tells its seed
	$(BIN)/python -m tests.simulation --seeds $(SEEDS) --first $(FIRST)

SOAK_MINUTES ?= 30

.PHONY: bench
bench: setup ## Measure speed and memory as ratios beside the limits of the same parts; some ten minutes
	$(BIN)/python benches/everything.py

.PHONY: soak
soak: setup ## Load a stack steadily for SOAK_MINUTES=30 and see that nothing grows
	$(BIN)/python benches/soak.py --minutes $(SOAK_MINUTES)

.PHONY: check
check: check-format lint types proto-lint proto-breaking check-generated imports test ## Everything that CI runs

.PHONY: format
format: setup ## Format the code, and fix what can be fixed by itself
	$(BIN)/ruff format
	$(BIN)/ruff check --fix

.PHONY: check-format
check-format: setup ## Check that the code is formatted
	$(BIN)/ruff format --check

.PHONY: lint
lint: setup ## Lint the code
	$(BIN)/ruff check

.PHONY: types
types: setup ## Check the types, strictly
	$(BIN)/mypy $(TYPED)
	@for folder in $(TESTS); do echo "$(BIN)/mypy $$folder"; $(BIN)/mypy $$folder; done

.PHONY: imports
imports: setup ## Check which way dependencies point
	$(BIN)/lint-imports

##@ Contracts

.PHONY: generate
generate: setup ## Generate code and documents from the protos and the definition language
	@.ci/generate .

.PHONY: check-generated
check-generated: setup ## Check that generated files are up to date
	@.ci/check-generated

.PHONY: proto-lint
proto-lint: setup ## Lint the protos
	$(BIN)/buf lint

.PHONY: proto-breaking
proto-breaking: setup ## Check that the protos break no client of the last commit on main
	@.ci/check-breaking

##@ Help

.PHONY: help
help: ## Show this list
	@awk 'BEGIN { FS = ":.*## " } \
	  /^##@/ { printf "\n\033[1m%s\033[0m\n", substr($$0, 5); next } \
	  /^[a-z-]+:.*## / { printf "  \033[36m%-16s\033[0m %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

# The environment: uv of a fixed version, in a virtual environment of its own, installs exactly what uv.lock says.
.venv/.synced: uv.lock pyproject.toml $(MEMBERS) | .bootstrap/uv-$(UV_VERSION)
	@echo "Installing what uv.lock lists into .venv ..."
	@$(UV) sync --frozen --all-packages --python $(PYTHON) $(if $(VERBOSE),,--quiet)
	@touch $@

.bootstrap/uv-$(UV_VERSION):
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))' || { \
	  echo "Python 3.11, 3.12 or 3.13 is needed; $(PYTHON) is $$($(PYTHON) --version 2>&1). Try: make PYTHON=python3.11" >&2; exit 1; }
	@rm -rf .bootstrap
	@$(PYTHON) -m venv .bootstrap || { \
	  echo "$(PYTHON) cannot make virtual environments; on Debian and Ubuntu install python3-venv" >&2; exit 1; }
	@echo "Installing uv $(UV_VERSION) into .bootstrap ..."
	@.bootstrap/bin/python -m pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)
	@touch $@
