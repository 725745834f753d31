# Every target sets up what it needs first; `make setup` alone does the same.
PYTHON ?= python3
# Test processes, each with one thread; 0 is one process without distribution.
WORKERS ?= 2

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
SOURCES := src tests benchmarks

.PHONY: help setup demo test test-slow lint format docs clean

help:
	@echo "make setup | demo | test | test-slow | lint | format | docs | clean"

setup: $(STAMP)

$(STAMP): pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable '.[all]' --group dev torch torchvision
	touch $@

demo: $(STAMP)
	$(BIN)/tilth demo --out demo-output

test: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) --cov --cov-report=term-missing:skip-covered --cov-fail-under=85

test-slow: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m slow

lint: $(STAMP)
	$(BIN)/ruff format --check $(SOURCES)
	$(BIN)/ruff check $(SOURCES)
	$(BIN)/mypy

format: $(STAMP)
	$(BIN)/ruff format $(SOURCES)
	$(BIN)/ruff check --fix $(SOURCES)

docs: $(STAMP)
	$(BIN)/mkdocs build --strict

clean:
	rm -rf site dist build demo-output htmlcov .coverage .coverage.* .pytest_cache .mypy_cache .ruff_cache
	find src tests -name __pycache__ -type d -prune -exec rm -rf {} +
