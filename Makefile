# Every target does its own set-up: a bare Python 3.11 and the package registry are enough.
.DEFAULT_GOAL := help
.PHONY: help demo test test-slow lint clean
SHELL := /bin/bash

PYTHON ?= python3.11
VENV := .venv
READY := $(VENV)/.ready-$(shell cat constraints.txt pyproject.toml | sha256sum | cut -c1-16)
L2D := $(VENV)/bin/live2diff
OUT := outputs/demo
# The video that the demo translates; any other: make demo-video VIDEO=clip.mp4 PROMPT="..."
PROMPT ?= a cartoon of a red circle and a blue star on hills

help:  ## show this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-12s %s\n", $$1, $$2}'

# Rebuilt when the pins or the dependencies change; otherwise it costs nothing.
$(READY):
	@command -v $(PYTHON) > /dev/null || { echo "error: $(PYTHON) is not installed; install it or say make PYTHON=..." >&2; exit 5; }
	$(PYTHON) -m venv --clear $(VENV)
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

setup: $(READY)

test: $(READY)  ## run the tests (CPU, no network)
	$(VENV)/bin/python -m pytest -m "not slow"

test-slow: $(READY)  ## run the heavier drills too
	$(VENV)/bin/python -m pytest

lint: $(READY)  ## ruff and pyright
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/pyright

clean:  ## remove the environment and what the demo made
	rm -rf $(VENV) $(OUT)
