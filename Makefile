# Every target sets up what it needs; a second run finds it there.
PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/pip install --quiet --disable-pip-version-check
# Of `make chaos`: each can be given on the command line, and JOBS, KILLS, FOLDER and JSON besides.
SEED ?= 1
MINUTES ?= 2
REPLICAS ?= 2
DATABASE ?= postgresql
PROTOS := $(shell find protos -name '*.proto')

.PHONY: help setup up demo browser screenshots test lint format protos lock clean
.PHONY: bench-credits bench-memory bench-generation bench-simulator bench-webhook bench-web
.PHONY: chaos chaos-pairs chaos-controls kills mutants

help: ## Lists all targets.
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "%-18s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: .venv/installed ## Makes .venv and installs everything into it.

.venv/installed: requirements.lock pyproject.toml hatch_build.py $(PROTOS)
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(PIP) --require-hashes -r requirements.lock
	$(PIP) --no-deps --no-build-isolation -e .
	touch $@

up: setup ## Starts everything on this machine until Ctrl-C.
	$(BIN)/reelworks up

demo: setup ## Makes a video, a failure, a cancel and a refusal, and checks their sums.
	$(BIN)/reelworks demo

browser: ## Installs chromium for the tests of the page, if it is missing and that can be done.
	@command -v chromium >/dev/null || { \
		test "$$(id -u)" = 0 && export DEBIAN_FRONTEND=noninteractive && apt-get update -qq && \
		apt-get install -y -qq --no-install-recommends chromium; \
	} >/dev/null 2>&1 || echo "chromium is not installed: the tests of the page will be skipped"

screenshots: setup browser ## Takes the pictures of the studio in docs/images.
	$(BIN)/python -m tests.end_to_end.web.screenshots

test: setup browser ## Runs all tests, on SQLite and on PostgreSQL.
	$(BIN)/pytest -n 2 --dist loadfile

lint: setup ## Checks code, imports, types and contracts.
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/lint-imports --no-cache
	$(BIN)/mypy .
	$(BIN)/python check_protos.py

format: setup ## Formats code and contracts.
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .
	cd protos && ../$(BIN)/buf format -w .

bench-credits: setup ## Measures the ledger: one account against 10,000, and a call that does nothing.
	GRPC_ENABLE_FORK_SUPPORT=0 GRPC_VERBOSITY=ERROR $(BIN)/python -m benchmarks.bench_credits

chaos: setup ## Troubles the whole stack under load, by a seed, and judges (SEED, JOBS, MINUTES …).
	$(BIN)/python -m tests.chaos.stack --seed $(SEED) --minutes $(MINUTES) \
		--replicas $(REPLICAS) --database $(DATABASE) $(if $(JOBS),--jobs $(JOBS)) \
		$(if $(KILLS),--kills $(KILLS)) $(if $(FOLDER),--folder $(FOLDER)) $(if $(JSON),--json)

chaos-pairs: setup ## Pairs each fault of the provider's create with crashes at each line.
	$(BIN)/python -m tests.chaos --rounds 3
	REELWORKS_TEST_CHAOS_JOBS=500 REELWORKS_TEST_CHAOS_LOADED_S=0 $(BIN)/pytest -s tests/chaos \
		--ignore tests/chaos/stack \
		--deselect tests/chaos/test_lost_creates.py --deselect tests/chaos/test_refused_creates.py

chaos-controls: setup ## Plants faults in the product and shows that the judge catches each.
	$(BIN)/python -m tests.chaos.stack.controls

bench-memory: setup ## Watches the ledger's memory over 200,000 operations.
	GRPC_ENABLE_FORK_SUPPORT=0 GRPC_VERBOSITY=ERROR $(BIN)/python -m benchmarks.bench_credits --memory

kills: setup ## Kills the ledger's server twenty times under load, on each database.
	REELWORKS_TEST_KILLS=20 $(BIN)/pytest tests/integration/credits/test_kills.py

mutants: setup ## Plants bugs in the ledger, one at a time, and shows which test catches each.
	$(BIN)/python -m tests.mutants.run

bench-generation: setup ## Measures generations in flight, claims, and the saga against a plain loop.
	$(BIN)/python -m benchmarks.bench_generation

bench-simulator: setup ## Measures the stand-in for Replicate against a handler that does nothing.
	$(BIN)/python -m benchmarks.bench_simulator

bench-webhook: setup ## Measures durable webhooks against a handler that does nothing.
	GRPC_ENABLE_FORK_SUPPORT=0 GRPC_VERBOSITY=NONE $(BIN)/python -m benchmarks.bench_webhook

bench-web: setup ## Measures creates over REST against gRPC, and live events to 1,000 browsers.
	GRPC_VERBOSITY=ERROR $(BIN)/python -m benchmarks.bench_web

protos: setup ## Generates the stubs anew.
	$(BIN)/python hatch_build.py

lock: ## Writes requirements.lock from pyproject.toml.
	$(PYTHON) -m venv .lock-venv
	.lock-venv/bin/pip install --quiet --disable-pip-version-check uv
	.lock-venv/bin/uv pip compile pyproject.toml --all-extras --generate-hashes \
		--no-emit-package reelworks --python-version 3.11 --python-platform linux \
		--custom-compile-command "make lock" --output-file requirements.lock --quiet
	rm -rf .lock-venv

clean: ## Removes what set-up and runs have made.
	rm -rf .venv .lock-venv gen var dist
