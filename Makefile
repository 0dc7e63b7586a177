.DEFAULT_GOAL := help
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SECONDS ?=

help: ## Show this list
	@grep -E '^[a-z]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-9s %s\n", $$1, $$2}'

setup: $(VENV)/.ready ## A virtual environment with everything in it

run: setup ## The Trust Ledger service on real servers while its passwords rotate; SECONDS=45 ends by itself
	@exec $(BIN)/python -m examples.trust_ledger.run $(if $(SECONDS),--seconds $(SECONDS))

test: setup ## The whole test suite, against real servers
	$(BIN)/python -m pytest

check: setup ## Format, lint, types, layers, docs: what CI runs first
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -q tests/test_architecture.py tests/test_docs.py

drill: setup ## Rotations and outages under load until the figures are convincing; ROTATIONS=100 SECONDS=60
	$(BIN)/python -m benchmarks.rotation_stress --rotations $(or $(ROTATIONS),100)
	$(BIN)/python -m benchmarks.hard_times --seconds $(or $(SECONDS),60)

bench: setup ## What it costs and saves, side by side with what one would write or install instead
	$(BIN)/python -m benchmarks.cost
	$(BIN)/python -m benchmarks.rotation_cost
	$(BIN)/python -m benchmarks.side_by_side

sandbox: setup ## PostgreSQL, Valkey and Secrets Manager on this machine, until Ctrl-C
	@exec $(BIN)/ledger-db sandbox up

clean: ## Remove the virtual environment and every cache
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# One marker file: everything is installed again only when the requirements change.
$(VENV)/.ready: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "ledger-db needs Python 3.11 or newer; this is $$($(PYTHON) --version). Name another one: make $(MAKECMDGOALS) PYTHON=python3.12"; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade -c constraints.txt pip
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[async,cli,fastapi,psycopg,sandbox]' --group dev
	@touch $@

.PHONY: help setup run test check drill bench sandbox clean
