# Everything runs in .venv, made by `make setup` from requirements.lock. `make` alone prints this help.
.DEFAULT_GOAL := help
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready
SOURCES := domain application adapters entrypoints local tests docs

.PHONY: help setup run test test-browser test-postman test-clients test-pooler check format chaos security bench postman web \
	migration lock clean

help: ## print this help
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-15s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(READY) ## create or refresh the environment in .venv

# It reports each step, and a failure in one sentence.
$(READY): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("Python 3.11 or newer is needed; name it with: make PYTHON=/path/to/python3")'
	@$(PYTHON) -m local.setup
	@touch $@

# Compiles what changed since the set-up first, for those who set PYTHONDONTWRITEBYTECODE.
run: setup ## start the whole product on this machine
	@$(BIN)/python -m compileall -q domain application adapters entrypoints local || true
	@$(BIN)/gemini-backend up

test: setup ## run all tests, on a real Postgres and Valkey
	@$(BIN)/pytest -n 4 --no-loadscope-reorder

test-browser: setup ## test the page in headless Chromium; needs npm and chromium
	@$(BIN)/pytest tests/browser/browser_*.py

test-postman: setup ## run the Postman collection's story with newman; needs npm
	@$(BIN)/pytest tests/vendor_tools/postman.py

test-clients: setup ## test a TypeScript client and the guide's JavaScript; needs npm
	@$(BIN)/pytest tests/vendor_tools/clients.py

test-pooler: setup ## run all contracts and the story behind a pooler: PgBouncer, where apt-get has it
	@TEST_POOLER=whole $(BIN)/pytest tests/e2e/test_behind_a_pooler.py

check: setup ## check style, types, imports, language and migrations
	@$(BIN)/ruff check $(SOURCES)
	@$(BIN)/ruff format --check $(SOURCES)
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-cache
	@$(BIN)/python -m tests.language
	@$(BIN)/python -m tests.migrations

format: setup ## format the code and fix what the linter can
	@$(BIN)/ruff check --fix-only --quiet $(SOURCES)
	@$(BIN)/ruff format --quiet $(SOURCES)

chaos: setup ## kill, freeze and flood the product at length; print a table
	@$(BIN)/python -m tests.chaos

bench: setup ## measure what everything costs; rewrite docs/performance.md
	@$(BIN)/python -m tests.benchmarks

security: setup ## attack the product at length; print a table
	@$(BIN)/python -m tests.security

postman: setup ## write docs/postman from the OpenAPI document
	@$(BIN)/python -m docs.postman.build docs/postman

web: setup ## build the page into entrypoints/web/dist; needs npm
	@$(BIN)/python -m entrypoints.http.documents.typescript entrypoints/web/src/api-types.ts
	@cd entrypoints/web && npm ci --no-fund --no-audit --silent && npm run --silent build

migration: setup ## write a migration for changed tables: make migration name=add_nickname
	@test -n "$(name)" || { echo "Name it: make migration name=add_nickname" >&2; exit 1; }
	@$(BIN)/aerich migrate --offline --no-input --name $(name)
	@$(BIN)/python -m tests.migrations.concurrently
	@$(BIN)/python -m tests.migrations

# No download address may enter the lock file: names, versions and hashes only.
lock: setup ## resolve requirements.lock from pyproject.toml
	@$(BIN)/uv pip compile --quiet --upgrade --universal --python-version 3.11 --generate-hashes --no-header \
		--no-emit-index-url --all-extras --group dev pyproject.toml --output-file requirements.lock

clean: ## remove the environment and the data of the embedded servers
	@rm -rf .venv .data
