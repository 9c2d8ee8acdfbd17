# Each target sets up .venv by itself on a fresh machine with Python 3.11 or later.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test coverage fuzz lint check bench clean

demo: .venv/ready
	$(BIN)/vaeworks demo --out out/demo --overwrite

test: .venv/ready
	$(BIN)/python -m pytest --numprocesses auto --maxprocesses 4 --dist loadfile

# Lines of the package that tests run: a table, and .coverage
coverage: .venv/ready
	$(BIN)/python -m pytest --numprocesses auto --maxprocesses 4 --dist loadfile --cov=vaeworks --cov-report=term

# Inputs that nobody honest would write, by the thousand
fuzz: .venv/ready
	$(BIN)/python tests/hostile/fuzzing.py --inputs 20000

lint: .venv/ready
	$(BIN)/ruff check src tests benchmarks examples
	$(BIN)/ruff format --check src tests benchmarks examples
	$(BIN)/mypy

# What continuous integration runs
check: lint test

# The minima of pyproject.toml, for the workflow that runs the tests with them
constraints-oldest.txt: pyproject.toml tests/minima.py
	$(PYTHON) tests/minima.py > $@

bench: .venv/ready
	$(BIN)/python benchmarks/train_throughput.py
	$(BIN)/python benchmarks/load_time.py

.venv/ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	touch $@

clean:
	rm -rf .venv out
