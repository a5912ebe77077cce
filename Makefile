# `make` alone lists the targets. Each builds the .venv that it needs from nothing but python3.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READINGS ?= 1000000
KILLS ?= 1000
SEEDS ?= 1000
CASES ?= 500
MINUTES ?= 60
WORKERS ?= 3
DAYS ?= 7

.DEFAULT_GOAL := help
.PHONY: help run test check format bench bench-operators torture soak simulate fuzz fuzz-http offline clean docs docs-links durability reference

help: ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  make \1\t/' | expand -t 24

$(VENV)/run.stamp: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --editable .
	@touch $@

$(VENV)/dev.stamp: $(VENV)/run.stamp
	$(BIN)/pip install --quiet --editable '.[dev]'
	@touch $@

run: $(VENV)/run.stamp ## run the reference pipeline (pipeline.toml); Ctrl-C stops it
	$(BIN)/headwater run

test: $(VENV)/dev.stamp ## run the tests, WORKERS at a time: most of them wait for something
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile

check: $(VENV)/dev.stamp ## lint, format and types
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

format: $(VENV)/dev.stamp ## put the code into its form
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

bench: $(VENV)/dev.stamp ## the reference job, beside a bare loop over its lines (READINGS=1000000)
	$(BIN)/python benchmarks/reference.py $(READINGS)

reference: $(VENV)/dev.stamp ## docs/reference.md, docs/reference/ and docs/commands.md, from the code
	$(BIN)/python -m pipeline.command.pages docs
	$(BIN)/python -m pipeline.command.manual > docs/commands.md

docs: $(VENV)/dev.stamp ## the pages of docs/ as a site, into build/docs; a broken link is an error
	$(BIN)/python -m sphinx -q -W --keep-going -b html -c docs . build/docs -d build/docs.read
	@echo build/docs/index.html

docs-links: $(VENV)/dev.stamp ## whether what docs/ links to on other hosts is still there
	$(BIN)/python -m sphinx -q -b linkcheck -c docs . build/links -d build/docs.read

durability: $(VENV)/dev.stamp ## what a commit and a recovery cost here
	$(BIN)/python benchmarks/durability.py

bench-operators: $(VENV)/dev.stamp ## what each operator costs, into benchmarks/operators.md
	$(BIN)/python -m benchmarks.each_operator --write

torture: $(VENV)/dev.stamp ## kill a real pipeline again and again (KILLS=1000)
	KILLS=$(KILLS) $(BIN)/python -m pytest tests/test_kill.py

simulate: $(VENV)/dev.stamp ## the whole engine on a simulated disk, clock and network (SEEDS=1000)
	SEEDS=$(SEEDS) $(BIN)/python -m pytest tests/simulation

fuzz: $(VENV)/dev.stamp ## feed every codec with whatever bytes (CASES=20000)
	CASES=$(if $(filter command line,$(origin CASES)),$(CASES),20000) $(BIN)/python -m pytest tests/test_fuzz_codecs.py

fuzz-http: $(VENV)/dev.stamp ## Schemathesis asks a running device, by its /openapi.json (CASES=500)
	CASES=$(CASES) $(BIN)/python -m pytest -s tests/test_fuzz_http.py

offline: $(VENV)/dev.stamp ## a week without a network, inside a buffer of 100 MB (DAYS=7)
	$(BIN)/python benchmarks/offline.py $(DAYS)

soak: $(VENV)/dev.stamp ## a steady load with faults; prints what grows (MINUTES=60)
	$(BIN)/python tests/soak.py --minutes $(MINUTES)

clean: ## remove what the targets made
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
