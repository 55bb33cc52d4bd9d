"""The model folder on disk: its version, its `config.json`, and the hashes that say it is whole.

    config.json        format, format_version, dtype, settings, provenance, files: {name: {bytes, sha256}}
    unet/ vae/ text_encoder/ tokenizer/ depth/     the parts; every file of them is in `files`
    README.md, sample.png, parity.json             written by `live2diff export`; not in `files`

Versions are MAJOR.MINOR. A new minor only adds keys that an older reader may leave out: it loads with a
warning that names them. A new major means something else by what is there: it is refused.
"""

from __future__ import annotations

import hashlib
import re
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from live2diff.errors import CheckpointError, UsageError
from live2diff.files import write_json
from live2diff.settings import Settings
from live2diff.weights import read_json

FORMAT = "live2diff"
VERSION = (1, 1)
PARTS = ("unet", "vae", "text_encoder", "tokenizer", "depth")
DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
_KEYS = {"format", "format_version", "dtype", "settings", "provenance", "files"}


@dataclass(frozen=True)
class Config:
    """What `config.json` says. `files` is empty for folders of version 1.0, which had no hashes."""

    settings: Settings
    provenance: dict[str, Any]
    dtype: torch.dtype
    files: dict[str, dict[str, Any]]


def is_model_folder(folder: str | Path) -> bool:
    return (Path(folder) / "config.json").is_file() and (Path(folder) / "unet").is_dir()


def write_config(
    folder: Path, settings: Settings, provenance: dict[str, Any], dtype: torch.dtype = torch.float32
) -> None:
    """Write `config.json`, with the hashes of the parts that `folder` holds by now."""
    files = {name: {"bytes": path.stat().st_size, "sha256": sha256_of(path)} for name, path in _files(folder)}
    write_json(
        folder / "config.json",
        {
            "format": FORMAT,
            "format_version": ".".join(map(str, VERSION)),
            "dtype": short_name(dtype),
            "settings": settings.to_dict(),
            "provenance": provenance,
            "files": files,
        },
    )


def read_config(folder: Path) -> Config:
    """The `config.json` of a model folder. Warns of keys that only a newer version knows.

    Raises:
        CheckpointError: not such a folder, a newer major version, keys or values that cannot be.
    """
    path = folder / "config.json"
    if not path.is_file():
        raise CheckpointError(
            f"{folder}: not an exported model (no config.json); make one with `live2diff export`"
        )
    data = read_json(path)
    if data.get("format") != FORMAT:
        raise CheckpointError(
            f"{path}: not the config of an exported model (key format={data.get('format')!r})"
        )
    newer = _is_newer(path, data.get("format_version"))
    unknown = sorted(set(data) - _KEYS)
    try:
        if "settings" not in data:
            raise UsageError("has no key 'settings'; export the model again")
        settings = Settings.from_dict(data["settings"], skipped=unknown if newer else None)
        config = Config(settings, _table(data, "provenance"), _dtype(data), _table(data, "files"))
    except UsageError as error:
        raise CheckpointError(f"{path}: {error}") from error
    if unknown and not newer:
        raise CheckpointError(f"{path}: unknown key {unknown[0]!r}; export the model again")
    if unknown:
        names = ", ".join(ascii(name)[:50] for name in unknown[:10])
        warnings.warn(
            f"{path}: format_version {data['format_version']} is newer than {VERSION[0]}.{VERSION[1]}; "
            f"what it says under {names} is left out; update live2diff",
            stacklevel=2,
        )
    return config


def check_files(folder: Path, config: Config) -> None:
    """Hold every file of the parts against the hashes in `config`.

    Raises:
        CheckpointError: the folder has no hashes, or a file is missing, changed or not listed.
    """
    if not config.files:
        raise CheckpointError(f"{folder / 'config.json'}: lists no hashes (an old export); export it again")
    present = dict(_files(folder))
    for name in config.files:
        if name not in present:
            raise CheckpointError(f"{folder}: {ascii(name)[1:-1]} is missing; get the folder again")
    for name, path in present.items():
        listed = config.files.get(name)
        if not isinstance(listed, dict):
            raise CheckpointError(f"{path}: does not belong to this export; remove it")
        if path.stat().st_size != listed.get("bytes") or sha256_of(path) != listed.get("sha256"):
            raise CheckpointError(f"{path}: is not the file that was exported; get the folder again")


def sha256_of(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def short_name(dtype: torch.dtype) -> str:
    """fp32, fp16 or bf16."""
    return next((name for name, known in DTYPES.items() if known == dtype), str(dtype))


def _files(folder: Path) -> list[tuple[str, Path]]:
    """Every file of the parts, by its name in the folder, sorted."""
    paths = [path for part in PARTS for path in (folder / part).rglob("*") if path.is_file()]
    return sorted((path.relative_to(folder).as_posix(), path) for path in paths)


def _is_newer(path: Path, version: Any) -> bool:
    """Whether `version` has a newer minor than ours. Raises CheckpointError for any other major."""
    text = f"{version}.0" if type(version) is int else version  # version 1.0 was written as 1
    match = re.fullmatch(r"(\d{1,4})\.(\d{1,4})", text) if isinstance(text, str) else None
    if match is None or int(match[1]) != VERSION[0]:
        raise CheckpointError(
            f"{path}: format_version={version!r}, this version reads {VERSION[0]}.x; update live2diff"
        )
    return int(match[2]) > VERSION[1]


def _dtype(data: dict[str, Any]) -> torch.dtype:
    name = data.get("dtype", "fp32")  # version 1.0 knew no other
    if not isinstance(name, str) or name not in DTYPES:
        raise UsageError(f"dtype={name!r}; expected one of {', '.join(DTYPES)}")
    return DTYPES[name]


def _table(data: dict[str, Any], key: str) -> dict[str, Any]:
    value = data.get(key, {})
    if not isinstance(value, dict):
        raise UsageError(f"{key} must be a table of keys")
    return value
