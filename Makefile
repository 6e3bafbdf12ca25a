# Everything runs from .venv, which any target makes when it is missing. A machine needs make and Python 3.11+.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

AIRFLOW_VERSION := 3.3.2
BIN := .venv/bin
READY := .venv/.ready
AZURITE := build/azurite/.ready

.PHONY: help
help: ## List the commands
	@sed -nE 's/^([a-z-]+):.*## (.*)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 24

.PHONY: setup
setup: $(READY) ## Make .venv with the pinned versions (the other commands do so when needed)

.PHONY: demo
demo: $(READY) ## Run the article's pipeline in a real Airflow and show what each step did
	$(BIN)/python -m dev.demo

.PHONY: airflow
airflow: $(READY) ## Start Airflow with the example DAGs and leave it running
	$(BIN)/python -m dev.local_airflow up --home .airflow --dags dags

.PHONY: down
down: ## Stop what `make airflow` started
	@if [[ -x $(BIN)/python ]]; then $(BIN)/python -m dev.local_airflow down --home .airflow; fi

.PHONY: azurite
azurite: $(AZURITE) ## Install Azurite, the storage that the tests use (the commands that need it do so themselves)

.PHONY: test
test: $(READY) $(AZURITE) ## Run every test
	@# Many wait for servers: more at a time than there are cores. In their order: else files with a few slow tests come last.
	$(BIN)/pytest -n 3 --dist loadfile --no-loadscope-reorder -m "not system and not azure_ml"
	$(BIN)/pytest -n 4 --dist loadfile -m "azure_ml and not system"
	$(BIN)/pytest -m system

.PHONY: test-fast
test-fast: $(READY) ## Run the tests that take milliseconds; PYTEST_ARGS="-k name" to choose
	$(BIN)/pytest -n auto --dist worksteal -m "not system and not slow" --hypothesis-profile fast $(PYTEST_ARGS)

.PHONY: lint
lint: $(READY) ## Check style, types and who imports whom
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

.PHONY: bench
bench: $(READY) $(AZURITE) ## Compare ours with theirs, side by side; BENCH_ARGS="parse" to choose
	$(BIN)/python -m dev.bench $(BENCH_ARGS)

.PHONY: constraints
constraints: $(READY) ## Remake constraints.txt; CONSTRAINTS_ARGS=--upgrade to move what is pinned already
	printf '%s\n' '.[azure,azureml,postgres]' apache-airflow==$(AIRFLOW_VERSION) \
	| $(BIN)/uv pip compile - --quiet --group dev --universal --python-version 3.11 \
	    --no-emit-package airflow-aml-data --no-header --no-annotate \
	    --output-file constraints.txt $(CONSTRAINTS_ARGS) > /dev/null

$(READY): pyproject.toml constraints.txt
	@for python in python3.11 python3; do \
	    if $$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2> /dev/null; then break; fi; \
	    python=; \
	done; \
	if [[ -z $$python ]]; then echo "Python 3.11 or later is needed: neither python3.11 nor python3 is." >&2; exit 1; fi; \
	$$python -m venv --clear .venv
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt uv
	$(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python --constraint constraints.txt --editable . --group dev
	@touch $@

$(AZURITE): tests/azurite/package.json tests/azurite/package-lock.json | $(READY)
	@mkdir -p $(@D)
	@cp tests/azurite/package.json tests/azurite/package-lock.json $(@D)
	PATH="$(abspath $(BIN)):$$PATH" $(BIN)/npm ci --prefix $(@D) --omit=dev --no-audit --no-fund --loglevel=error
	@touch $@
