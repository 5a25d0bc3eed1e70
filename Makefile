# The two commands of the README, `make demo` and `make test`, and the rest of the
# daily ones. Each makes the virtual environment first when there is none; all it
# needs is a Python 3.11 to 3.13 with venv.

PYTHON ?= python3
VENV ?= .venv
# Test processes at a time. Each holds one TensorFlow: about 1 GB and one core.
WORKERS ?= 2
# Further arguments for pytest: make test ARGS="-k golden"
ARGS ?=

BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
BACKENDS := $(VENV)/.backends

.PHONY: help setup backends demo test slow lint format benchmark clean distclean

help:
	@echo "make demo       train a small network with HierarchicalRNN and with Adam"
	@echo "make test       the tests, but for those marked slow"
	@echo "make slow       the tests marked slow"
	@echo "make lint       ruff: rules and format"
	@echo "make format     let ruff mend what it can"
	@echo "make benchmark  time one optimizer step on ResNet50V2's variables"
	@echo "make setup      only make $(VENV); every command above does it when needed"
	@echo "make backends   add JAX and PyTorch to $(VENV), for the tests that use them"
	@echo "make clean      remove caches and build products; make distclean: $(VENV) too"

setup: $(INSTALLED)

$(INSTALLED): setup.py constraints.txt
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; \
	sys.exit(0 if (3, 11) <= v < (3, 14) else \
	"Python 3.11, 3.12 or 3.13 is needed, found %d.%d. Name one: make setup PYTHON=python3.11" % v)'
	@echo "Making $(VENV): about 800 MB to download, 2.7 GB on disk, a few minutes."
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --disable-pip-version-check \
		--editable ".[test,meta,imagenet]" --constraint constraints.txt
	@touch $@

backends: $(BACKENDS)

$(BACKENDS): $(INSTALLED)
	$(BIN)/python -m pip install --disable-pip-version-check \
		--editable ".[backends]" --constraint constraints.txt
	@touch $@

demo: $(INSTALLED)
	@$(BIN)/python examples/digits.py $(ARGS)

# `loadfile` keeps the tests of one file in one process, which then traces and compiles
# what they share only once.
test: $(INSTALLED)
	@$(BIN)/python -m pytest --numprocesses $(WORKERS) --dist loadfile $(ARGS)

# Most are cells of one table (test_ways.py), so a whole file would leave a core idle.
slow: $(INSTALLED)
	@$(BIN)/python -m pytest -m slow --numprocesses $(WORKERS) --dist worksteal \
		--timeout 1500 --durations 10 $(ARGS)

lint: $(INSTALLED)
	@$(BIN)/python -m ruff check .
	@$(BIN)/python -m ruff format --check .

format: $(INSTALLED)
	@$(BIN)/python -m ruff check --fix .
	@$(BIN)/python -m ruff format .

benchmark: $(INSTALLED)
	@$(BIN)/python -m learned_optimizer.benchmark --model=ResNet50V2 $(ARGS)

clean:
	rm -rf build dist *.egg-info .pytest_cache .ruff_cache .hypothesis examples/output
	find . -path './.venv*' -prune -o -name __pycache__ -type d -prune \
		-exec rm -rf {} +

distclean: clean
	rm -rf $(VENV)
