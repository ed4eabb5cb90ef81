# Everything goes through a virtual environment of the project's own, made on first use.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
# Many tests wait for a process rather than for a core.
WORKERS ?= 4

.DEFAULT_GOAL := help
.PHONY: help setup run test check docs bench soak mutation clean

help: ## Show the commands
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-8s %s\n", $$1, $$2}'

setup: $(READY) ## Make the virtual environment and install what the project needs

$(READY): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "persistq needs Python 3.11 or newer; make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@

run: $(READY) ## Start producer, consumers and maintenance, and watch jobs flow; Ctrl-C ends it
	@exec $(BIN)/persistq up

test: $(READY) ## Run every test
	$(BIN)/python -m pytest -q -n $(WORKERS) --dist worksteal $(ARGS)

check: $(READY) ## Lint, types, import rules
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

docs: $(READY) ## Write the files that are made from the code
	$(BIN)/python -m tests.support.generated
	cd tests && ../$(BIN)/python -m support.tui_docs

bench: $(READY) ## Measure beside raw drivers and peers, e.g. ARGS="--only sqlite --quick"; by hand, docs/performance.md
	$(BIN)/python -m benchmarks $(ARGS)

soak: $(READY) ## Kill at random, ten minutes for each database and store, and verify all; by hand, docs/reliability.md
	$(BIN)/python -m tests.soak $(ARGS)

mutation: $(READY) ## Alter the code in one place at a time and see whether a test notices; by hand, docs/reliability.md
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check 'mutmut>=3.8,<3.9'
	$(BIN)/python -m tests.mutation $(ARGS)

clean: ## Remove what the commands above made, but no queue and no job file
	rm -rf $(VENV) .mutation build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
