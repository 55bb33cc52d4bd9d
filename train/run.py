"""One training run, from configuration to checkpoint. Running it again continues it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from live2diff.errors import DataError, UsageError
from live2diff.files import staged_file
from live2diff.runs import checkpoints, run_config, updates_of
from live2diff.terminal import quiet_libraries
from train.settings import check_devices, load_config

if TYPE_CHECKING:
    import lightning
    from lightning.pytorch.loggers.logger import Logger

    from train.stopping import StopOnSignal

# What may change between a run and its continuation. `devices` and `data.workers` may not: they decide the
# order of the samples.
_MAY_CHANGE = {
    "trainer": ("updates", "save_every", "keep", "log_every"),
    "logger": (),
}


def train(overrides: Sequence[str]) -> int:
    """Run what the configuration says; returns the exit code: 0, or 128 + signal when stopped by one.

    Raises:
        Live2DiffError: a configuration, dataset or checkpoint that cannot be used.
    """
    config = load_config(overrides)
    _pin_base(Path(config["run_dir"]), config)
    _check_same_run(Path(config["run_dir"]), config)

    from train.stopping import StopOnSignal

    with StopOnSignal() as stop:
        try:
            return _train(config, stop)
        except DataError as error:
            # From a loader worker, the message is the worker's whole traceback. It ends with the error.
            line = str(error).strip().splitlines()[-1]
            raise DataError(line.removeprefix(f"{DataError.__module__}.DataError: ")) from error


def _train(config: dict[str, Any], stop: StopOnSignal) -> int:
    import lightning
    import torch
    from omegaconf import OmegaConf

    from train.checkpoints import FolderCheckpoints, SaveCheckpoints
    from train.report import Report

    quiet_libraries()
    run, settings = Path(config["run_dir"]), config["trainer"]
    check_devices(settings, torch.cuda.device_count())
    found = checkpoints(run)
    done = updates_of(found[-1]) if found else 0
    # A run of toy_parts is done when its model is written; a kill may have come in between.
    whole = settings["task"] == "diffusion" or (run / "model").is_dir()
    if done >= settings["updates"] and whole:
        print(f"{run}: all {settings['updates']} updates are done already; raise trainer.updates to go on")
        return 0
    torch.manual_seed(config["seed"])
    module, data = _task(config)
    run.mkdir(parents=True, exist_ok=True)
    with staged_file(run / "config.yaml") as stage:
        OmegaConf.save(OmegaConf.create(config), stage)
    if found:
        print(f"continuing {run} after update {done}")
    trainer = lightning.Trainer(
        default_root_dir=run,
        devices=settings["devices"],
        precision=settings["precision"],
        max_steps=settings["updates"],
        accumulate_grad_batches=settings["accumulate"],
        gradient_clip_val=settings["clip_grad"],
        callbacks=[
            stop,
            Report(settings["log_every"], settings["batch"]),
            SaveCheckpoints(run, settings["save_every"], settings["keep"]),
        ],
        logger=_loggers(config, run, done),
        plugins=[FolderCheckpoints()],
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        log_every_n_steps=settings["log_every"],
    )
    try:
        trainer.fit(module, data, ckpt_path=found[-1] if found else None, weights_only=True)
    except SystemExit:  # what Lightning makes of a KeyboardInterrupt
        raise KeyboardInterrupt from None
    if stop.received is not None and trainer.global_step < settings["updates"]:
        print(f"stopped after update {trainer.global_step}; run the same command again to continue")
        return 128 + stop.received
    print(f"{run}: {trainer.global_step} updates done")
    if settings["task"] == "toy_parts":
        module.finish(run)
        print(f"next: live2diff train experiment=toy_base model.saved={run} data.path=DATASET")
    elif settings["mask"] == "bidirectional":  # a base to build on; it cannot stream
        print(f"next: live2diff train experiment=tiny_stage1 model.saved={run} data.path=DATASET")
    else:
        print(f"next: live2diff export {run} --out exports/{config['name']}")
    return 0


def _task(config: dict[str, Any]) -> tuple[lightning.LightningModule, lightning.LightningDataModule]:
    """The module to train and the data to train it on."""
    from live2diff.model.build import as_trained, build

    if config["trainer"]["task"] == "diffusion":
        from train.data import ClipData
        from train.module import Diffusion

        data = ClipData(config["data"], config["trainer"], config["seed"])
        model = as_trained(build(config["model"], config["seed"]), config)
        return Diffusion(model, config["trainer"], config["optim"]), data
    from train.toy_parts import ToyFrames, ToyParts

    model = build(config["model"], config["seed"])
    frames = ToyFrames(config["trainer"], config["seed"], model.settings.size)
    return ToyParts(model, config["optim"], config["seed"]), frames


def _pin_base(run: Path, config: dict[str, Any]) -> None:
    """Note exactly which weights a run builds on: a base that trains on must not change under it."""
    given = config["model"].get("saved")
    if given is None:
        return
    if checkpoints(run):
        before = Path(run_config(run)["model"].get("saved", ""))
        if Path(given) in (before, *before.parents):
            config["model"]["saved"] = str(before)
            return

    from live2diff.model.build import locate

    config["model"]["saved"] = str(locate(given))


def _check_same_run(run: Path, config: dict[str, Any]) -> None:
    """Refuse to continue a run under another configuration: its results would be a mixture of both."""
    if not checkpoints(run):
        return
    old, new = _comparable(run_config(run)), _comparable(config)
    for key in sorted(old.keys() | new.keys()):
        if old.get(key) != new.get(key):
            raise UsageError(
                f"{run}: was run with {key}={old.get(key)}, now {key}={new.get(key)}; "
                f"give another run_dir or remove the folder"
            )


def _comparable(config: dict[str, Any]) -> dict[str, Any]:
    flat = {}
    for group, values in config.items():
        if isinstance(values, dict) and _MAY_CHANGE.get(group) != ():
            flat |= {f"{group}.{k}": v for k, v in values.items() if k not in _MAY_CHANGE.get(group, ())}
        elif group != "logger":
            flat[group] = values
    return flat


def _loggers(config: dict[str, Any], run: Path, done: int) -> list[Logger]:
    from train.report import CsvLogger

    loggers: list[Logger] = [CsvLogger(run, done)]
    if config["logger"]["kind"] == "wandb":
        from lightning.pytorch.loggers import WandbLogger

        # A continued run goes on in the same panel; a new run in a removed folder does not.
        id_file = run / "wandb_id"
        if not id_file.exists():
            with staged_file(id_file) as stage:
                stage.write_text(uuid4().hex[:8])
        loggers.append(
            WandbLogger(
                name=config["name"],
                id=id_file.read_text(),
                project=config["logger"]["project"],
                save_dir=run,
                resume="allow",
            )
        )
    return loggers
