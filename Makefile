# Each target sets up .venv by itself on a fresh machine with Python 3.11 or later.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test fuzz lint check bench clean

demo: .venv/ready
	$(BIN)/vaeworks demo --out out/demo --overwrite

test: .venv/ready
	$(BIN)/python -m pytest --numprocesses auto --maxprocesses 4 --dist loadfile

# Inputs that nobody honest would write, by the thousand
fuzz: .venv/ready
	$(BIN)/python tests/hostile/fuzzing.py --inputs 20000

lint: .venv/ready
	$(BIN)/ruff check src tests benchmarks
	$(BIN)/ruff format --check src tests benchmarks
	$(BIN)/mypy

# What continuous integration runs
check: lint test

bench: .venv/ready
	$(BIN)/python benchmarks/train_throughput.py
	$(BIN)/python benchmarks/load_time.py

.venv/ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	touch $@

clean:
	rm -rf .venv out
