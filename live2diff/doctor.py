"""What this machine has: for running at all, and of the models that a configuration names."""

from __future__ import annotations

import platform
import shutil
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from live2diff.errors import CheckpointError
from live2diff.interop.catalogue import fetch_command, missing_files, size_of
from live2diff.interop.licences import licence_of
from live2diff.references import find_local, references

GB = 1e9


@dataclass(frozen=True)
class Finding:
    """One line about the machine. `problem`: why nothing runs like this; None where all is well."""

    name: str
    value: str
    problem: str | None = None


@dataclass(frozen=True)
class Model:
    """One model that a configuration names.

    keys: the settings that name it.
    path: where it lies; None: not on this machine.
    size: bytes, of what is here or of what is to be fetched; None: unknown.
    problem: what is wrong with what is here.
    fetch: the command that gets it; None: unknown.
    """

    reference: str
    keys: tuple[str, ...]
    path: Path | None
    size: int | None
    problem: str | None
    licence: str
    fetch: str | None


def machine(folder: str | Path = ".") -> list[Finding]:
    """Python, torch, GPU, video libraries, memory, and the disk that `folder` is on."""
    return [
        _python(),
        _checked("torch", _torch),
        _gpu(),
        _checked("ffmpeg", _ffmpeg),
        _memory(),
        _disk(folder),
    ]


def models(config: Mapping[str, Any]) -> list[Model]:
    """Every model that a `model` group names, each once. Reads headers only, and fetches nothing."""
    keys: dict[str, list[str]] = {}
    for key, reference in references(config):
        keys.setdefault(reference, []).append(f"model.{key}")
    return [_model(reference, tuple(names)) for reference, names in keys.items()]


def _model(reference: str, keys: tuple[str, ...]) -> Model:
    path = find_local(reference)
    size, problem = size_of(reference), None
    if path is not None:
        size, problem = _bytes(path), _problem(path, reference)
    return Model(reference, keys, path, size, problem, licence_of(reference), fetch_command(reference))


def _problem(path: Path, reference: str) -> str | None:
    if path.is_dir():
        missing = missing_files(path, reference)
        return f"lacks {missing[0]}{' and others' if len(missing) > 1 else ''}" if missing else None
    from live2diff.tensor_files import read_table

    try:
        read_table(path)
    except CheckpointError as error:
        return str(error).removeprefix(f"{path}: ")
    return None


def _bytes(path: Path) -> int:
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if file.is_file())


def _python() -> Finding:
    old = sys.version_info[:2] != (3, 11)
    return Finding("python", platform.python_version(), "Python 3.11 is needed" if old else None)


def _checked(name: str, version: Callable[[], str]) -> Finding:
    try:
        return Finding(name, version())
    except Exception as error:  # a broken install raises whatever its libraries like
        reason = " ".join(str(error).split())[:100]
        return Finding(name, "cannot be imported", f"install the package again ({reason})")


def _torch() -> str:
    import torch

    return f"{torch.__version__}, {torch.get_num_threads()} threads"


def _gpu() -> Finding:
    try:
        import torch

        if not torch.cuda.is_available():
            built = "" if torch.version.cuda else ", and this torch is built without CUDA"
            return Finding("gpu", f"none{built}; everything runs on the CPU, slowly at SD1.5's size")
        devices = [torch.cuda.get_device_properties(i) for i in range(torch.cuda.device_count())]
        names = ", ".join(f"{device.name} ({device.total_memory / GB:.0f} GB)" for device in devices)
        return Finding("gpu", f"{names}; CUDA {torch.version.cuda}")
    except Exception as error:
        return Finding("gpu", f"cannot be asked ({' '.join(str(error).split())[:100]})")


def _ffmpeg() -> str:
    import av

    codec = ".".join(map(str, av.library_versions["libavcodec"]))
    return f"libavcodec {codec}, in PyAV {av.__version__}"


def _memory() -> Finding:
    import psutil

    memory = psutil.virtual_memory()
    return Finding("memory", f"{memory.available / GB:.1f} GB free of {memory.total / GB:.1f} GB")


def _disk(folder: str | Path) -> Finding:
    usage = shutil.disk_usage(folder)
    return Finding(
        "disk", f"{usage.free / GB:.1f} GB free of {usage.total / GB:.1f} GB at {Path(folder).resolve()}"
    )
