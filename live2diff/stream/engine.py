"""Translate a video while it arrives: warm up on the first frames, then one frame in, one frame out.

Pipelined denoising (Live2Diff, Sec. 3.3): with T denoising steps, T frames are in work at once, each one step
further than the next. A tick puts a new frame into row 0, moves every row on by one step in a single
batch, and takes the finished frame out of row T - 1. The delay is T - 1 ticks, the work per frame is one
batch of T.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch

from live2diff.depth import DepthState
from live2diff.errors import UsageError
from live2diff.images import to_tensor, to_uint8
from live2diff.model.video_model import VideoModel
from live2diff.stream.schedule import RowSchedule

Noise = Literal["fresh", "fixed"]


class Stream:
    """One video being translated. Streams on the same model share its weights and nothing else.

        stream = Stream(model, "a cartoon of a street")
        for frame in video:
            show(stream.push(frame))
        show(stream.flush())

    Args:
        model: see `VideoModel.load`.
        prompt: what the output shows.
        size: (width, height) of the frames, multiples of 8; default: the size the model was trained at.
        steps: indices into the 50-step LCM schedule, noisiest first; default: the model's.
        seed: same seed, same video.
        noise: `fresh` draws anew for every frame and step, as the paper's release; `fixed` keeps one draw per
            step for all frames, as StreamDiffusion does.

    Raises:
        UsageError: a size or steps that cannot be.
    """

    def __init__(
        self,
        model: VideoModel,
        prompt: str,
        *,
        size: tuple[int, int] | None = None,
        steps: tuple[int, ...] | None = None,
        seed: int = 0,
        noise: Noise = "fresh",
    ):
        if model.settings.mask == "bidirectional":
            raise UsageError(
                "this model was trained with mask=bidirectional and cannot be streamed; train stage 1"
            )
        self.model = model
        self.size = size or model.settings.size
        if min(self.size) < 8 or any(side % 8 for side in self.size):
            raise UsageError(f"size {self.size[0]}x{self.size[1]}: both sides must be multiples of 8")
        if noise not in ("fresh", "fixed"):
            raise UsageError(f"noise={noise!r}: expected fresh or fixed")
        self.warmup = model.settings.streamed_warmup
        self.schedule = RowSchedule(model.settings.noise, steps or model.settings.steps, model.device)
        self.text = model.text([prompt]).to(model.unet.dtype)
        width, height = (side // model.downscale for side in self.size)
        self._shape = (model.unet.config.in_channels, height, width)
        self.memory = model.unet.new_memory(self.schedule.rows, height, width, warmup=self.warmup)
        self._generator = torch.Generator(model.device).manual_seed(seed)
        self._fixed = self._draw(self.schedule.rows) if noise == "fixed" else None
        self._first: list[np.ndarray] = []  # frames that wait for the warm-up to be complete
        self._warm = False
        self._depth: DepthState | None = None
        # What the rows below the first hold between ticks, and which of them hold a frame.
        waiting = self.schedule.rows - 1
        self._noisy = torch.zeros(waiting, *self._shape, device=model.device, dtype=model.unet.dtype)
        self._condition = torch.zeros_like(self._noisy)
        self._live = [False] * waiting
        # The same on the device: building it there from the list would wait for the device at every tick.
        self._live_there = torch.zeros(waiting, dtype=torch.bool, device=model.device)
        self._yes_no = torch.tensor([True, False], device=model.device).split(1)

    # -- frames in, frames out ----------------------------------------------------------------------------

    def push(self, frame: np.ndarray) -> list[np.ndarray]:
        """Take one uint8 RGB frame (H, W, 3); return the frames that are done, oldest first.

        Nothing comes out while the warm-up gathers its Lw frames; then those come at once; then, after T - 1
        further frames, one for every one that goes in.
        """
        width, height = self.size
        if frame.shape != (height, width, 3) or frame.dtype != np.uint8:
            raise UsageError(
                f"frame {frame.shape} of {frame.dtype}: this stream takes uint8 RGB ({height}, {width}, 3)"
            )
        if self._warm or self.warmup == 0:
            return self._tick(frame)
        self._first.append(frame)
        return self._warm_up() if len(self._first) == self.warmup else []

    def flush(self) -> list[np.ndarray]:
        """End of the video: return the frames still in the pipeline, so that as many come out as went in.

        Raises:
            UsageError: fewer frames were pushed than the warm-up needs.
        """
        if self._first:
            raise UsageError(
                f"the video has {len(self._first)} frames, the model's warm-up needs {self.warmup}: "
                "use a longer clip"
            )
        done = []
        while any(self._live):
            done += self._tick(None)
        return done

    # -- the two phases -----------------------------------------------------------------------------------

    def _warm_up(self) -> list[np.ndarray]:
        """Denoise the first Lw frames together through all rows, filling each row's memory on the way."""
        images = to_tensor(np.stack(self._first), self.model.device)[None]
        self._first, self._warm = [], True
        clean = self.model.encode(images)[0].transpose(0, 1)  # (Lw, C, h, w)
        condition = None
        if self.model.settings.uses_depth:
            normalised, self._depth = self.model.settings.depth.warm_up(self.model.estimate_depth(images))
            condition = self.model.depth_latents(normalised)
        for row in range(self.schedule.rows):
            at = slice(row, row + 1)
            noisy = self.schedule.add_noise(clean, self._noise(at, self.warmup), at).to(clean.dtype)
            eps = self.model.unet.warm_up(
                self.memory, row, _as_clip(noisy), self.schedule.timesteps[row], self.text, condition
            )
            clean = self.schedule.denoise(noisy, eps[0].transpose(0, 1), at).to(noisy.dtype)
        return list(to_uint8(self.model.decode(_as_clip(clean))[0]))

    def _tick(self, frame: np.ndarray | None) -> list[np.ndarray]:
        """Move every row on by one step; `frame` None lets the pipeline run empty."""
        rows = slice(0, self.schedule.rows)
        noise = self._noise(rows)
        clean, condition = self._enter(frame)
        noisy = torch.cat(
            [self.schedule.add_noise(clean, noise[:1], slice(0, 1)).to(clean.dtype), self._noisy]
        )
        condition = torch.cat([condition, self._condition])
        live = [frame is not None, *self._live]
        live_there = torch.cat([self._yes_no[frame is None], self._live_there])
        eps = self.model.unet.step(
            self.memory,
            noisy,
            self.schedule.timesteps,
            self.text,
            condition if self.model.settings.uses_depth else None,
            live_there,
        )
        clean = self.schedule.denoise(noisy, eps, rows).to(noisy.dtype)
        self._noisy = self.schedule.add_noise(clean[:-1], noise[1:], slice(1, None)).to(noisy.dtype)
        self._condition = condition[:-1]
        self._live, self._live_there = live[:-1], live_there[:-1]
        if not live[-1]:
            return []
        return list(to_uint8(self.model.decode(_as_clip(clean[-1:]))[0]))

    def _enter(self, frame: np.ndarray | None) -> tuple[torch.Tensor, torch.Tensor]:
        """Latents and depth latents of a new frame, each (1, C, h, w); zeros when there is none."""
        if frame is None:
            empty = torch.zeros(1, *self._shape, device=self.model.device, dtype=self.model.unet.dtype)
            return empty, empty
        image = to_tensor(frame[None], self.model.device)[None]
        clean = self.model.encode(image)[:, :, 0]
        if not self.model.settings.uses_depth:
            return clean, torch.zeros_like(clean)
        policy, raw = self.model.settings.depth, self.model.estimate_depth(image)
        if self._depth is None:  # a model without warm-up starts its range with the first frame
            normalised, self._depth = policy.warm_up(raw)
            return clean, self.model.depth_latents(normalised)[:, :, 0]
        normalised, self._depth = policy.step(raw[:, 0], self._depth)
        return clean, self.model.depth_latents(normalised[:, None])[:, :, 0]

    # -- noise --------------------------------------------------------------------------------------------

    def _draw(self, count: int) -> torch.Tensor:
        return torch.randn(count, *self._shape, generator=self._generator, device=self.model.device)

    def _noise(self, rows: slice, frames: int = 1) -> torch.Tensor:
        """Noise for `rows`, (N, C, h, w); for the `frames` of one row, (frames, C, h, w)."""
        if self._fixed is not None:
            return self._fixed[rows] if frames == 1 else self._fixed[rows].expand(frames, -1, -1, -1)
        return self._draw(frames * len(range(*rows.indices(self.schedule.rows))))

    # -- save and restore ---------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, torch.Tensor]:
        """Everything the next frame depends on, as copies; `load_state_dict` restores it."""
        state = {f"memory.{name}": tensor for name, tensor in self.memory.state_dict().items()}
        state |= {
            "timesteps": self.schedule.timesteps.clone(),
            "text": self.text.clone(),
            "noisy": self._noisy.clone(),
            "condition": self._condition.clone(),
            "live": torch.tensor(self._live, dtype=torch.bool),
            "warm": torch.tensor(self._warm),
            "first": torch.from_numpy(np.stack(self._first)) if self._first else torch.empty(0),
            "generator": self._generator.get_state(),
        }
        if self._fixed is not None:
            state["fixed"] = self._fixed.clone()
        for name, tensor in (self._depth or {}).items():
            state[f"depth.{name}"] = tensor.clone()
        return state

    def load_state_dict(self, state: dict[str, torch.Tensor]) -> None:
        """Continue where `state_dict` was taken, bit for bit.

        The prompt and the noise come with the state; model, size and steps must be the same.

        Raises:
            ValueError: they are not; the stream is then unchanged.
        """
        steps, own = state["timesteps"].tolist(), self.schedule.timesteps.tolist()
        if steps != own:
            raise ValueError(f"stream state does not fit: its timesteps are {steps}, here {own}")
        self.memory.load_state_dict(_under(state, "memory."))
        device = self.model.device
        self._noisy, self._condition = (state[name].clone().to(device) for name in ("noisy", "condition"))
        self.text = state["text"].clone().to(device)
        self._live = [bool(live) for live in state["live"]]
        self._live_there = state["live"].clone().to(device)
        self._warm = bool(state["warm"])
        self._first = list(state["first"].numpy().copy()) if state["first"].numel() else []
        self._generator.set_state(state["generator"].cpu())
        self._fixed = state["fixed"].clone().to(device) if "fixed" in state else None
        self._depth = {
            name: value.clone().to(device) for name, value in _under(state, "depth.").items()
        } or None


def _as_clip(frames: torch.Tensor) -> torch.Tensor:
    """(F, C, h, w) -> (1, C, F, h, w)."""
    return frames.transpose(0, 1)[None]


def _under(state: dict[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
