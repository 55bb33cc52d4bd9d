"""`live2diff train --dry-run`: what a run would do and need, without training or leaving anything behind.

The model is built without its weights, one batch is read, and all that would stop the run before its first
step is looked for and told at once. The exit code is what the run itself would end with.
"""

from __future__ import annotations

import os
import shlex
import shutil
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from live2diff.errors import Live2DiffError, SetupError
from live2diff.runs import updates_of
from live2diff.terminal import quiet_libraries
from train.checks import check_data, check_logger, check_places, check_precision, validates
from train.model_group import check_settings, missing_models, outlined
from train.resume import (
    check_effective_batch,
    check_same_run,
    check_writable,
    existing,
    newest_whole,
    pin_base,
    pin_columns,
)
from train.settings import load_config
from train.topology import Topology, check_batch, topology

if TYPE_CHECKING:
    from live2diff.model.video_model import VideoModel

R = TypeVar("R")
GB = 1e9


@dataclass
class Plan:
    """What is found, by label, in the order it is told; and what would stop the run."""

    rows: dict[str, list[str]] = field(default_factory=dict)
    problems: list[Live2DiffError] = field(default_factory=list)

    def attempt(self, check: Callable[[], R]) -> R | None:
        """The result of `check`; None, and a problem more, where it refuses."""
        try:
            return check()
        except Live2DiffError as error:
            self.problems.append(error)
            return None

    def __str__(self) -> str:
        width = max(map(len, self.rows)) + 2
        lines = []
        for label, texts in self.rows.items():
            lines += [f"{label if not i else '':{width}}{text}" for i, text in enumerate(texts)]
        return "\n".join(lines)


def dry_run(overrides: Sequence[str]) -> int:
    """Print the plan of `live2diff train` with `overrides`.

    Returns:
        0 when it could start, else the exit code of the first thing that would stop it.

    Raises:
        UsageError: a configuration that is none.
    """
    config = load_config(overrides)
    quiet_libraries()
    plan = make_plan(config)
    plan.rows["start it"] = [shlex.join(["live2diff", "train", *overrides])]
    if int(os.environ.get("RANK") or os.environ.get("SLURM_PROCID") or 0) == 0:
        print(plan)
        for problem in plan.problems:
            print(f"error: {problem}", file=sys.stderr)
        if plan.problems:
            print("as it is, this run would not start", file=sys.stderr)
    return plan.problems[0].exit_code if plan.problems else 0


def make_plan(config: dict[str, Any]) -> Plan:
    """Look at everything that a run with `config` needs."""
    plan, run, trainer = Plan(), Path(config["run_dir"]), config["trainer"]
    plan.attempt(lambda: check_places(config))
    founded = not plan.problems  # whether what it builds on is there
    if founded:
        plan.attempt(lambda: pin_base(run, config))
        pin_columns(run, config)
        plan.attempt(lambda: check_same_run(run, config))
    processes = _processes(plan, trainer)
    plan.attempt(lambda: check_batch(trainer, processes.world))
    plan.attempt(lambda: check_precision(trainer, processes.accelerator))
    plan.attempt(lambda: check_writable(run))
    found = newest_whole(run)
    if found:
        plan.attempt(lambda: check_effective_batch(found, trainer, processes.world))
    _tell_recipe(plan, config)
    plan.attempt(lambda: check_data(config, processes.world))
    plan.attempt(lambda: check_settings(config["model"]))
    plan.problems += missing_models(config["model"])
    plan.attempt(lambda: check_logger(config["logger"]))
    parts = _tell_data(plan, config)
    model = plan.attempt(lambda: outlined(config)) if founded else None
    _tell_batch(plan, config, processes)
    if model is None:
        plan.rows["model"] = ["not known: what it builds on is not there"]
    else:
        _tell_model(plan, config, model, parts, processes.world)
    start = f", continued after update {updates_of(found)}" if found else ""
    plan.rows["results"] = [f"{run}{start}"]
    return plan


