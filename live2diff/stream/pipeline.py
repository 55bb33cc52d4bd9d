"""The device side of streaming: buffers that stay where they are, and one function that moves everything on.

A tick is a function of these buffers alone: no shape changes, nothing is asked of the device, nothing depends
on a value. So it can be compiled as one graph, and recorded as a CUDA graph and replayed.

Several streams may share a pipeline. Rows know nothing of each other, so N streams of T rows are N * T rows
of one UNet call. A stream that does not take part in a tick is not active: its rows carry nothing, and its
buffers keep what they hold.

Legend: N streams, T denoising rows, (C, h, w) a latent, C0 channels of the UNet's first convolution.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from types import FunctionType
from typing import Any, Literal

import numpy as np
import torch

from live2diff.depth import DepthState
from live2diff.errors import SetupError, UsageError
from live2diff.images import from_pixels, to_pixels
from live2diff.memory import Precision
from live2diff.model.video_model import VideoModel
from live2diff.stream.budget import check_memory
from live2diff.stream.schedule import RowSchedule

StreamMask = Literal["causal", "warmup_causal"]
_ENTERING = ("entering", "entering_residual", "entering_live")
_KEPT = (*_ENTERING, "noisy", "residual", "live", "low", "high", "ranged")  # between ticks, beside the memory


@dataclass(frozen=True)
class Switches:
    """How a tick is computed. All of them give the same video, to rounding; `memory` to its own.

    compile: by torch.compile, as one graph; the first tick then takes minutes at SD1.5's size, and so does
        the first one after a change of LoRA. A text names another of its backends.
    cuda_graph: record the tick once and replay it; needs a GPU.
    kernel: of the temporal attention; `triton` reads the memory once. On a GPU.
    memory: `int8` halves the memory; see `live2diff.memory.Slots` for what it costs.
    overlap: encode a frame, and estimate its depth, while the UNet still works on those before it: on a GPU
        side by side with it, elsewhere to no use. Every frame comes out one tick later. A change of prompt
        or LoRA also reaches the frame that waits.
    """

    compile: bool | str = False
    cuda_graph: bool = False
    kernel: Literal["torch", "triton"] = "torch"
    memory: Precision = "exact"
    overlap: bool = False

    def check(self, device: torch.device) -> None:
        """Raises UsageError or SetupError: a value that does not exist, or that `device` cannot do."""
        for name, known in (("kernel", ("torch", "triton")), ("memory", ("exact", "int8"))):
            if getattr(self, name) not in known:
                raise UsageError(f"{name}={getattr(self, name)!r}: expected {' or '.join(known)}")
        if self.cuda_graph and device.type != "cuda":
            raise SetupError(f"cuda_graph: needs a GPU, the model is on {device.type}; leave it out")
        if self.kernel == "triton":
            from live2diff.model.kernels import check_triton

            check_triton(device)


class Pipeline:
    """N streams at once, T frames of each in work.

    To tick: `put` a frame for each stream that takes part, `run`, and read `picture` where there was a frame
    in the last row.

    picture: (N, H, W, 3) uint8 RGB, what came out of the last rows.
    warmup: frames that a stream denoises together at its start.
    delay: ticks from the one that a frame is put into to the one that it comes out of.
    """

    def __init__(
        self,
        model: VideoModel,
        prompts: list[str],
        size: tuple[int, int] | None = None,
        steps: tuple[int, ...] | None = None,
        switches: Switches = Switches(),  # noqa: B008 - frozen
        mask: StreamMask | None = None,
    ):
        """`prompts`: one for each stream; the others as for `live2diff.stream.Stream`."""
        settings, device, dtype = model.settings, model.device, model.unet.dtype
        if settings.mask == "bidirectional":
            raise UsageError(
                "this model was trained with mask=bidirectional and cannot be streamed; train stage 1"
            )
        if mask not in (None, "causal", "warmup_causal"):
            raise UsageError(f"mask={mask!r}: expected causal or warmup_causal")
        settings = replace(settings, mask=mask or settings.mask)
        self.warmup = settings.streamed_warmup
        self.size = size = size or settings.size
        if min(size) < 8 or any(side % 8 for side in size):
            raise UsageError(f"size {size[0]}x{size[1]}: both sides must be multiples of 8")
        switches.check(device)
        if switches.compile:
            # In the plain layout some kernels give other strides than torch.compile expects of them.
            model.channels_last()
        self.model, self.switches = model, switches
        self.schedule = RowSchedule(settings.noise, steps or settings.steps, device)
        self.streams, self.rows = len(prompts), self.schedule.rows
        self.delay = self.rows - 1 + switches.overlap
        width, height = (side // model.downscale for side in size)
        self.latent = (model.unet.config.in_channels, height, width)
        shape = (self.streams * self.rows, height, width)
        kind = {"warmup": self.warmup, "precision": switches.memory}
        needed = model.unet.new_memory(*shape, **kind, device="meta").nbytes
        check_memory(model, self.streams * self.rows, self.warmup, size, needed)
        self.memory = model.unet.new_memory(*shape, **kind)
        count, waiting = self.streams, self.rows - 1
        pinned = device.type == "cuda"

        def buffer(*shape: int, dtype: torch.dtype = dtype) -> torch.Tensor:
            return torch.zeros(count, *shape, dtype=dtype, device=device)

        picture = (size[1], size[0], 3)
        # What `put` fills on the host, and the same on the device.
        self._host = (
            torch.zeros(count, *picture, dtype=torch.uint8, pin_memory=pinned),
            *(torch.zeros(count, dtype=torch.bool, pin_memory=pinned) for _ in range(2)),
        )
        self._frame = buffer(*picture, dtype=torch.uint8)
        self._enters, self._active = (buffer(dtype=torch.bool) for _ in range(2))
        self._ran = False  # since the last `put`
        self._copied = torch.cuda.Event() if pinned else None  # the last copy from host to device
        self._noise = buffer(self.rows, *self.latent, dtype=torch.float32)
        self.picture = buffer(*picture, dtype=torch.uint8)
        # What the rows below the first hold between ticks: noisy latents, the depth branch's output, and
        # whether there is a frame.
        first = model.unet.conv_in.out_channels if settings.uses_depth else 0
        self.noisy = buffer(waiting, *self.latent)
        self.residual = buffer(waiting, first, height, width)
        self.live = buffer(waiting, dtype=torch.bool)
        # With `overlap`, the frame that was encoded in the last tick, likewise.
        places = int(switches.overlap)
        self.entering = buffer(places, *self.latent)
        self.entering_residual = buffer(places, first, height, width)
        self.entering_live = buffer(places, dtype=torch.bool)
        # The range that depth is stretched by, and whether there is one yet.
        self.low, self.high = (buffer(dtype=torch.float32) for _ in range(2))
        self.ranged = buffer(dtype=torch.bool)

        self._timesteps = self.schedule.timesteps.repeat(count)
        self._constants = model.unet.constants(self._timesteps, model.text(prompts).to(dtype))
        self._revision = model.unet.revision
        self._graph: torch.cuda.CUDAGraph | None = None
        self._beside = torch.cuda.Stream(device) if pinned and switches.overlap else None
        self._call = self._tick()

    # -- what does not change from tick to tick -----------------------------------------------------------

    @property
    def text(self) -> torch.Tensor:
        """(N, S, D)."""
        return self._constants.text

    def set_text(self, stream: int, states: torch.Tensor) -> None:
        """Change one prompt to `states`, (1, S, D)."""
        text = self.text.clone()
        text[stream] = states[0].to(text)
        self._constants.copy_(self.model.unet.constants(self._timesteps, text))

    def refresh(self) -> None:
        """Compute anew what was computed from the weights. After changes through `interop.lora` it happens by
        itself; whoever writes to weights in another way calls this."""
        self._constants.copy_(self.model.unet.constants(self._timesteps, self.text))
        self._revision = self.model.unet.revision
        # Both may hold numbers, such as a LoRA's strength.
        self._graph = None
        if self.switches.compile:
            self._call = self._tick()

    def forget(self, stream: int) -> None:
        """Empty one stream's memory, rows and depth range."""
        self.memory.reset(self._rows_of(stream))
        self.live[stream] = self.entering_live[stream] = False
        self.ranged[stream] = False

    def set_range(self, stream: int, depth: DepthState) -> None:
        """The depth range that a warm-up ended with."""
        self.low[stream], self.high[stream], self.ranged[stream] = depth["low"][0], depth["high"][0], True

    def state_dict(self, stream: int) -> dict[str, torch.Tensor]:
        """Copies of all that one stream's next tick depends on here; `load_state_dict` restores it."""
        state = {name: getattr(self, name)[stream].clone() for name in _KEPT}
        memory = self.memory.state_dict(self._rows_of(stream))
        return state | {f"memory.{name}": tensor for name, tensor in memory.items()}

    def load_state_dict(self, stream: int, state: dict[str, torch.Tensor]) -> None:
        """Raises ValueError when the state is of another model, size, T, precision or `overlap`; nothing
        changes."""
        for name in _KEPT:
            theirs = tuple(state[name].shape) if name in state else "missing"
            own = tuple(getattr(self, name)[stream].shape)
            if theirs != own:
                raise ValueError(f"stream state does not fit: its {name} is {theirs}, here {own}")
        memory = {
            name.removeprefix("memory."): tensor
            for name, tensor in state.items()
            if name.startswith("memory.")
        }
        self.memory.load_state_dict(memory, self._rows_of(stream))
        for name in _KEPT:
            getattr(self, name)[stream] = state[name].to(self.noisy.device)

    def _rows_of(self, stream: int) -> slice:
        return slice(stream * self.rows, (stream + 1) * self.rows)

    # -- the tick -----------------------------------------------------------------------------------------

    def put(self, stream: int, frame: np.ndarray | None, noise: torch.Tensor | None) -> None:
        """Let a stream take part in the next tick.

        Args:
            frame: uint8 RGB (H, W, 3); None lets the stream run empty.
            noise: (T, C, h, w) float32, for its rows; None if no row holds a frame.
        """
        if self._copied is not None:
            self._copied.synchronize()  # at most one tick is ahead of the device
        frames, enters, active = self._host
        if self._ran:
            active.zero_()
            self._ran = False
        if frame is not None:
            frames[stream] = torch.from_numpy(frame)
        enters[stream], active[stream] = frame is not None, True
        if noise is not None:
            self._noise[stream].copy_(noise)

    @torch.no_grad()
    def run(self) -> None:
        """Move the rows of all streams that take part on by one step. Asks nothing of the device."""
        if self._revision != self.model.unet.revision:
            self.refresh()
        if self.switches.cuda_graph and self._graph is None:
            self._graph = self._record()
        for there, here in zip((self._frame, self._enters, self._active), self._host, strict=True):
            there.copy_(here, non_blocking=True)
        if self._copied is not None:
            self._copied.record()
        if self._graph is not None:
            self._graph.replay()
        else:
            self._call()
        self._ran = True

    def _advance(self) -> None:
        """The tick: buffers in, buffers out."""
        self._step(*self._enter())

    def _step(self, clean: torch.Tensor, residual: torch.Tensor, enters: torch.Tensor) -> None:
        """Put what `_enter` made into row 0, and move all rows on."""
        unet, schedule, count, active = self.model.unet, self.schedule, self.streams, self._active
        start = schedule.add_noise(clean, self._noise[:, 0], slice(0, 1)).to(self.noisy.dtype)
        noisy = torch.cat([start[:, None], self.noisy], dim=1)
        residual = torch.cat([residual[:, None], self.residual], dim=1)
        live = torch.cat([enters[:, None], self.live], dim=1) & active[:, None]
        predicted = unet.advance(
            self.memory,
            noisy.flatten(0, 1),
            self._constants,
            residual.flatten(0, 1) if self.model.settings.uses_depth else None,
            live.flatten(),
            self.switches.kernel == "triton",
        ).unflatten(0, (count, -1))
        rows = slice(0, self.rows)
        clean = schedule.denoise(noisy, predicted, rows).to(noisy.dtype)
        following = schedule.add_noise(clean[:, :-1], self._noise[:, 1:], slice(1, None))
        for buffer, new in (
            (self.noisy, following.to(noisy.dtype)),
            (self.residual, residual[:, :-1]),
            (self.live, live[:, :-1]),
        ):
            self._keep(buffer, new)
        done = self.model.decode(clean[:, -1].unsqueeze(2))  # (N, 3, 1, H, W)
        self.picture.copy_(to_pixels(done[:, :, 0].transpose(0, 1)))

    def _keep(self, buffer: torch.Tensor, new: torch.Tensor) -> None:
        """Write `new`; a stream that sits this tick out keeps what it has."""
        buffer.copy_(torch.where(self._active.view(-1, *[1] * (buffer.ndim - 1)), new, buffer))

    def _enter(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Latents (N, C, h, w) of the new frames, the depth branch's output for them, and which there are."""
        enters = self._enters & self._active
        images = from_pixels(self._frame).transpose(0, 1).unsqueeze(2)  # (N, 3, 1, H, W)
        clean = self.model.encode(images)[:, :, 0]
        if not self.model.settings.uses_depth:
            return clean, clean[:, :0], enters
        policy, raw = self.model.settings.depth, self.model.estimate_depth(images)
        _, own = policy.warm_up(raw)  # without a warm-up, the first frame's own range is the first one
        state = {
            "low": torch.where(self.ranged, self.low, own["low"]),
            "high": torch.where(self.ranged, self.high, own["high"]),
        }
        normalised, state = policy.step(raw[:, 0], state)
        self.low.copy_(torch.where(enters, state["low"], self.low))
        self.high.copy_(torch.where(enters, state["high"], self.high))
        self.ranged |= enters
        latents = self.model.depth_latents(normalised[:, None])[:, :, 0]
        return clean, self.model.unet.depth_residual(latents), enters

    # -- overlapped, compiled, recorded -------------------------------------------------------------------

    def _tick(self) -> Callable[[], None]:
        if not self.switches.overlap:
            return partial(self._compiled(Pipeline._advance), self)
        enter, step = (self._compiled(part) for part in (Pipeline._enter, Pipeline._step))
        return partial(self._overlapped, enter, step)

    def _overlapped(self, enter: Callable[..., tuple[torch.Tensor, ...]], step: Callable[..., None]) -> None:
        """The tick in two parts that know nothing of each other: the new frame waits for the next one."""
        buffers = [getattr(self, name) for name in _ENTERING]
        if self._beside is None:
            new = enter(self)
        else:
            # What it allocates is in use until it waits here again, in the next tick.
            self._beside.wait_stream(torch.cuda.current_stream(self.model.device))
            with torch.cuda.stream(self._beside):
                new = enter(self)
        step(self, *(buffer[:, 0] for buffer in buffers))
        if self._beside is not None:
            torch.cuda.current_stream(self.model.device).wait_stream(self._beside)
        for buffer, tensor in zip(buffers, new, strict=True):
            self._keep(buffer, tensor[:, None])

    def _compiled(self, part: Callable[..., Any]) -> Callable[..., Any]:
        """A part of the tick as it is to be called, with the pipeline as its first argument."""
        if not self.switches.compile:
            return part
        # torch.compile counts recompilations for each piece of code; every pipeline gets its own, so that a
        # process may hold any number.
        own = FunctionType(part.__code__.replace(), part.__globals__)
        backend = self.switches.compile if isinstance(self.switches.compile, str) else "inductor"
        return torch.compile(own, fullgraph=True, dynamic=False, backend=backend)

    def _record(self) -> torch.cuda.CUDAGraph:
        """One tick as a CUDA graph. No stream is active meanwhile, so it leaves no trace."""
        self._active.zero_()
        return record(self._call)


def record(call: Callable[[], object]) -> torch.cuda.CUDAGraph:
    """The kernels of `call`, which is called a few times, as a CUDA graph: it replays them in place."""
    current, side = torch.cuda.current_stream(), torch.cuda.Stream()
    side.wait_stream(current)
    with torch.cuda.stream(side):
        for _ in range(3):  # libraries choose their kernels and take their memory
            call()
    current.wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        call()
    return graph
