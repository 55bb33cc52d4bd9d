# Every target does its own set-up: a bare Python 3.11 and the package registry are enough.
.DEFAULT_GOAL := help
.PHONY: help demo demo-video toy-weights test test-slow test-slurm lint clean
SHELL := /bin/bash

PYTHON ?= python3.11
VENV := .venv
READY := $(VENV)/.ready-$(shell cat constraints.txt pyproject.toml | sha256sum | cut -c1-16)
L2D := $(VENV)/bin/live2diff
OUT := outputs/demo
TOY := outputs/toy
PROMPT ?= a cartoon of a red circle and a blue star on hills

help:  ## show this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-12s %s\n", $$1, $$2}'

# Rebuilt when the pins or the dependencies change; otherwise it costs nothing.
$(READY):
	@command -v $(PYTHON) > /dev/null || { echo "error: $(PYTHON) is not installed; install it or say make PYTHON=..." >&2; exit 5; }
	$(PYTHON) -m venv --clear $(VENV)
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

demo: $(READY)  ## toy videos -> shards -> fine-tuning -> export -> a streamed video, in about 5 minutes
	rm -rf $(OUT)/[!y]*  # your-video.* stays
	@echo "== 1/6 Cartoons of the toy world to fine-tune on, and an unseen photo-like video to translate"
	$(L2D) data toy --out $(OUT)/videos --count 32 --look cartoon
	$(L2D) data toy --out $(OUT)/unseen --count 1 --split test --seconds 6 --look photo
	$(L2D) data toy --out $(OUT)/truth --count 1 --split test --seconds 6 --look cartoon
	@echo "== 2/6 Videos to shards"
	$(L2D) data build $(OUT)/videos --out $(OUT)/shards prep=tiny
	@echo "== 3/6 Stage 1: from the weights that come with the package, the motion modules learn the warm-up mask"
	$(L2D) train experiment=toy_stage1 run_dir=$(OUT)/toy_stage1 data.path=$(OUT)/shards
	@echo "== 4/6 Stage 2: the depth branch joins"
	$(L2D) train experiment=toy_stage2 run_dir=$(OUT)/toy_stage2 model.saved=$(OUT)/toy_stage1 data.path=$(OUT)/shards
	@echo "== 5/6 Export"
	$(L2D) export $(OUT)/toy_stage2 --weights ema --out $(OUT)/export
	@echo "== 6/6 Stream the unseen video through it, frame by frame, as the cartoon that its scene would be"
	$(L2D) stream $(OUT)/export --input $(OUT)/unseen/toy_900000.mp4 --output $(OUT)/stream.mp4 \
	  --side-by-side $(OUT)/side_by_side.png --prompt "$$(cat $(OUT)/truth/toy_900000.txt)"
	@echo "Watch $(OUT)/stream.mp4; compare input and output in $(OUT)/side_by_side.png; the true cartoon is in $(OUT)/truth"

toy-weights: export OMP_NUM_THREADS = 1  # another number of threads rounds differently: other weights
toy-weights: $(READY)  ## make the toy world's weights anew, in outputs/toy and in the package: tens of minutes
	rm -rf $(TOY)
	for look in photo cartoon drawing; do $(L2D) data toy --out $(TOY)/videos/$$look --count 14 --look $$look || exit; done
	$(L2D) data build $(TOY)/videos --out $(TOY)/shards prep=tiny
	$(L2D) train experiment=toy_vae run_dir=$(TOY)/toy_vae
	$(L2D) train experiment=toy_depth run_dir=$(TOY)/toy_depth
	$(L2D) train experiment=toy_image run_dir=$(TOY)/toy_image model.saved=$(TOY)/toy_vae
	$(L2D) train experiment=toy_cartoon run_dir=$(TOY)/toy_cartoon model.saved=$(TOY)/toy_image
	$(L2D) train experiment=toy_drawing run_dir=$(TOY)/toy_drawing model.saved=$(TOY)/toy_image
	$(L2D) train experiment=toy_motion run_dir=$(TOY)/toy_motion model.saved=$(TOY)/toy_image data.path=$(TOY)/shards
	$(VENV)/bin/python -m train.toy_pack $(TOY)
	$(MAKE) demo
	$(VENV)/bin/python -m train.toy_pack $(OUT) --stream

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
