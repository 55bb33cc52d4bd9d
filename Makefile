# Every target does its own set-up: a bare Python 3.11 and the package registry are enough.
.DEFAULT_GOAL := help
.PHONY: help demo demo-video test test-slow test-slurm lint clean
SHELL := /bin/bash

PYTHON ?= python3.11
VENV := .venv
READY := $(VENV)/.ready-$(shell cat constraints.txt pyproject.toml | sha256sum | cut -c1-16)
L2D := $(VENV)/bin/live2diff
OUT := outputs/demo
PROMPT ?= a cartoon of a red circle and a blue star on hills

help:  ## show this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-12s %s\n", $$1, $$2}'

# Rebuilt when the pins or the dependencies change; otherwise it costs nothing.
$(READY):
	@command -v $(PYTHON) > /dev/null || { echo "error: $(PYTHON) is not installed; install it or say make PYTHON=..." >&2; exit 5; }
	$(PYTHON) -m venv --clear $(VENV)
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

demo: $(READY)  ## toy videos -> shards -> training -> export -> a streamed video, in about 6 minutes
	rm -rf $(OUT)/[!y]*  # your-video.* stays
	@echo "== 1/7 Videos of the toy world to train on, and an unseen one to translate"
	$(L2D) data toy --out $(OUT)/videos --count 64
	$(L2D) data toy --out $(OUT)/unseen --count 1 --split test --seconds 6
	@echo "== 2/7 Videos to shards"
	$(L2D) data build $(OUT)/videos --out $(OUT)/shards prep=tiny
	@echo "== 3/7 What others download: an autoencoder, a depth net, an image and motion model"
	$(L2D) train experiment=toy_parts run_dir=$(OUT)/parts
	$(L2D) train experiment=toy_base run_dir=$(OUT)/base model.saved=$(OUT)/parts data.path=$(OUT)/shards
	@echo "== 4/7 Stage 1: the temporal modules learn the warm-up mask"
	$(L2D) train experiment=tiny_stage1 run_dir=$(OUT)/stage1 model.saved=$(OUT)/base data.path=$(OUT)/shards
	@echo "== 5/7 Stage 2: the depth branch joins"
	$(L2D) train experiment=tiny_stage2 run_dir=$(OUT)/stage2 model.saved=$(OUT)/stage1 data.path=$(OUT)/shards
	@echo "== 6/7 Export"
	$(L2D) export $(OUT)/stage2 --out $(OUT)/export
	@echo "== 7/7 Stream the unseen video through it, frame by frame"
	$(L2D) stream $(OUT)/export --input $(OUT)/unseen/toy_900000.mp4 --output $(OUT)/stream.mp4 \
	  --side-by-side $(OUT)/side_by_side.png --prompt "$$(cat $(OUT)/unseen/toy_900000.txt)"
	@echo "Watch $(OUT)/stream.mp4; compare input and output in $(OUT)/side_by_side.png"

demo-video: $(READY)  ## stream your own VIDEO=file through the demo's model, with PROMPT="..."
	@test -d $(OUT)/export || { echo "error: there is no model yet; run make demo first" >&2; exit 2; }
	@test -n "$(VIDEO)" || { echo "error: say which video: make demo-video VIDEO=clip.mp4" >&2; exit 2; }
	$(L2D) stream $(OUT)/export --input "$(VIDEO)" --output $(OUT)/your-video.mp4 \
	  --side-by-side $(OUT)/your-video.png --prompt "$(PROMPT)" --overwrite

test: $(READY)  ## run the tests (CPU, no network)
	OMP_NUM_THREADS=1 $(VENV)/bin/python -m pytest -m "not slow and not slurm" -n logical --maxprocesses 4 --dist loadfile

test-slow: $(READY)  ## run the heavier drills: all real videos, full-size depth nets, the demo
	$(VENV)/bin/python -m pytest -m slow

test-slurm: $(READY)  ## train on a two-node SLURM cluster that this starts (root, with Debian's slurm-wlm and munge)
	$(VENV)/bin/python -m pytest -m slurm tests/slurm -rs

lint: $(READY)  ## ruff and pyright
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/pyright

clean:  ## remove the environment and what the demo made
	rm -rf $(VENV) $(OUT)
