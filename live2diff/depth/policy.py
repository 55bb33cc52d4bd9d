"""How raw inverse depth becomes the [-1, 1] image the model is conditioned on.

A depth network's output has no fixed scale, so it is stretched to [-1, 1] by the range (low, high) of *some*
frames. Which frames those are is the policy. Training and streaming run the same two functions, `warm_up` and
`step`, so a model never meets a normalisation at inference that it was not trained with.

    kind      warm-up frames              each later frame
    frame     each by its own range       its own range
    clip      all by their joint range    the warm-up's range, held
    running   all by their joint range    a moving average: momentum * last range + (1 - momentum) * its own

Every kind is causal after the warm-up: a frame's result depends on no later frame. `frame` flickers when
something near enters or leaves. `clip` never does, but saturates when the scene leaves the warm-up's range.
`running` is between them: it equals `clip` at momentum 1 and, after the warm-up, `frame` at momentum 0.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import torch

from live2diff.errors import UsageError

KINDS = ("frame", "clip", "running")

# {"low": (B,), "high": (B,)}, float32: the range that the last frame was stretched by, one per stream.
DepthState = dict[str, torch.Tensor]


@dataclass(frozen=True)
class DepthPolicy:
    """A normalisation policy; `to_dict` and `from_dict` are its JSON form.

    Args:
        kind: "frame", "clip" or "running", see the head of this file.
        momentum: share of the last range that `running` keeps, 0..1, per frame; the other kinds ignore it.
        eps: smallest range that is divided by, in raw units. Constant depth becomes -1 everywhere.

    Raises:
        UsageError: a value outside these.
    """

    kind: str = "running"
    momentum: float = 0.9
    eps: float = 1e-6

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise UsageError(f"depth policy: kind={self.kind!r} is unknown; use one of {', '.join(KINDS)}")
        if not _is_number(self.momentum) or not 0 <= self.momentum <= 1:
            raise UsageError(f"depth policy: momentum={self.momentum!r} must be a number from 0 to 1")
        if not _is_number(self.eps) or not 0 < self.eps < float("inf"):
            raise UsageError(f"depth policy: eps={self.eps!r} must be a number above 0")

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Any) -> DepthPolicy:
        """The policy of a `to_dict` result; absent keys take their default. Raises `UsageError`."""
        if not isinstance(data, dict):
            raise UsageError(f"depth policy: expected a table of values, got {type(data).__name__}")
        unknown = sorted(data.keys() - cls.__dataclass_fields__.keys())
        if unknown:
            raise UsageError(f"depth policy: unknown key {unknown[0]!r}; remove it or update live2diff")
        return cls(**data)

    def normalise_clip(self, raw: torch.Tensor, warmup: int) -> torch.Tensor:
        """A whole training clip: `warm_up` on its first frames, then `step` on each of the others.

        Args:
            raw: inverse depth (B, F, H, W), any scale.
            warmup: warm-up length in frames, 1..F. Without a warm-up pass 1: frame 0 starts the range.

        Returns:
            (B, F, H, W) in [-1, 1], of `raw`'s dtype.
        """
        if not 1 <= warmup <= raw.shape[1]:
            raise UsageError(
                f"depth policy: warm-up of {warmup} frames does not fit a clip of {raw.shape[1]}"
            )
        first, state = self.warm_up(raw[:, :warmup])
        frames = list(first.unbind(1))
        for frame in raw[:, warmup:].unbind(1):
            normalised, state = self.step(frame, state)
            frames.append(normalised)
        return torch.stack(frames, dim=1)

    def warm_up(self, raw: torch.Tensor) -> tuple[torch.Tensor, DepthState]:
        """The warm-up of B streams, (B, Lw, H, W) -> the same shape in [-1, 1], and the state for `step`."""
        low, high = _extent(raw)
        if self.kind != "frame":
            low = low.amin(dim=1, keepdim=True).expand_as(low)
            high = high.amax(dim=1, keepdim=True).expand_as(high)
        # Copies, so that the state neither keeps the warm-up alive nor shares memory with anything.
        return self._stretch(raw, low, high), {"low": low[:, -1].clone(), "high": high[:, -1].clone()}

    def step(self, raw: torch.Tensor, state: DepthState) -> tuple[torch.Tensor, DepthState]:
        """The next frame of B streams, (B, H, W) -> the same shape in [-1, 1], and the new state.

        `state` is left as it was. Nothing here waits for the device or branches on a value.
        """
        low, high = (state["low"], state["high"]) if self.kind == "clip" else _extent(raw)
        if self.kind == "running":
            low = state["low"].lerp(low, 1 - self.momentum)
            high = state["high"].lerp(high, 1 - self.momentum)
        return self._stretch(raw, low, high), {"low": low, "high": high}

    def _stretch(self, raw: torch.Tensor, low: torch.Tensor, high: torch.Tensor) -> torch.Tensor:
        """(..., H, W) by ranges (...), clamped: a held or averaged range need not cover the frame."""
        low, high = low[..., None, None], high[..., None, None]
        unit = (raw.float() - low) / (high - low).clamp_min(self.eps)
        return (2 * unit - 1).clamp(-1, 1).to(raw.dtype)


def depth_image(normalised: torch.Tensor) -> torch.Tensor:
    """Normalised depth (..., H, W) in [-1, 1] -> the grey image (..., 3, H, W) a VAE encodes; a view."""
    *lead, height, width = normalised.shape
    return normalised.unsqueeze(-3).expand(*lead, 3, height, width)


def _extent(raw: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Smallest and largest value of each frame: (..., H, W) -> two of (...), always float32."""
    low, high = raw.float().flatten(-2).aminmax(dim=-1)
    return low, high


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
