# make demo   serve the demo on http://127.0.0.1:7860 (HOST and PORT can be set)
# make test   run all tests, in a random order that stays the same, a worker for each core (PYTEST_ADDOPTS="-n 0" for none)
# make lint   check style, layers of imports and types
# Each creates .venv when it is missing and installs only when the requirements have changed.

PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python

.PHONY: demo test lint

demo: $(VENV)/.demo
	$(RUN) app.py

test: $(VENV)/.test
	$(VENV)/bin/node --test 'tests/ui/js/*.test.js'
	$(RUN) -m pytest --randomly-seed=15 --reruns 1 --only-rerun TimeoutError

lint: $(VENV)/.test node_modules/.package-lock.json
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/lint-imports --no-cache
	$(VENV)/bin/pyright
	$(VENV)/bin/node node_modules/@biomejs/biome/bin/biome lint --error-on-warnings

$(RUN):
	$(PYTHON) -m venv $(VENV)

$(VENV)/.demo: requirements.txt | $(RUN)
	$(RUN) -m pip install --quiet --disable-pip-version-check -r requirements.txt
	touch $@

$(VENV)/.test: requirements-dev.txt requirements-train.txt requirements-eval.txt $(VENV)/.demo
	$(RUN) -m pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	touch $@

node_modules/.package-lock.json: package-lock.json $(VENV)/.test
	$(VENV)/bin/npm ci --silent --no-fund --no-audit
	touch $@
