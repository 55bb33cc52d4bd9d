"""One training run, from configuration to checkpoint. Running it again continues it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from live2diff.config import compose
from live2diff.errors import UsageError
from live2diff.files import staged_file
from live2diff.runs import checkpoints, run_config, updates_of
from live2diff.terminal import quiet_libraries

if TYPE_CHECKING:
    import lightning
    from lightning.pytorch.loggers.logger import Logger

# What may change between a run and its continuation.
_MAY_CHANGE = {
    "trainer": ("updates", "devices", "save_every", "keep", "log_every"),
    "data": ("workers",),
    "logger": (),
}


def train(overrides: Sequence[str]) -> int:
    """Run what the configuration says; returns the exit code: 0, or 128 + signal when stopped by one.

    Raises:
        Live2DiffError: a configuration, dataset or checkpoint that cannot be used.
    """
    from omegaconf import OmegaConf

    tree = compose("train", overrides)
    config: dict[str, Any] = OmegaConf.to_container(tree, resolve=True)  # pyright: ignore[reportAssignmentType]
    run = Path(config["run_dir"])
    _check_same_run(run, config)

    import lightning
    import torch

    from train.checkpoints import FolderCheckpoints, SaveCheckpoints
    from train.report import Report
    from train.stopping import StopOnSignal

    stop = StopOnSignal()
    quiet_libraries()
    settings = config["trainer"]
    found = checkpoints(run)
    done = updates_of(found[-1]) if found else 0
    if done >= settings["updates"]:
        print(f"{run}: all {settings['updates']} updates are done already; raise trainer.updates to go on")
        return 0
    torch.manual_seed(config["seed"])
    module, data = _task(config)
    run.mkdir(parents=True, exist_ok=True)
    with staged_file(run / "config.yaml") as stage:
        OmegaConf.save(tree, stage)
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
    trainer.fit(module, data, ckpt_path=found[-1] if found else None, weights_only=True)
    if stop.received is not None and trainer.global_step < settings["updates"]:
        print(f"stopped after update {trainer.global_step}; run the same command again to continue")
        return 128 + stop.received
    finish = getattr(module, "finish", None)
    if finish is not None:
        finish(run)
    print(f"{run}: {trainer.global_step} updates done")
    print(f"next: live2diff export {run} --out exports/{config['name']}")
    return 0


def _task(config: dict[str, Any]) -> tuple[lightning.LightningModule, lightning.LightningDataModule]:
    """The module to train and the data to train it on."""
    from live2diff.model.build import build

    task = config["trainer"]["task"]
    if task == "diffusion":
        from train.data import ClipData
        from train.module import Diffusion

        data = ClipData(config["data"], config["trainer"], config["seed"])
        model = build(config["model"], config["seed"])
        return Diffusion(model, config["trainer"], config["optim"]), data
    if task == "toy_parts":
        from train.toy_parts import ToyFrames, ToyParts

        model = build(config["model"], config["seed"])
        return ToyParts(model, config["optim"]), ToyFrames(
            config["trainer"], config["seed"], model.settings.size
        )
    raise UsageError(f"trainer.task={task}: expected diffusion or toy_parts")


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

        # A stable id: a continued run goes on in the same panel.
        loggers.append(
            WandbLogger(
                name=config["name"],
                id=run.name,
                project=config["logger"]["project"],
                save_dir=run,
                resume="allow",
            )
        )
    return loggers
