# The two commands of the README, `make demo` and `make test`, and the rest of the
# daily ones. Each makes the virtual environment first when there is none; all it
# needs is a Python 3.11 to 3.13 with venv.

PYTHON ?= python3
VENV ?= .venv
# Test processes at a time. Each holds one TensorFlow: about 1 GB and one core.
WORKERS ?= 2
# Sessions of pytest for the slow tests, one after the other: TensorFlow keeps every
# program that a process compiled (70 MB a test), and each session starts afresh.
PARTS ?= 4
# Further arguments for pytest: make test ARGS="-k golden"
ARGS ?=

BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
BACKENDS := $(VENV)/.backends
MODELS := $(VENV)/.models
DOCS := $(VENV)/.docs

.PHONY: help setup backends models demo digits test slow lint format docs benchmark clean distclean

help:
	@echo "make demo       train ResNet50V2 with HierarchicalRNN and with RMSProp"
	@echo "make digits     train a small network with HierarchicalRNN and with Adam"
	@echo "make test       the tests, but for those marked slow"
	@echo "make slow       the tests marked slow"
	@echo "make lint       ruff: rules and format"
	@echo "make format     let ruff mend what it can"
	@echo "make docs       the pages and an API reference as one site, build/site"
	@echo "make benchmark  time one optimizer step on ResNet50V2's variables"
	@echo "make setup      only make $(VENV); every command above does it when needed"
	@echo "make backends   add JAX and PyTorch to $(VENV), for the tests that use them"
	@echo "make models     add TensorFlow Model Garden, for the tests that use it"
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

models: $(MODELS)

# Without --use-pep517 an old pip cannot build one of its requirements.
$(MODELS): $(INSTALLED)
	$(BIN)/python -m pip install --disable-pip-version-check --use-pep517 \
		--editable ".[models]" --constraint constraints.txt
	@touch $@

docs: $(DOCS)
	@$(BIN)/python docs/build_site.py

$(DOCS): $(INSTALLED)
	$(BIN)/python -m pip install --disable-pip-version-check \
		--editable ".[docs]" --constraint constraints.txt
	@touch $@

# Images of ten classes, drawn on the spot; 9 minutes on two cores without AVX-512.
demo: $(INSTALLED)
	@$(BIN)/python -m imagenet.benchmark --models=resnet_v2_50 --image_size=48 \
		--optimizers=hierarchical_rnn,rmsprop --factors=1 --timing_batches= \
		--num_classes=10 --num_images=4000 --num_validation_images=500 \
		--batch_size=32 --train_steps=150 --steps_per_loop=5 \
		--checkpoint_every=100 --keep_checkpoints=1 \
		--data_dir=examples/output/data --output=examples/output/demo $(ARGS)

digits: $(INSTALLED)
	@$(BIN)/python examples/digits.py $(ARGS)

# `loadfile` keeps the tests of one file in one process, which then traces and compiles
# what they share only once.
test: $(INSTALLED)
	@$(BIN)/python -m pytest --numprocesses $(WORKERS) --dist loadfile $(ARGS)

# Most are cells of one table (test_ways.py), so a whole file would leave a core idle.
# A part that fails does not hide those after it; 5 says that ARGS left none in a part.
slow: $(INSTALLED)
	@failed=; for part in $$(seq $(PARTS)); do \
		echo "Slow tests, part $$part of $(PARTS)"; \
		$(BIN)/python -m pytest -m slow --splits $(PARTS) --group $$part \
			--numprocesses $(WORKERS) --dist worksteal \
			--timeout 1500 --durations 10 $(ARGS) || [ $$? -eq 5 ] \
			|| failed="$$failed $$part"; \
	done; \
	[ -z "$$failed" ] || { echo "Parts with failures:$$failed" >&2; exit 1; }

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
