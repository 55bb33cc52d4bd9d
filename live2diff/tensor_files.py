"""The bytes of weight files: safetensors, and PyTorch checkpoints in their zip and older pickle forms.

What a file is, its first bytes say, not its name. Everything is checked before it is believed: a header that
claims more than the file holds, a compressed entry, a pickle that names anything but tensors. Reading maps
the file where its form allows.
"""

from __future__ import annotations

import pickletools
import re
import threading
import zipfile
from pathlib import Path
from typing import IO, Any

import torch
from safetensors import safe_open

from live2diff.errors import CheckpointError

_LARGEST_HEADER = 16 << 20  # bytes of a safetensors header; SD1.5's is 0.1 MB
_LARGEST_PICKLE = 16 << 20  # bytes of names and shapes in a PyTorch file; SD1.5's are 0.2 MB
_ZIP, _PICKLE = b"PK\x03\x04", b"\x80"
_LEGACY_PICKLES = 5  # magic number, version, machine, the object, the storages' names

# What training scripts leave beside the weights, such as Stable Diffusion's own. These names are not looked
# up: a stand-in that does nothing takes their place.
_NOTES = (
    "pytorch_lightning.callbacks.model_checkpoint.ModelCheckpoint",
    "numpy.core.multiarray.scalar",
    "numpy._core.multiarray.scalar",
    "numpy.dtype",
)
# Safe to call, but with one small argument they fill the memory. No weights need them.
_BOMBS = {"builtins bytearray", "__builtin__ bytearray", "torch Tensor", "torch.storage UntypedStorage"}
_ENCODE, _MOST_ENCODES = "_codecs encode", 8  # bytes in old pickles; each call may double them
_lock = threading.Lock()


def read_table(path: Path) -> Any:
    """What a weight file holds: a table of tensors, or, in a PyTorch file, whatever was saved.

    Raises:
        CheckpointError: neither kind of file, or one that is damaged or hostile.
    """
    try:
        with open(path, "rb") as file:
            head = file.read(9)
        # First: a header's length may begin with the very byte that begins a pickle.
        if head[8:] == b"{":
            return _read_safetensors(path, int.from_bytes(head[:8], "little"))
        if head.startswith(_ZIP):
            return _read_zip(path)
        if head.startswith(_PICKLE):
            return _read_legacy(path)
        raise ValueError("neither safetensors nor a PyTorch checkpoint")
    except CheckpointError:
        raise
    except Exception as error:  # the readers raise a dozen kinds on bytes that are not theirs
        raise CheckpointError(f"{path}: {_explain(path, error)}") from error


def _read_safetensors(path: Path, header: int) -> dict[str, torch.Tensor]:
    size = path.stat().st_size
    if header > min(_LARGEST_HEADER, size - 8):
        raise CheckpointError(
            f"{path}: is no readable weight file (a header of {header} bytes in a file of {size}); "
            f"it is damaged or cut short, get it again"
        )
    with safe_open(path, framework="pt", device="cpu") as file:
        return file.get_tensors()


def _read_zip(path: Path) -> Any:
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
        # torch stores without compression; a compressed entry is no checkpoint of torch's, but may be a bomb.
        stored = all(entry.compress_type == zipfile.ZIP_STORED for entry in entries)
        if not stored or sum(entry.file_size for entry in entries) > path.stat().st_size:
            raise ValueError("compressed or overlapping entries")
        for entry in entries:
            if entry.filename.endswith(".pkl"):
                if entry.file_size > _LARGEST_PICKLE:
                    raise ValueError("a huge pickle")
                with archive.open(entry) as pickle:
                    _check_pickle(pickle)
    return _load(path, mmap=True)


def _read_legacy(path: Path) -> Any:
    with open(path, "rb") as file:
        for _ in range(_LEGACY_PICKLES):
            if file.peek(1):  # a bare pickle is refused by torch, which can say why
                _check_pickle(file)
    return _load(path, mmap=False)


def _check_pickle(pickle: IO[bytes]) -> None:
    """Refuse what `weights_only` would still let exhaust the memory."""
    encoders, encodes, last = set(), 0, None
    for opcode, argument, _ in pickletools.genops(pickle):
        if opcode.name == "GLOBAL":
            if argument in _BOMBS:
                raise ValueError(f"calls {argument}")
            encodes += argument == _ENCODE
        elif "PUT" in opcode.name and last == _ENCODE:
            encoders.add(argument)
        elif "GET" in opcode.name:
            encodes += argument in encoders
        if encodes > _MOST_ENCODES:
            raise ValueError("encodes too often")
        last = argument


def _load(path: Path, mmap: bool) -> Any:
    stand_ins: list[Any] = [(_Note, name) for name in _NOTES]
    with _lock, torch.serialization.safe_globals(stand_ins):
        return torch.load(str(path), map_location="cpu", weights_only=True, mmap=mmap)


class _Note:
    """Stands for an object of someone's training script, and forgets whatever it is given."""

    def __new__(cls, *_: Any) -> _Note:
        return object.__new__(cls)

    def __init__(self, *_: Any):
        pass

    def __setstate__(self, _: Any) -> None:
        pass


def _explain(path: Path, error: Exception) -> str:
    """What a file that is no checkpoint probably is, from its first bytes or what reading it said."""
    try:
        with open(path, "rb") as file:
            head = file.read(64).lstrip()
    except OSError as failure:
        return f"cannot be opened ({failure.strerror})"
    if head.startswith(b"version https://git-lfs"):
        return "is a Git LFS pointer, not the weights; run `git lfs pull` where it came from"
    if head.startswith(b"<"):
        return "is a web page, not weights; the download went wrong, get it again"
    if not head:
        return "is no readable weight file (empty); get it again"
    if code := re.search(r"GLOBAL ([\w.]{1,100})", str(error)):
        return (
            f"is no readable weight file (a pickle that would run {code[1]}, which is refused); "
            f"get it as .safetensors"
        )
    return "is no readable weight file (damaged, cut short, or a pickle with code, which is refused)"
