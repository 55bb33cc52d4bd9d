"""Translate a video while it arrives: warm up on the first frames, then one frame in, one frame out.

Pipelined denoising (Live2Diff, Sec. 3.3): with T denoising steps, T frames are in work at once, each one step
further than the next. A tick puts a new frame into row 0, moves every row on by one step in a single
batch, and takes the finished frame out of row T - 1. The delay is T - 1 ticks (T with `Switches.overlap`),
the work per frame is one batch of T.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from typing import Literal

import numpy as np
import torch

from live2diff.errors import UsageError
from live2diff.images import to_tensor, to_uint8
from live2diff.interop.lora import check_lora_names, set_lora_scales
from live2diff.model.video_model import VideoModel
from live2diff.stream.fade import Fade
from live2diff.stream.pipeline import Pipeline, StreamMask, Switches

Noise = Literal["fresh", "fixed"]
Memory = Literal["keep", "rewarm", "restart"]


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
        mask: who a frame sees; default: as the model was trained. `causal` with a model that was trained with
            a warm-up keeps no frame for ever: recent ones fill its place (Live2Diff, Table 2, row B).
        switches: how the work is done, not what comes of it.
        seat: a place in a pipeline that other streams share, see `live2diff.stream.batch`; size, steps, mask
            and switches are then the pipeline's.

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
        mask: StreamMask | None = None,
        switches: Switches = Switches(),  # noqa: B008 - frozen
        seat: tuple[Pipeline, int] | None = None,
    ):
        if noise not in ("fresh", "fixed"):
            raise UsageError(f"noise={noise!r}: expected fresh or fixed")
        self.model, self.prompt = model, prompt
        self._place: int | None
        self._revision = model.unet.revision  # of the weights that `text` was made with
        self._settling = 0  # frames until nothing from before a change is left, but the warm-up
        if seat is None:
            self.pipeline, self._place = Pipeline(model, [prompt], size, steps, switches, mask), 0
        else:
            self.pipeline, self._place = seat
            self.text = model.text([prompt])
        self.size, self.schedule = self.pipeline.size, self.pipeline.schedule
        self.warmup = self.pipeline.warmup
        self._generator = torch.Generator(model.device).manual_seed(seed)
        self._fixed = self._draw(self.schedule.rows) if noise == "fixed" else None
        self._first: list[np.ndarray] = []  # frames that wait for the warm-up to be complete
        self._recent: deque[np.ndarray] = deque(maxlen=self.warmup)  # the last Lw, for a re-warm
        self._fade: Fade | None = None  # a prompt that comes in over several frames
        self._warm = False
        # Which places on the way through the pipeline hold a frame.
        self._live = [False] * self.pipeline.delay

    @property
    def _seat(self) -> int:
        if self._place is None:
            raise UsageError("this stream has left its seat, which may be another's now; join for a new one")
        return self._place

    def leave(self) -> None:
        """Give the seat up: whatever is asked of this stream from now on is refused."""
        self._place = None

    @property
    def text(self) -> torch.Tensor:
        """States of the prompt, (1, S, D); what is assigned holds from the next tick on."""
        return self.pipeline.text[self._seat][None]

    @text.setter
    def text(self, states: torch.Tensor) -> None:
        self.pipeline.set_text(self._seat, states)

    def refresh(self) -> None:
        """Call after writing to the model's weights. Changes of LoRA are noticed without."""
        self.pipeline.refresh()

    @property
    def memory_bytes(self) -> int:
        """What the memory of all streams in this one's pipeline takes."""
        return self.pipeline.memory.nbytes

    # -- frames in, frames out ----------------------------------------------------------------------------

    def push(self, frame: np.ndarray) -> list[np.ndarray]:
        """Take one uint8 RGB frame (H, W, 3); return the frames that are done, oldest first.

        Nothing comes out while the warm-up gathers its Lw frames; then those come at once; then, after T - 1
        further frames (T with `overlap`), one for every one that goes in.
        """
        self.check(frame)
        done = self.begin(frame)
        if done is not None:
            return done
        self.pipeline.run()
        return self.finish(frame)

    def check(self, frame: np.ndarray) -> None:
        """Raises UsageError: not a frame of this stream's size and kind, or the stream has left its seat."""
        _ = self._seat
        width, height = self.size
        if frame.shape != (height, width, 3) or frame.dtype != np.uint8:
            raise UsageError(
                f"frame {frame.shape} of {frame.dtype}: this stream takes uint8 RGB ({height}, {width}, 3)"
            )

    def begin(self, frame: np.ndarray) -> list[np.ndarray] | None:
        """The half of `push` before the pipeline runs; what is done already if it need not run."""
        frame = frame.copy()  # the caller may fill the same array again; and views may run backwards
        self._recent.append(frame)
        self._settling = max(self._settling - 1, 0)
        if self._revision != self.model.unet.revision:
            self._encode_again()
        if self._fade is not None:
            self.text, over = self._fade.step()
            self._fade = None if over else self._fade
        if self._warm or self.warmup == 0:
            return self._put(frame)
        self._first.append(frame)
        return self._warm_up() if len(self._first) == self.warmup else []

    def finish(self, frame: np.ndarray | None) -> list[np.ndarray]:
        """The half after it."""
        *self._live, done = [frame is not None, *self._live]
        return [self.pipeline.picture[self._seat].cpu().numpy().copy()] if done else []

    def flush(self) -> list[np.ndarray]:
        """Return the frames still in the pipeline, so that as many come out as went in.

        If there were fewer than the warm-up takes, the last one is held for the rest.
        """
        _, done = self._seat, []
        if self._first:
            done += self._warm_up()
        while any(self._live):
            self._put(None)
            self.pipeline.run()
            done += self.finish(None)
        return done

    # -- while it runs ------------------------------------------------------------------------------------

    def change(
        self,
        prompt: str | None = None,
        *,
        blend: int = 0,
        loras: Mapping[str, float] | None = None,
        memory: Memory = "keep",
    ) -> list[np.ndarray]:
        """Show something else from the next frame on.

        Args:
            prompt: what the output shows from now on; None leaves it.
            blend: frames over which the text moves from the old prompt to the new one; 0 changes at once.
            loras: new strengths of the model's LoRA, by name (`live2diff.interop.lora.add_lora`). They
                belong to the model: all its streams follow.
            memory: what becomes of the past, whose keys and values were computed the old way. `keep` leaves
                it, and the new look grows in as old frames are evicted; the frames in the pipeline follow
                with the steps they still have to take (with `overlap` the last one with all of them).
                `rewarm` fills it anew from the last Lw frames, which costs what the start cost. `restart`
                forgets it: the next Lw frames warm up anew, as after a cut.

        Returns:
            With `rewarm` and `restart`, the frames that were in the pipeline, finished the old way.

        Raises:
            UsageError: `blend` below 0, or together with another memory than `keep`; an unknown LoRA.
        """
        _ = self._seat  # refused before anything is done
        if memory not in ("keep", "rewarm", "restart"):
            raise UsageError(f"memory={memory!r}: expected keep, rewarm or restart")
        if blend < 0 or (blend and memory != "keep"):
            raise UsageError(f"blend={blend}: expected 0 or more, and only 0 with memory={memory}")
        check_lora_names(self.model, loras or {})  # before anything is done
        gathering = self.warmup > 0 and not self._warm  # there is no past yet
        done = self.flush() if memory == "restart" or (memory == "rewarm" and not gathering) else []
        if loras:
            set_lora_scales(self.model, loras)
            self._encode_again()
        if prompt is not None:
            self.prompt, states = prompt, self.model.text([prompt]).to(self.text)
            self._fade = Fade(self.text.clone(), states, blend) if blend else None
            self.text = self.text if blend else states
        if prompt is not None or loras:
            self._settling = blend + self.model.settings.window - self.warmup + self.schedule.rows - 1
        if memory == "restart":
            self._forget()
        elif memory == "rewarm" and not gathering:
            frames = list(self._recent)
            self._forget()
            if frames:
                self._first = frames
                self._recent.extend(frames)
                self._warm_up()
        return done

    @property
    def unsettled(self) -> bool:
        """Whether an equal frame would not give an equal picture: warm-up frames gather, text blends, or
        frames that were denoised before a change are still remembered."""
        return bool(self._first) or self._settling > 0

    def _encode_again(self) -> None:
        """Follow a change of LoRA, which may adapt the text encoder too."""
        self._revision = self.model.unet.revision
        states = self.model.text([self.prompt]).to(self.text)
        if self._fade is not None:
            self._fade.end = states
        else:
            self.text = states

    def _forget(self) -> None:
        self.pipeline.forget(self._seat)
        self._warm = False
        self._recent.clear()

    # -- the two phases -----------------------------------------------------------------------------------

    def _warm_up(self) -> list[np.ndarray]:
        """Denoise the first Lw frames together through all rows, filling each row's memory on the way.

        Of fewer frames, the last one is held for the rest; what comes of those is left out.
        """
        count = len(self._first)
        frames = [*self._first, *[self._first[-1]] * (self.warmup - count)]
        images = to_tensor(np.stack(frames), self.model.device)[None]
        self._first, self._warm = [], True
        clean = self.model.encode(images)[0].transpose(0, 1)  # (Lw, C, h, w)
        condition = None
        if self.model.settings.uses_depth:
            normalised, depth = self.model.settings.depth.warm_up(self.model.estimate_depth(images))
            self.pipeline.set_range(self._seat, depth)
            condition = self.model.depth_latents(normalised)
        for row in range(self.schedule.rows):
            at = slice(row, row + 1)
            noisy = self.schedule.add_noise(clean, self._noise(at, self.warmup), at).to(clean.dtype)
            eps = self.model.unet.warm_up(
                self.pipeline.memory,
                self._seat * self.schedule.rows + row,
                _as_clip(noisy),
                self.schedule.timesteps[row],
                self.text,
                condition,
            )
            clean = self.schedule.denoise(noisy, eps[0].transpose(0, 1), at).to(noisy.dtype)
        return list(to_uint8(self.model.decode(_as_clip(clean[:count]))[0]))

    def _put(self, frame: np.ndarray | None) -> None:
        """Take part in the pipeline's next tick; `frame` None lets our rows run empty."""
        # With `overlap`, this tick only encodes the first frame. Nothing is drawn, so that the next one has
        # the noise that this one has without.
        idle = self.pipeline.switches.overlap and not any(self._live)
        noise = None if idle else self._noise(slice(0, self.schedule.rows))
        self.pipeline.put(self._seat, frame, noise)

    # -- noise --------------------------------------------------------------------------------------------

    def _draw(self, count: int) -> torch.Tensor:
        return torch.randn(count, *self.pipeline.latent, generator=self._generator, device=self.model.device)

    def _noise(self, rows: slice, frames: int = 1) -> torch.Tensor:
        """Noise for `rows`, (N, C, h, w); for the `frames` of one row, (frames, C, h, w)."""
        if self._fixed is not None:
            return self._fixed[rows] if frames == 1 else self._fixed[rows].expand(frames, -1, -1, -1)
        return self._draw(frames * len(range(*rows.indices(self.schedule.rows))))

    # -- save and restore ---------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, torch.Tensor]:
        """Everything the next frame depends on, as copies; `load_state_dict` restores it."""
        state = self.pipeline.state_dict(self._seat)
        state |= {
            "timesteps": self.schedule.timesteps.clone(),
            "text": self.text.clone(),
            "prompt": torch.tensor(list(self.prompt.encode()), dtype=torch.uint8),
            "settling": torch.tensor(self._settling),
            "warm": torch.tensor(self._warm),
            "first": _stack(self._first),
            "recent": _stack(self._recent),
            "generator": self._generator.get_state(),
        }
        if self._fixed is not None:
            state["fixed"] = self._fixed.clone()
        if self._fade is not None:
            state |= {f"fade.{name}": tensor for name, tensor in self._fade.state_dict().items()}
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
        self.pipeline.load_state_dict(self._seat, state)
        device = self.model.device
        self.text = state["text"].clone().to(device)
        self.prompt = bytes(state["prompt"].tolist()).decode()
        self._settling = int(state["settling"])
        self._live = [bool(live) for live in (*state["entering_live"], *state["live"])]
        self._warm = bool(state["warm"])
        self._first = _unstack(state["first"])
        self._recent = deque(_unstack(state["recent"]), maxlen=self.warmup)
        fade = _under(state, "fade.")
        self._fade = Fade.from_state(fade, device) if fade else None
        self._generator.set_state(state["generator"].cpu())
        self._fixed = state["fixed"].clone().to(device) if "fixed" in state else None


def _as_clip(frames: torch.Tensor) -> torch.Tensor:
    """(F, C, h, w) -> (1, C, F, h, w)."""
    return frames.transpose(0, 1)[None]


def _stack(frames: Iterable[np.ndarray]) -> torch.Tensor:
    frames = list(frames)
    return torch.from_numpy(np.stack(frames)) if frames else torch.empty(0)


def _unstack(frames: torch.Tensor) -> list[np.ndarray]:
    return list(frames.numpy().copy()) if frames.numel() else []


def _under(state: dict[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