def _processes(plan: Plan, trainer: dict[str, Any]) -> Topology:
    """Those that would train; where the machine has too few GPUs, those that the configuration asks for."""
    import torch

    processes = plan.attempt(lambda: topology(trainer, os.environ, torch.cuda.device_count()))
    if processes is None:
        devices = 1 if trainer["devices"] == "auto" else trainer["devices"]
        processes = Topology("local", "cpu" if trainer["accelerator"] == "cpu" else "cuda", devices, 1)
    return processes


def _tell_recipe(plan: Plan, config: dict[str, Any]) -> None:
    trainer, optim = config["trainer"], config["optim"]
    if trainer["task"] != "diffusion":
        plan.rows["recipe"] = [f"task {trainer['task']}"]
        return
    extras = [f"{key} {trainer[key]}" for key in ("min_snr", "offset_noise", "lora") if trainer.get(key)]
    depth = "depth" if trainer["depth"] else "no depth"
    plan.rows["recipe"] = [
        ", ".join([f"mask {trainer['mask']}", depth, f"loss {trainer['loss']}", *extras]),
        f"{optim['kind']}, learning rate {optim['lr']:g}, weight decay {optim['weight_decay']:g}, "
        f"clipping {trainer['clip_grad'] or 'none'}, running mean {trainer['ema'] or 'none'}",
        f"{trainer['precision']}, gradient checkpointing {_on(trainer['gradient_checkpointing'])}",
    ]


def _on(switch: bool) -> str:
    return "on" if switch else "off"


def _tell_data(plan: Plan, config: dict[str, Any]) -> Any:
    """What there is to train on, and one batch of it; returns what is read of a clip."""
    from train.columns import Parts, choose_parts
    from train.data import Clips, collate
    from train.shards import find_shards

    data, trainer = config["data"], config["trainer"]
    if data is None:
        plan.rows["data"] = ["none: the task renders its own frames"]
        return Parts()
    sample = f"{data['frames']} frames at stride {data['stride']}, {data['size']} pixels"
    if any(error.exit_code in (2, 3) and "data." in str(error) for error in plan.problems):
        plan.rows["data"] = [f"{data['path']}: cannot be used, see below", sample]
        named = data["columns"] if isinstance(data["columns"], list) else []
        needs_frames = "latents" not in named or (trainer["depth"] and "depth" not in named)
        return Parts(frames=needs_frames)
    shards = find_shards(data["path"], data["split"])
    parts = choose_parts(data, None, trainer["depth"])
    clips = sum(shard.clips for shard in shards)
    plan.rows["data"] = [f"{data['path']}, {data['split']}: {clips:,} clips in {len(shards)} shards", sample]
    start = time.monotonic()

    def first_batch() -> dict[str, Any]:
        samples = iter(Clips(data, config["seed"], trainer["batch"], batches=1, parts=parts))
        return collate([next(samples) for _ in range(trainer["batch"])])

    batch = plan.attempt(first_batch)
    if batch is not None:
        sizes = ", ".join(f"{k} {tuple(v.shape)}" for k, v in batch.items() if hasattr(v, "shape"))
        seconds = time.monotonic() - start
        plan.rows["data"].append(f"one batch read in {seconds:.1f} s from {parts}: {sizes}")
    return parts


def _tell_batch(plan: Plan, config: dict[str, Any], processes: Topology) -> None:
    trainer, data = config["trainer"], config["data"]
    batch, accumulate, updates = trainer["batch"], trainer["accumulate"], trainer["updates"]
    effective = batch * processes.world * accumulate
    unit = "clips" if data else "frames"
    plan.rows["processes"] = [
        f"{processes.world} on {processes.accelerator}, {processes.devices} per machine, started by "
        f"{'this command' if processes.launcher == 'local' else processes.launcher}"
    ]
    plan.rows["batch"] = [
        f"{batch} {unit} x {processes.world} devices x {accumulate} micro-steps = {effective} per update"
    ]
    every = trainer["save_every"]
    validation = config["validation"]
    kept = f"a checkpoint every {every} updates, {trainer['keep']} kept" if every else "no checkpoints"
    plan.rows["schedule"] = [
        f"{updates:,} updates = {updates * accumulate:,} micro-steps on each device = "
        f"{updates * effective:,} {unit}",
        kept,
        *([f"validation every {validation['every']} updates"] if validates(config) else []),
    ]


