"""The metrics by name: what each gives, what it needs, and how it is made from settings."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from live2diff.errors import UsageError
from live2diff.eval import clip_temporal, depth_mse, flicker, latency, warp_error
from live2diff.eval.flow import make_flow
from live2diff.eval.metric import Kind, Metric


@dataclass(frozen=True)
class Needs:
    """Settings that metrics are made from; see `conf/eval/default.yaml`."""

    flow: str = "dis"
    raft_weights: str | None = None
    clip_model: str | None = None
    depth_model: str | None = None
    device: torch.device = torch.device("cpu")


@dataclass(frozen=True)
class Entry:
    """A metric of the catalogue.

    Attributes:
        kinds: the figures it gives.
        needs: what must be there, in words.
        make: None for one that is not measured on pairs of videos.
    """

    kinds: Sequence[Kind]
    needs: str
    make: Callable[[Needs], Metric] | None


METRICS = {
    "warp_error": Entry(
        warp_error.WarpError.kinds,
        "nothing with flow=dis, raft_weights=FILE with flow=raft_large",
        lambda needs: warp_error.WarpError(make_flow(needs.flow, needs.raft_weights, needs.device)),
    ),
    "clip_temporal": Entry(
        clip_temporal.ClipTemporal.kinds,
        "clip_model=FOLDER, a CLIP model",
        lambda needs: clip_temporal.ClipTemporal(clip_temporal.Clip(needs.clip_model, needs.device)),
    ),
    "depth_mse": Entry(
        depth_mse.DepthMse.kinds,
        "depth_model=FOLDER or FILE, a depth net",
        lambda needs: depth_mse.DepthMse(depth_mse.DepthNet(needs.depth_model, needs.device)),
    ),
    "flicker": Entry(flicker.Flicker.kinds, "nothing", lambda needs: flicker.Flicker()),
    "latency": Entry(latency.KINDS, "--export", None),
}


def check_names(names: Sequence[str], has_export: bool) -> None:
    """Raises UsageError: no metric, an unknown or repeated one, or latency without an export."""
    for name in names:
        if name not in METRICS:
            raise UsageError(f"metrics: {name!r} is none; known: {', '.join(METRICS)}")
    if not names or len(set(names)) < len(names):
        raise UsageError(f"metrics={','.join(names)}: name each metric once, and at least one")
    if "latency" in names and not has_export:
        raise UsageError("metrics: latency is of a model; give --export instead of --pred")


def make_metrics(names: Sequence[str], needs: Needs) -> list[Metric]:
    """Those of `names` that are measured on pairs. Raises UsageError, CheckpointError."""
    return [make(needs) for name in names if (make := METRICS[name].make) is not None]
