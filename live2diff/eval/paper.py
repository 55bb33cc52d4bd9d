"""The figures of the Live2Diff paper, with what is known of how they were measured.

A number means something only beside its signature. Of the paper's, little is public: a key whose value nobody
outside knows is absent here, and counts as a reason not to compare.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from live2diff.eval.results import Figure, Signature


@dataclass(frozen=True)
class PaperFigure:
    """One number of the paper.

    Attributes:
        value: as printed.
        setting: what it was measured on, in words.
        known: the keys of a signature that are known of it, and "data" and "videos", which ones and how many.
    """

    value: float
    setting: str
    known: Signature


@dataclass(frozen=True)
class Difference:
    """One reason not to compare two figures: a key of the signature, with both values; None is not known."""

    key: str
    ours: str | int | float | None
    paper: str | int | float | None


_VIDEOS: Signature = {"data": "DAVIS-2017", "videos": 90, "resolution": "768x512"}
_ON = "90 videos of DAVIS-2017, 768x512"
FIGURES: Mapping[str, PaperFigure] = {
    "depth_mse": PaperFigure(1.12, _ON, _VIDEOS),
    "clip_temporal": PaperFigure(95.77, _ON, _VIDEOS),
    "warp_error": PaperFigure(0.0967, _ON, _VIDEOS),
    "latency": PaperFigure(
        0.06,
        "seconds per frame, 100 frames, 512x512, RTX 4090, TAESD, LCM-LoRA",
        {"frames": 100, "resolution": "512x512", "device": "NVIDIA GeForce RTX 4090"},
    ),
}


def differences(ours: Figure, paper: PaperFigure) -> list[Difference]:
    """Why a figure of ours and the paper's cannot be compared.

    None only if everything that either depends on is known of both, and equal.
    """
    mine = dict(ours.signature)
    if ours.videos:
        mine["videos"] = ours.videos
    keys = [*mine, *(key for key in paper.known if key not in mine)]
    pairs = ((key, mine.get(key), paper.known.get(key)) for key in keys)
    return [Difference(key, here, there) for key, here, there in pairs if here is None or here != there]
