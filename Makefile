# `make demo` and `make test` are all that a new machine needs (Python 3.11 or newer, make, git).
# PYTHON=... chooses the interpreter that .venv is made with.

PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/.installed
WORKERS ?= 2
# The pin of torch is kept by hand in constraints.txt; everything else there follows from pyproject.toml.
TORCH := $(shell sed -n 's/^torch==//p' constraints.txt)

.DELETE_ON_ERROR:
.PHONY: help install demo test lint types layers unit notebooks faults bench constraints clean

help:
	@echo 'make demo         train a small model on generated rain, forecast, verify, draw: everything into demo/'
	@echo 'make test         formatting, lint, types, layers, tests, notebooks, README and docs snippets'
	@echo 'make faults       what can go wrong, tried for an hour or two: one table, build/faults.json (ONLY=writing: one)'
	@echo 'make bench        speed and memory beside other libraries, into build/bench (DEVICE=cuda, QUICK=1)'
	@echo 'make install      the environment in .venv alone (the targets above make it when needed)'
	@echo 'make constraints  pin the newest packages that pyproject.toml allows in constraints.txt'
	@echo 'make clean        remove what the other targets made, .venv included'

install: $(INSTALLED)

$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c "import sys; sys.exit(sys.version_info < (3, 11) and 'cubecast needs Python 3.11 or newer, found %d.%d: make PYTHON=python3.11' % sys.version_info[:2])"
	$(PYTHON) -m venv .venv
	@echo 'installing packages into .venv: a few minutes'
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[test,tensorboard]'
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[pysteps]' \
		|| echo 'pysteps could not be built (it wants a C compiler): its tests will be skipped'
	@touch $@

demo: $(INSTALLED)
	$(BIN)/cubecast demo --out demo

test: lint types layers unit notebooks
	@echo 'make test: all passed'

lint: $(INSTALLED)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types: $(INSTALLED)
	$(BIN)/mypy

layers: $(INSTALLED)
	$(BIN)/lint-imports

# One thread a worker: two workers with two threads each would fight for two cores.
unit notebooks faults: export OMP_NUM_THREADS = 1

# The loopback is down in a bare network namespace (unshare -n), and test servers and notebook kernels live on it.
unit: $(INSTALLED)
	@ip link set lo up 2>/dev/null || true
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadscope --no-loadscope-reorder tests

notebooks: $(INSTALLED)
	@ip link set lo up 2>/dev/null || true
	$(BIN)/python -m pytest -n $(WORKERS) --nbmake --nbmake-timeout=300 notebooks

# One after the other: times are measured in some. `make test` runs the short numbers.
faults: $(INSTALLED)
	@ip link set lo up 2>/dev/null || true
	$(BIN)/python -m pytest tests/faults --faults=full --quiet $(if $(ONLY),-k $(ONLY))

# Peers' files are read without their dependencies: torchgeo alone would install torchvision, mlcast Lightning.
bench: $(INSTALLED)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[bench]'
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps torchgeo==0.8.1 mlcast==0.1.0
	$(BIN)/python benchmarks/run.py --out build/bench --device $(or $(DEVICE),cpu) $(if $(QUICK),--quick)

constraints:
	rm -rf build/constraints
	$(PYTHON) -m venv build/constraints
	build/constraints/bin/python -m pip install --quiet --disable-pip-version-check \
		-e '.[test,radar,bench,docs,tensorboard,pysteps]' torch==$(TORCH)
	{ sed -n '/^#/p' constraints.txt; build/constraints/bin/python -m pip freeze --exclude-editable \
		| sed -e '/^#/d' -e 's/+[a-z0-9.]*$$//'; } > build/constraints.txt
	mv build/constraints.txt constraints.txt
	rm -rf build/constraints

clean:
	rm -rf .venv build demo src/*.egg-info .pytest_cache .ruff_cache .mypy_cache .import_linter_cache .hypothesis
