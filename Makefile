# Thin over cargo: every target is one or two commands that can be typed as well.

CARGO ?= cargo
# Cases per property of `make fuzz`.
CASES ?= 100000
# Arguments of the demonstration, for instance ARGS=--help.
ARGS ?=

.PHONY: help demo test bench proof lint fuzz

help: ## Show the targets
	@sed -n 's/^\([a-z]*\): ## /  make \1\t/p' Makefile | expand -t 16

demo: ## Run a real workflow several times, first blind, then with what was learned (ARGS=...)
	$(CARGO) run --release --bin foresail -- demo $(ARGS)

test: ## Run all tests, the long proofs scaled down
	$(CARGO) test --workspace

bench: ## Run all benchmarks
	$(CARGO) bench --workspace

proof: ## Run all tests with the long proofs at full size
	FORESAIL_PROOF=1 $(CARGO) test --release --workspace

lint: ## Check format, lints, documentation and, with cargo-deny, licences and advisories
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --workspace --no-deps
	@if $(CARGO) deny --version >/dev/null 2>&1; then $(CARGO) deny check; \
	else echo "cargo-deny is not installed, licences and advisories were not checked" >&2; fi

fuzz: ## Run the property tests of the decoders with many cases (CASES=100000)
	PROPTEST_CASES=$(CASES) $(CARGO) test --release -p foresail-schemas --test schemas -- round_trips graphs
	PROPTEST_CASES=$(CASES) $(CARGO) test --release -p foresail-metad --lib store
