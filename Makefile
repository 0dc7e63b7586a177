.DEFAULT_GOAL := help
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SECONDS ?=
EVERYTHING := '.[async,cli,fastapi,migrations,psycopg,sandbox,sqlite]'
OLDEST := $(patsubst %,tests/integration/test_%.py,begins fastapi_sessions first_statements plugin pooler pools redis_lending redis_lost_answers redis_waiting repository rotation run sessions signals startup)

help: ## Show this list
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-15s %s\n", $$1, $$2}'

setup: $(VENV)/.ready ## A virtual environment with everything in it

run: setup ## The Trust Ledger service on real servers while its passwords rotate; SECONDS=45 ends by itself
	@exec $(BIN)/python -m examples.trust_ledger.run $(if $(SECONDS),--seconds $(SECONDS))

test: setup ## The whole test suite, against real servers; each core has a set of its own
	$(BIN)/python -m pytest -n auto --maxprocesses 4 --dist worksteal

test-oldest: build/lowest/.ready ## What depends on other people's versions most, on the lowest that are allowed
	build/lowest/bin/python -m pytest -n auto --maxprocesses 4 --dist worksteal $(OLDEST)

test-versions: build/lowest/.ready build/newest/.ready ## The whole suite on the lowest versions, and on what an index has today
	build/lowest/bin/python -m pytest -n auto --maxprocesses 4 --dist worksteal
	build/newest/bin/python -m pytest -n auto --maxprocesses 4 --dist worksteal

check: setup ## Format, lint, types, layers, documents, the site: what CI runs first
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -q tests/test_architecture.py tests/test_docs.py tests/test_site.py tests/test_typing.py

docs: setup ## The site, strictly, in build/site; open index.html there, or python -m http.server -d build/site
	$(BIN)/sphinx-build -W --keep-going -q -c docs -d build/doctrees . build/site

cases: setup ## What is known to fail and not mended yet, one script each; CASES=stand_in/pending_label
	$(BIN)/python -m tests.cases $(CASES)

drill: setup ## Rotations and outages under load until the figures are convincing; ROTATIONS=100 SECONDS=60
	$(BIN)/python -m benchmarks.rotation_stress --rotations $(or $(ROTATIONS),100)
	$(BIN)/python -m benchmarks.hard_times --seconds $(or $(SECONDS),60)
	$(BIN)/python -m benchmarks.troubles
	$(BIN)/python -m benchmarks.departures --times $(or $(ROTATIONS),100)
	$(BIN)/python -m benchmarks.failover
	$(BIN)/python -m benchmarks.ledger_storm
	$(BIN)/python -m benchmarks.leak

bench: setup ## What it costs and saves, side by side with what one would write or install instead
	$(BIN)/python -m benchmarks.cost
	$(BIN)/python -m benchmarks.instructions
	$(BIN)/python -m benchmarks.dependency_cost
	$(BIN)/python -m benchmarks.saturation
	$(BIN)/python -m benchmarks.rotation_cost
	$(BIN)/python -m benchmarks.side_by_side
	$(BIN)/python -m benchmarks.fleet

sandbox: setup ## PostgreSQL, Valkey and Secrets Manager on this machine, until Ctrl-C
	@exec $(BIN)/ledger-db sandbox up

localstack: setup build/localstack/.ready ## The same with LocalStack for AWS, functions included, until Ctrl-C
	@exec $(BIN)/python -m localstack.run

test-localstack: setup build/localstack/.ready ## The stand-in's suite, the template and rotations against LocalStack
	$(BIN)/python -m pytest -p tests.localstack.conformance tests/contract
	LEDGER_DB_LOCALSTACK=1 $(BIN)/python -m pytest tests/localstack

package: setup ## The zip of the Lambda functions, in build/; ARCHITECTURE=arm64 TRUST=eu-west-1-bundle.pem
	$(BIN)/python -m infra.package $(ARCHITECTURE:%=--architecture %) $(TRUST:%=--trust %)

deploy: package ## The CloudFormation stack: what would change, then a question; STACK= BUCKET= PARAMETERS="VpcId=..."
	$(BIN)/python -m infra.deploy "$(STACK)" --bucket "$(BUCKET)" $(ARCHITECTURE:%=--architecture %) $(PARAMETERS:%=--parameter %)

undeploy: setup ## Delete the stack; secrets, key and logs are kept; STACK=
	$(BIN)/python -m infra.deploy "$(STACK)" --delete

infra: build/lint/.ready ## What cfn-lint and checkov say about the template
	build/lint/bin/cfn-lint infra/template.yaml
	build/lint/bin/checkov -f infra/template.yaml --framework cloudformation --compact --quiet --skip-download

clean: ## Remove the virtual environment and every cache
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# One marker file: everything is installed again only when the requirements change.
$(VENV)/.ready: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "ledger-db needs Python 3.11 or newer; this is $$($(PYTHON) --version). Name another one: make $(MAKECMDGOALS) PYTHON=python3.12"; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade -c constraints.txt pip
	$(BIN)/python -m pip install --quiet -c constraints.txt -e $(EVERYTHING) --group dev
	@touch $@

# The newest is what an index has on the day; remove build/newest for that of another.
build/lowest/.ready: PINS := -c constraints-lowest.txt
build/lowest/.ready build/newest/.ready: pyproject.toml constraints-lowest.txt
	$(PYTHON) -m venv --clear $(@D)
	$(@D)/bin/python -m pip install --quiet --upgrade -c constraints.txt pip
	$(@D)/bin/python -m pip install --quiet $(PINS) -e $(EVERYTHING) --group test
	@touch $@

# Of their own: they want other versions of what the tests want too.
build/lint/.ready:
	$(PYTHON) -m venv build/lint
	build/lint/bin/python -m pip install --quiet 'cfn-lint==1.58.0' 'checkov==3.3.30'
	@touch $@

# With the Python of the functions, which need not be the one of everything else.
build/localstack/.ready: localstack/constraints-py312.txt $(wildcard localstack/plugins/*.toml localstack/plugins/*/*.py) | $(VENV)/.ready
	$(BIN)/python -m localstack.install

.PHONY: help setup run test test-oldest test-versions check docs cases drill bench sandbox localstack test-localstack package deploy undeploy infra clean
