# Two commands for a new machine: `make demo` and `make test`. Everything else is for those who stay.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: help setup demo check test test-portable test-full bench bench-peers clean
help:            ## this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## */\t/' | expand -t 14

setup: $(STAMP)  ## virtual environment in .venv with everything in it
$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit("Limen needs Python 3.11 or newer; run make PYTHON=python3.11 ...") if sys.version_info < (3, 11) else None'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

demo: setup      ## train, evaluate, calibrate, export and serve on real data that ships with a dependency
	$(BIN)/limen demo

check: setup     ## lint, types, import rules
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	# its workers are new and end now and then with an error of their own (status 2): then without them
	$(BIN)/mypy --num-workers 2 || { test $$? -eq 2 && $(BIN)/mypy; }
	$(BIN)/lint-imports

PYTEST := $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder
test: setup      ## the whole test suite, long forms left out
	$(PYTEST) -m 'not full'

PLAIN := FAISS_SIMD_LEVEL=NONE FAISS_OPT_LEVEL=generic ATEN_CPU_CAPABILITY=default
# what computes with FAISS or torch, and what waits for a busy machine; files and refusals are the same anywhere
RESUME := tests/training/loop/test_resume.py
PORTABLE := tests/index/engines tests/index/search tests/decision tests/properties/test_index_machine.py tests/service/runtime \
	$(RESUME)::test_a_signal_saves_and_resuming_is_the_same_run_bit_for_bit \
	$(RESUME)::test_kill_9_loses_at_most_an_epoch_and_nothing_of_the_result
test-portable: setup ## what a processor could change, on the plainest instructions and beside two busy loops
	nice sh -c 'while :; do :; done' & one=$$!; nice sh -c 'while :; do :; done' & two=$$!; \
	trap "kill $$one $$two" EXIT; \
	$(PLAIN) $(PYTEST) -m 'not full' -q $(PORTABLE)

test-full: setup ## the whole test suite with its long forms
	LIMEN_RANDOM_EXAMPLES=1 $(PYTEST)

bench: setup     ## every benchmark, each a ratio against a peer or a limit in the same run
	for file in benchmarks/*.py; do $(BIN)/python -m benchmarks.$$(basename $$file .py) || exit 1; done
	$(BIN)/python -m benchmarks.peers --out runs/peers.json --write docs/performance.md

PEERS := .venv-peers
bench-peers:     ## what Limen is compared with, in an environment of its own: .venv-peers
	test -x $(PEERS)/bin/python || $(PYTHON) -m venv $(PEERS)
	$(PEERS)/bin/python -m pip install --quiet --requirement benchmarks/peers/requirements.txt

clean:           ## remove what setup and the tools made
	rm -rf $(VENV) $(PEERS) build *.egg-info .mypy_cache .ruff_cache .pytest_cache
