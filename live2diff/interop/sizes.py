"""The sizes of a model's parts: Stable Diffusion 1.5's, which come with the package, and a folder's own."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from live2diff.errors import CheckpointError
from live2diff.weights import read_json

CONFIGS = Path(__file__).parent / "configs" / "sd15"  # in diffusers' layout, without weights
# A config may come with a downloaded file and must not cost the machine's time or memory.
_MOST, _MOST_LAYERS, _MOST_ENTRIES = 1_000_000, 64, 64


def sd15_config(part: str, changes: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The config of "unet", "vae" or "text_encoder", with `changes` laid over it."""
    return {**read_json(CONFIGS / part / "config.json"), **(changes or {})}


def part_folder(path: Path, part: str) -> Path:
    """Where a part lies: in a folder of its own, or as `part`/ in the folder of a whole model."""
    folder = path / part if (path / part).is_dir() else path
    if not (folder / "config.json").is_file():
        raise CheckpointError(
            f"{path}: is no model folder (neither {part}/config.json nor config.json is there); get it again"
        )
    return folder


def folder_config(folder: Path, section: str | None = None) -> dict[str, Any]:
    """The `config.json` of a folder that someone gave us, or its `section` where it has one.

    Raises:
        CheckpointError: not readable, or sizes that cannot be meant.
    """
    config = read_json(folder / "config.json")
    if section and isinstance(config.get(section), dict):
        config = config[section]
    for key, value in config.items():
        values = value if isinstance(value, list) else [value]
        numbers = [number for number in values if isinstance(number, int | float)]
        most = _MOST_LAYERS if "layers" in key else _MOST
        if len(values) > _MOST_ENTRIES or any(number > most for number in numbers):
            name = ascii(key)[1:-1][:100]
            raise CheckpointError(f"{folder / 'config.json'}: {name} cannot be meant; get it again")
    return config
