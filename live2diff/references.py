"""Where a model that a setting names lies: a path, a hub id in the hub's local cache, or with the package.

    models/mm_sd_v15.ckpt                          a path, seen from where the command runs
    stable-diffusion-v1-5/stable-diffusion-v1-5    a hub id: the folder of its newest local copy
    guoyww/animatediff/mm_sd_v15.ckpt              a file in a hub id's
    toy:cartoon, toy:motion.safetensors            what the package brings for the toy world

Nothing is ever fetched: what is missing is named together with the command that fetches it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from live2diff.errors import CheckpointError

_HUB = re.compile(r"(?P<id>[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*)(/(?P<file>[\w. -]+(/[\w. -]+)*))?")
# What a `model` group may name, by the path of the key.
_KEYS = (
    "saved",
    "unet.pretrained",
    "unet.motion",
    "unet.depth_branch",
    "vae.pretrained",
    "text.pretrained",
    "text.tokenizer",
    "depth.weights",
)
_TOY = "toy:"
_FILES = (".safetensors", ".ckpt", ".pt", ".pth", ".bin")


def find(reference: str | Path, key: str) -> Path:
    """The file or folder that `reference` names; `key` is the setting it stands in.

    Raises:
        CheckpointError: it is not there; with the command that fetches it, where one can be told.
    """
    from live2diff.interop.catalogue import fetch_command

    if (found := find_local(reference)) is not None:
        return found
    command = fetch_command(str(reference))
    how = f"fetch it with: {command}" if command else "no such file or folder"
    raise CheckpointError(f"{key}={reference}: is not on this machine; {how}")


def find_local(reference: str | Path) -> Path | None:
    """As `find`; None when it is not on this machine."""
    if str(reference).startswith(_TOY):
        return _in_package(str(reference).removeprefix(_TOY))
    path = Path(reference).expanduser()
    if path.exists():
        return path
    parts = hub_parts(str(reference))
    if parts is None:
        return None
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        folder = Path(snapshot_download(parts[0], local_files_only=True))
    except (LocalEntryNotFoundError, HfHubHTTPError, OSError, ValueError):
        return None
    found = folder / parts[1] if parts[1] else folder
    return found if found.exists() else None


def _in_package(name: str) -> Path | None:
    from live2diff.toy.weights import FOLDER

    found = FOLDER / name
    return found if re.fullmatch(r"\w[\w./]*", name) and ".." not in name and found.exists() else None


def hub_parts(reference: str) -> tuple[str, str | None] | None:
    """A hub id and, where one is named, the file in it; None for what can only be a path."""
    match = _HUB.fullmatch(reference)
    if match is None or ".." in reference.split("/"):
        return None
    if match["file"] is None and reference.endswith(_FILES):
        return None  # models/mm_sd_v15.ckpt
    return match["id"], match["file"]


def references(config: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Every model that a `model` group names: (key, reference), in the group's order."""
    found = []
    for key in _KEYS:
        value: Any = config
        for name in key.split("."):
            value = value.get(name) if isinstance(value, Mapping) else None
        if value is not None:
            found.append((key, str(value)))
    for i, lora in enumerate(config.get("loras") or ()):
        if isinstance(lora, Mapping) and "path" in lora:
            found.append((f"loras[{i}].path", str(lora["path"])))
    return found
