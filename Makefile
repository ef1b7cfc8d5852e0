# make demo   serve the demo on http://127.0.0.1:7860 (HOST and PORT can be set)
# make test   run all tests
# make lint   check style, layers of imports and types
# Each creates .venv when it is missing and installs only when the requirements have changed.

PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python

.PHONY: demo test lint

demo: $(VENV)/.demo
	$(RUN) app.py

test: $(VENV)/.test
	$(RUN) -m pytest

lint: $(VENV)/.test
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/lint-imports --no-cache

$(RUN):
	$(PYTHON) -m venv $(VENV)

$(VENV)/.demo: requirements.txt | $(RUN)
	$(RUN) -m pip install --quiet --disable-pip-version-check -r requirements.txt
	touch $@

$(VENV)/.test: requirements-dev.txt requirements-train.txt requirements-eval.txt $(VENV)/.demo
	$(RUN) -m pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	touch $@