def _tell_model(plan: Plan, config: dict[str, Any], model: VideoModel, parts: Any, world: int) -> None:
    from live2diff.model.outline import parameters_of

    trainer = config["trainer"]
    parts_of = {"UNet": model.unet, "VAE": model.vae, "text encoder": model.text, "depth net": model.depth}
    settings = model.settings
    plan.rows["model"] = [
        config["model"].get("saved") or config["model"]["unet"]["pretrained"] or "random weights",
        ", ".join(f"{name} {parameters_of(part):,}" for name, part in parts_of.items()) + " parameters",
        f"window {settings.window}, warm-up {settings.warmup}, predicts {settings.noise.prediction}",
    ]
    trained = trained_by_group(model)
    total = sum(trained.values())
    groups = ", ".join(f"{name} {count:,}" for name, count in trained.items())
    plan.rows["trained"] = [f"{total:,} parameters: {groups}"]
    if trainer["task"] == "diffusion":
        _tell_memory(plan, config, model, parts, world)
    if trainer["save_every"]:
        _tell_disk(plan, config, total)


def trained_by_group(model: VideoModel) -> Counter[str]:
    """Trained parameters, by the part of the model they belong to."""
    from train.trainable import ALIASES

    counts: Counter[str] = Counter()
    for name, parameter in model.unet.named_parameters():
        if parameter.requires_grad:
            groups = (group for group in ("motion", "depth", "conv_in") if ALIASES[group](name))
            counts["LoRA" if ".lora_" in name else next(groups, "image layers")] += parameter.numel()
    for part, net in (("VAE", model.vae), ("depth net", model.depth)):
        count = sum(parameter.numel() for parameter in net.parameters() if parameter.requires_grad)
        if count:
            counts[part] = count
    return counts


def _tell_memory(plan: Plan, config: dict[str, Any], model: VideoModel, parts: Any, world: int) -> None:
    import torch

    from train.memory import estimate

    need = estimate(model, config["trainer"], config["data"], parts, world)
    lines = ", ".join(f"{name} {value / GB:.2f}" for name, value in need.kept().items())
    plan.rows["memory"] = [
        f"about {need.total / GB:.2f} GB on each device, of which to keep: {lines};",
        f"and at work, the largest of: frozen nets {need.encoding / GB:.2f}, UNet forward and backward "
        f"{need.step / GB:.2f}, optimiser {need.update / GB:.2f}",
    ]
    if torch.cuda.is_available():
        has = torch.cuda.get_device_properties(0).total_memory
        words = "which is enough" if need.total < 0.95 * has else "which is too little: lower trainer.batch"
        plan.rows["memory"].append(f"this GPU has {has / GB:.1f} GB, {words}")


def _tell_disk(plan: Plan, config: dict[str, Any], trained: int) -> None:
    trainer, folder = config["trainer"], existing(Path(config["run_dir"]))
    size = trained * (4 + 8 + (4 if trainer["ema"] else 0))  # weights, Adam's moments, running mean
    # Besides those that are kept, the one being written, and the best one where there is a validation loss.
    count = trainer["keep"] + 1 + bool(validates(config) and config["validation"]["clips"])
    free = shutil.disk_usage(folder).free
    plan.rows["disk"] = [
        f"{count} checkpoints of {size / GB:.2f} GB at most: {count * size / GB:.2f} GB; "
        f"{free / GB:.1f} GB are free at {folder.resolve()}"
    ]
    if count * size > free:
        plan.problems.append(
            SetupError(
                f"run_dir={config['run_dir']}: {count} checkpoints need {count * size / GB:.2f} GB, "
                f"{free / GB:.2f} GB are free; give another run_dir or lower trainer.keep"
            )
        )
