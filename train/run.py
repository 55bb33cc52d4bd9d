"""One training run, from configuration to checkpoint. Running it again continues it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from live2diff.errors import DataError, SetupError
from live2diff.files import staged_file
from live2diff.parent import end_with
from live2diff.runs import updates_of
from live2diff.terminal import quiet_libraries
from train.checks import check_data, check_logger, check_places, check_precision
from train.lease import lease
from train.model_group import check_settings, missing_models, outlined
from train.pins import pin
from train.resume import (
    check_effective_batch,
    check_same_run,
    check_writable,
    newest_whole,
    pin_base,
    pin_columns,
    set_aside,
)
from train.settings import load_config
from train.signals import Signals
from train.topology import Topology, check_batch, topology
from train.toy_tasks import next_command, toy_task
from train.trainable import check_names

if TYPE_CHECKING:
    import lightning
    from lightning.pytorch.loggers.logger import Logger


def train(overrides: Sequence[str]) -> int:
    """Run what the configuration says.

    Returns:
        The exit code: 0 when done or back in SLURM's queue, 128 + signal when stopped by one.

    Raises:
        Live2DiffError: a configuration, dataset or checkpoint that cannot be used.
    """
    with Signals() as signals:  # before anything heavy is loaded
        config = load_config(overrides)
        check_places(config)
        pin_base(Path(config["run_dir"]), config)
        pin_columns(Path(config["run_dir"]), config)
        check_same_run(Path(config["run_dir"]), config)
        try:
            return _train(config, overrides, signals)
        except DataError as error:
            # From a loader worker, the message is the worker's whole traceback. It ends with the error.
            line = str(error).strip().splitlines()[-1]
            raise DataError(line.removeprefix(f"{DataError.__module__}.DataError: ")) from error


def _train(config: dict[str, Any], overrides: Sequence[str], signals: Signals) -> int:
    import torch

    run, settings = Path(config["run_dir"]), config["trainer"]
    processes = topology(settings, os.environ, torch.cuda.device_count())
    check_batch(settings, processes.world)
    check_precision(settings, processes.accelerator)
    first = processes.rank == 0
    # Those that the first process starts would otherwise wait on their GPUs for one that is gone.
    if processes.launcher == "local" and not first and not end_with(os.getppid()):
        return 1
    check_writable(run)
    with lease(run) if first else nullcontext():  # before anything in the folder is read or renamed
        return _continue(config, overrides, signals, processes)


def _continue(config: dict[str, Any], overrides: Sequence[str], signals: Signals, processes: Topology) -> int:
    from omegaconf import OmegaConf

    run, settings, first = Path(config["run_dir"]), config["trainer"], processes.rank == 0
    found = newest_whole(run)
    if first:
        set_aside(run, found)
    done = updates_of(found) if found else 0
    # A run of a toy task is done when its model is written; a kill may have come in between.
    whole = settings["task"] == "diffusion" or (run / "model").is_dir()
    if done >= settings["updates"] and whole:
        if first:
            count = settings["updates"]
            print(f"{run}: all {count} updates are done already; raise trainer.updates to go on")
        return 0
    if found:
        check_effective_batch(found, settings, processes.world)
    check_data(config, processes.world)
    check_settings(config["model"])
    if settings["task"] == "diffusion":
        check_names(settings["trainable"], lora=settings["lora"] is not None)
    for error in missing_models(config["model"]):
        raise error
    if first:
        check_logger(config["logger"])
        if config["model"].get("saved"):
            pin(Path(config["model"]["saved"]), run)

    import lightning  # the heavy libraries: what can be refused without them has been

    from train.environment import note_start
    from train.processes import explained, leave_together, meeting, stopped

    quiet_libraries()
    outlined(config)  # what only names and sizes can tell, before weights are read
    lightning.seed_everything(config["seed"], verbose=False)
    module, data = _task(config)
    if first:
        with staged_file(run / "config.yaml") as stage:
            OmegaConf.save(OmegaConf.create(config), stage)
        note_start(run, overrides)
        if found:
            print(f"continuing {run} after update {done}", flush=True)
        if processes.world > 1:
            print(meeting(processes), flush=True)
    try:
        trainer = _fit(config, module, data, processes, signals, found)
        # The count is what all ranks know alike: a signal may reach one only.
        if trainer.global_step < settings["updates"]:
            return stopped(trainer, signals, processes, kept=bool(settings["save_every"]))
        leave_together(trainer)
    except RuntimeError as error:
        raise explained(error, processes) or error from error
    if first:
        print(f"{run}: {trainer.global_step} updates done")
        if settings["task"] != "diffusion":
            module.finish(run)
        print(f"next: {_next(config, run)}")
    return 0


def _fit(
    config: dict[str, Any],
    module: lightning.LightningModule,
    data: lightning.LightningDataModule,
    processes: Topology,
    signals: Signals,
    found: Path | None,
) -> lightning.Trainer:
    """Train from the checkpoint `found`, or from the start; the last checkpoint is complete on return."""
    import lightning

    from train.checkpoints import FolderCheckpoints, SaveCheckpoints
    from train.data import end_workers
    from train.ema import Ema
    from train.guard import FiniteGuard
    from train.processes import environment, strategy
    from train.profiling import find_profiler
    from train.report import Report
    from train.sample_log import SampleLog
    from train.stopping import StopOnSignal
    from train.throughput import Throughput
    from train.validation import Validation, find_validation

    run, settings = Path(config["run_dir"]), config["trainer"]
    done = updates_of(found) if found else 0
    effective = settings["batch"] * processes.world * settings["accumulate"]
    saving = FolderCheckpoints(settings["keep"])
    throughput = Throughput(config)
    clips = find_validation(config, module, processes.rank == 0)
    guard = FiniteGuard()
    callbacks = [
        StopOnSignal(signals),
        guard,
        *([Ema(settings["ema"])] if settings["ema"] else []),
        *([Validation(config, clips, throughput)] if clips else []),  # of the weights as they are now
        Report(settings["log_every"], throughput, guard),
        *([SampleLog(run, done)] if settings["log_samples"] else []),
    ]
    if settings["save_every"]:  # last: it saves the others
        callbacks.append(SaveCheckpoints(run, settings["save_every"], saving, found, effective))
    trainer = lightning.Trainer(
        default_root_dir=run,
        accelerator=processes.accelerator,
        devices=processes.devices,
        num_nodes=processes.nodes,
        strategy=strategy(processes, settings["strategy"]),
        precision=settings["precision"],
        max_steps=settings["updates"],
        accumulate_grad_batches=settings["accumulate"],
        gradient_clip_val=settings["clip_grad"],
        callbacks=callbacks,
        logger=_loggers(config, run, done, processes.rank == 0),
        profiler=find_profiler(settings["profiler"], run),
        plugins=[saving, *environment(processes)],
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        log_every_n_steps=settings["log_every"],
    )
    assert trainer.world_size == processes.world, (trainer.world_size, processes)
    # Its handler for TERM would end the run unsaved, and talk to other processes from within a signal.
    trainer._signal_connector.register_signal_handlers = lambda: None
    try:
        trainer.fit(module, data, ckpt_path=found, weights_only=True)
    except BaseException as error:
        saving.hurry.set()  # another rank may be gone, with its part of a checkpoint
        if isinstance(error, SystemExit):  # what Lightning makes of a KeyboardInterrupt
            raise KeyboardInterrupt from None
        raise
    finally:
        saving.writer.close()
        end_workers()
    return trainer


def _next(config: dict[str, Any], run: Path) -> str:
    """The command that usually follows this run."""
    if not config["trainer"]["save_every"] and config["trainer"]["task"] == "diffusion":
        return f"look at {run / 'metrics.csv'}; trainer.save_every=null, so no model was kept"
    if config["trainer"]["task"] != "diffusion":
        return next_command(config["trainer"]["task"], run)
    if config["trainer"]["mask"] == "bidirectional":  # a base to build on; it cannot stream
        return f"live2diff train experiment=toy_stage1 model.saved={run} data.path=DATASET"
    return f"live2diff export {run} --out exports/{config['name']}"


def _task(config: dict[str, Any]) -> tuple[lightning.LightningModule, lightning.LightningDataModule]:
    """The module to train and the data to train it on."""
    from live2diff.model.build import as_trained, build

    if config["trainer"]["task"] == "diffusion":
        from train.columns import choose_parts
        from train.data import ClipData
        from train.module import Diffusion

        model = as_trained(build(config["model"], config["seed"]), config)
        parts = choose_parts(config["data"], model, config["trainer"]["depth"])
        # What "auto" found is what this run goes on with, also when the dataset gains columns meanwhile.
        config["data"]["columns"] = list(parts.columns) or "none"
        data = ClipData(config["data"], config["trainer"], config["seed"], parts)
        return Diffusion(model, config["trainer"], config["optim"]), data
    return toy_task(config, build(config["model"], config["seed"]))


def _loggers(config: dict[str, Any], run: Path, done: int, first: bool) -> list[Logger]:
    """The loggers of this process; W&B hears the `first` one alone.

    Raises:
        SetupError: W&B does not take the login, or does not answer.
    """
    from train.report import CsvLogger

    loggers: list[Logger] = [CsvLogger(run, done)]
    if config["logger"]["kind"] != "wandb" or not first:
        return loggers
    import wandb
    from lightning.pytorch.loggers import WandbLogger

    # A continued run goes on in the same panel; a new run in a removed folder does not.
    id_file = run / "wandb_id"
    if not id_file.exists():
        with staged_file(id_file) as stage:
            stage.write_text(uuid4().hex[:8])
    listener = WandbLogger(
        name=config["name"],
        id=id_file.read_text(),
        project=config["logger"]["project"],
        save_dir=run,
        resume="allow",
    )
    try:
        _ = listener.experiment  # begun here, where an error is no traceback out of the trainer
    except wandb.Error as error:
        reason = " ".join(str(error).split())
        raise SetupError(
            f"logger=wandb: {reason}; run `wandb login`, or keep the run here with WANDB_MODE=offline"
        ) from error
    return [*loggers, listener]
