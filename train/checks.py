"""What would fail late is refused first: settings that contradict each other, and paths that lead nowhere.

The heavy libraries are loaded after these checks, and the model is built after them.
"""

from __future__ import annotations

import netrc
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from live2diff.errors import SetupError, UsageError
from live2diff.runs import checkpoints, is_checkpoint
from train.model_group import encodings
from train.toy_tasks import TASKS


def check_pairs(config: Mapping[str, Any]) -> None:
    """Refuse settings that are fine alone and not together. Raises UsageError."""
    trainer, data, model = config["trainer"], config["data"], config["model"]
    for name in trainer["trainable"]:
        if not trainer["depth"] and (name == "depth" or name.startswith("depth_branch")):
            raise UsageError(
                f"trainer.trainable={trainer['trainable']}: the depth branch is only trained with "
                "trainer.depth=true"
            )
    toy_tasks = [("task", task) for task in TASKS]
    for key, unshardable in (*toy_tasks, ("compile", True), ("precision", "16-mixed")):
        if trainer["strategy"] == "fsdp" and trainer[key] == unshardable:
            raise UsageError(f"trainer.strategy=fsdp: expected ddp with trainer.{key}={unshardable}")
    if trainer["accelerator"] == "cpu":
        check_precision(trainer, "cpu")
    if data is None:
        if trainer["task"] == "diffusion":
            raise UsageError(
                "data=null: trainer.task=diffusion needs clips; give data=shards data.path=DATASET"
            )
        return
    if data["size"] % 8:
        raise UsageError(
            f"data.size={data['size']}: expected a multiple of 8, the pixels that a latent stands for"
        )
    settings = model["settings"]
    frames, mask, longest = data["frames"], trainer["mask"], encodings(model)
    if mask == "bidirectional" and frames > longest:
        raise UsageError(
            f"data.frames={frames}: expected {longest} or fewer with trainer.mask=bidirectional, the motion "
            "modules have no more positional encodings; the other masks take any number"
        )
    window, warmup = settings.get("window"), settings.get("warmup")
    if type(window) is not int or type(warmup) is not int:  # a saved model's own; or refused by `check_model`
        return
    if window > longest:
        raise UsageError(
            f"model.settings.window={window}: expected {longest} or fewer, the positional encodings of the "
            "motion modules"
        )
    if mask == "warmup_causal" and frames <= warmup < window:
        raise UsageError(
            f"data.frames={frames}: expected more than model.settings.warmup={warmup}, or "
            "trainer.mask=warmup_causal would train nothing but the warm-up"
        )


def check_precision(trainer: Mapping[str, Any], accelerator: str) -> None:
    """Refuse half precision on CPUs, which Lightning would change in silence. Raises UsageError."""
    if trainer["precision"] == "16-mixed" and accelerator == "cpu":
        raise UsageError("trainer.precision=16-mixed: expected 32-true or bf16-mixed on a CPU")


def check_places(config: Mapping[str, Any]) -> None:
    """Refuse a run folder that cannot be one, and a base that is not there. Raises UsageError."""
    run = Path(config["run_dir"])
    for place in (run, *run.parents):
        if place.exists():
            if not place.is_dir():
                raise UsageError(f"run_dir={run}: {place} is a file; expected a folder, new or of this run")
            break
    saved = config["model"].get("saved")
    if saved is None or checkpoints(run):  # a run that goes on has its own note of what it builds on
        return
    base = Path(str(saved))
    exports = (base / "config.json", base / "model" / "config.json")
    if is_checkpoint(base) or checkpoints(base) or any(path.is_file() for path in exports):
        return
    why = "no such folder"
    if (base / "config.yaml").is_file():
        why = "this run has no complete checkpoint yet; let it train further"
    elif base.is_dir():
        why = "neither an exported model nor a training run"
    raise UsageError(
        f"model.saved={saved}: {why}; expected an export, or a run of the stage before, as "
        "`live2diff train experiment=stage1_mask data.path=DATASET` makes it"
    )


def check_data(config: Mapping[str, Any], world: int) -> None:
    """Refuse a dataset that a run with `world` processes cannot be fed from.

    Raises:
        UsageError: no such dataset or column, fewer shards than readers, clips that are too short.
        DataError: its description is damaged.
    """
    from train.columns import choose_parts
    from train.shards import check_readers, check_span, find_shards

    data = config["data"]
    if data is None:
        return
    shards = find_shards(data["path"], data["split"])
    check_readers(data, len(shards), world)
    check_span(data)
    choose_parts(data, None, config["trainer"]["depth"])
    if validates(config) and (held := validation_data(config)):
        choose_parts(held, None, config["trainer"]["depth"])


def validates(config: Mapping[str, Any]) -> bool:
    """Whether the run looks at clips that it does not train on, if the dataset has some."""
    wanted = config["validation"]
    return bool(
        wanted["every"] and (wanted["clips"] or wanted["videos"]) and config["trainer"]["task"] == "diffusion"
    )


def validation_data(config: Mapping[str, Any]) -> dict[str, Any] | None:
    """The `data` group as a validation reads it; None where the dataset has no such split.

    Raises DataError: the dataset's description is damaged.
    """
    from train.shards import find_shards

    data = {**config["data"], "split": config["validation"]["split"], "hflip": 0.0}
    try:
        find_shards(data["path"], data["split"])
    except UsageError:
        return None
    return data


def check_logger(logger: Mapping[str, Any]) -> None:
    """Refuse Weights & Biases without a login, which it would ask for in the middle. Raises SetupError."""
    if logger["kind"] != "wandb":
        return
    import wandb

    settings = wandb.setup().settings  # the environment's and those of `wandb offline`
    if settings.mode in ("offline", "disabled", "dryrun"):
        return
    if not (settings.api_key or settings.identity_token_file or _netrc_knows(settings.base_url)):
        raise SetupError(
            f"logger=wandb: no login for {settings.base_url} is on this machine; run `wandb login`, set "
            "WANDB_API_KEY, or keep the run here with WANDB_MODE=offline"
        )


def _netrc_knows(address: str) -> bool:
    """Whether `wandb login` has left a key for the server in the user's netrc file."""
    path = Path(os.environ.get("NETRC", "~/.netrc")).expanduser()
    try:
        return netrc.netrc(path).authenticators(urlsplit(address).netloc) is not None
    except (OSError, netrc.NetrcParseError):
        return False
