"""Two checkpoints side by side: which tensors only one has, and how far the others lie apart."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from live2diff.interop.lora.layer import shown
from live2diff.weights import read_folder, read_weights

_PARTS = ("unet", "vae", "text_encoder", "depth")


@dataclass(frozen=True)
class Difference:
    """What `compare` found.

    Attributes:
        equal: number of tensors that are the same to the bit.
        recast: number of those that are the same numbers in another precision.
        only_first, only_second: names that the other lacks.
        changed: largest absolute difference by name, largest first; infinite where shapes differ.
    """

    equal: int
    recast: int
    only_first: list[str]
    only_second: list[str]
    changed: dict[str, float]

    def lines(self, most: int = 10) -> list[str]:
        """For a person: at most `most` names of each kind."""
        lines = [f"{self.equal} tensors are equal to the bit"]
        if self.recast:
            lines.append(f"{self.recast} are the same numbers in another precision")
        for names, where in ((self.only_first, "first"), (self.only_second, "second")):
            if names:
                lines.append(f"{len(names)} only in the {where}:")
                lines += _cut([shown(name) for name in names], most)
        if self.changed:
            lines.append(f"{len(self.changed)} differ, by at most:")
            lines += _cut([f"{value:.3g}  {shown(name)}" for name, value in self.changed.items()], most)
        return lines


def compare(first: str | Path, second: str | Path) -> Difference:
    """Compare two weight files or two folders, tensor by tensor; different precisions as numbers.

    Raises:
        CheckpointError: one of them cannot be read.
    """
    a, b = _tensors(Path(first)), _tensors(Path(second))
    changed: dict[str, float] = {}
    equal = recast = 0
    for name in a.keys() & b.keys():
        if a[name].shape != b[name].shape:
            changed[name] = float("inf")
        elif torch.equal(a[name].double(), b[name].double()):
            equal += a[name].dtype == b[name].dtype
            recast += a[name].dtype != b[name].dtype
        else:
            changed[name] = float((a[name].double() - b[name].double()).abs().amax())
    return Difference(
        equal=equal,
        recast=recast,
        only_first=sorted(a.keys() - b.keys()),
        only_second=sorted(b.keys() - a.keys()),
        changed=dict(sorted(changed.items(), key=lambda item: (-item[1], item[0]))),
    )


def _tensors(path: Path) -> dict[str, torch.Tensor]:
    """By name; those of a folder with parts carry the part's name first."""
    if not path.is_dir():
        return read_weights(path)
    parts = [part for part in _PARTS if (path / part).is_dir()]
    if not parts:
        return read_folder(path)
    return {f"{part}.{name}": t for part in parts for name, t in read_folder(path / part).items()}


def _cut(lines: list[str], most: int) -> list[str]:
    shortened = [f"  {line}" for line in lines[:most]]
    return shortened + ([f"  and {len(lines) - most} more"] if len(lines) > most else [])
