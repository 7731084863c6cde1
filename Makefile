# Thin over cargo: every target is one or two commands that can be typed as well.

CARGO ?= cargo
# Cases per property of `make fuzz`.
CASES ?= 100000
# Arguments of the demonstration, for instance ARGS=--help.
ARGS ?=

# Comparisons of `make bench-rivals`, or rivals of `make bench-python`; all where empty.
RIVALS ?=
# Rows of `make bench-python`, its turns and how its table is written; all rows and all rivals where empty.
ROWS ?=
TURNS ?= 3
OUTPUT ?= table
# The Python that has the package `redis`; that of .venv or python3 where empty.
PYTHON ?=
# Where cargo builds, and where the programs of the virtual environment are.
TARGET = $(abspath $(or $(CARGO_TARGET_DIR),target))
VENV = $(CURDIR)/.venv/bin

.PHONY: help demo test test-python bench bench-python bench-rivals bench-planners proof lint fuzz

help: ## Show the targets
	@sed -n 's/^\([a-z-]*\): ## /  make \1\t/p' Makefile | expand -t 24

demo: ## Run a real workflow several times, first blind, then with what was learned (ARGS=...)
	$(CARGO) run --release -p foresail --no-default-features --bin foresail -- demo $(ARGS)

test: .venv/tests-ready ## Run all tests, the long proofs scaled down, those of the Python package too
	FORESAIL_TEST_SERVERS=required $(CARGO) test --workspace
	$(MAKE) --no-print-directory test-python

# With the binary that the tests of cargo were built with (a plain build would compile half of it again), in a virtual
# environment that is made where it is missing.
test-python: .venv/tests-ready ## Run the tests and checks of the Python package alone
	$(CARGO) test --workspace --no-run --quiet
	cd client/python && PYTHONPATH=$(CURDIR)/client/python FORESAIL_BINARY=$(TARGET)/debug/foresail $(VENV)/python -m pytest -q
	cd client/python && $(VENV)/python -m mypy
	cd client/python && $(VENV)/python -m pyright --pythonpath $(VENV)/python
	cd client/python && $(VENV)/python -m ruff check .
	cd client/python && $(VENV)/python -m ruff check --config pyproject.toml --extend-ignore D1 ../../tests/benches/python

.venv/tests-ready: client/python/tests/requirements.txt
	test -x .venv/bin/python || python3 -m venv .venv
	.venv/bin/python -m pip install --quiet --disable-pip-version-check -r $<
	touch $@

# The crates left out have none and bring the SDK of AWS, whose optimised build takes longer than all benchmarks.
bench: ## Run all benchmarks
	$(CARGO) bench --workspace --exclude foresail --exclude foresail-aws --exclude foresail-lambda

# In a virtual environment that is made where it is missing. Rivals that cannot be installed are named and left out.
bench-python: .venv/bench-ready ## Measure the Python package beside Dask, Ray, Lithops (ROWS=noop,gemm RIVALS=dask TURNS=3 OUTPUT=json)
	$(CARGO) build --release -p foresail --no-default-features --bin foresail
	FORESAIL_BINARY=$(TARGET)/release/foresail PYTHONPATH=$(CURDIR)/client/python $(VENV)/python \
		tests/benches/python/bench.py --rows "$(ROWS)" --rivals "$(RIVALS)" --turns $(TURNS) -o $(OUTPUT)

.venv/bench-ready: tests/benches/python/requirements.txt tests/benches/python/rivals.txt
	test -x .venv/bin/python || python3 -m venv .venv
	.venv/bin/python -m pip install --quiet --disable-pip-version-check -r $<
	while read rival; do \
		.venv/bin/python -m pip install --quiet --disable-pip-version-check "$$rival" </dev/null \
			|| echo "$$rival cannot be installed and is left out" >&2; \
	done < tests/benches/python/rivals.txt
	touch $@

# Needs Debian's redis-server and prometheus (sudo apt-get install redis-server prometheus; nothing has to run as a
# service) and the Python packages redis, dask, ray and hyperqueue (python3 -m venv .venv && .venv/bin/pip install redis
# 'dask[distributed]' ray hyperqueue). What is missing is named, and its comparison left out.
bench-rivals: ## Measure beside Redis, Prometheus, Dask, Ray and HyperQueue, where they are installed (RIVALS=..., PYTHON=...)
	FORESAIL_BENCH_PYTHON=$(PYTHON) $(CARGO) bench -p foresail-tests --bench rivals -- $(or $(RIVALS),history quantiles durable engine commands)

# Needs a Python with the packages anrg-saga and ortools (python3 -m venv .venv && .venv/bin/pip install anrg-saga
# ortools).
bench-planners: ## Compare planners with HEFT of SAGA and with optima of OR-tools (PYTHON=...)
	$(CARGO) build --release -p foresail --no-default-features --bin foresail
	$(or $(PYTHON),python3) tests/benches/planners/rivals.py target/release/foresail

proof: ## Run all tests with the long proofs at full size and tell how far they are (docs/testing.md)
	FORESAIL_PROOF=1 $(CARGO) test --release --workspace -- --nocapture

lint: ## Check format, lints, documentation and, with cargo-deny, licences and advisories
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --workspace --no-deps
	@if $(CARGO) deny --version >/dev/null 2>&1; then $(CARGO) deny check; \
	else echo "cargo-deny is not installed, licences and advisories were not checked" >&2; fi

fuzz: ## Run the property tests of the decoders with many cases (CASES=100000)
	PROPTEST_CASES=$(CASES) $(CARGO) test --release -p foresail-schemas --test schemas -- round_trips graphs
	PROPTEST_CASES=$(CASES) $(CARGO) test --release -p foresail-metad --lib store
