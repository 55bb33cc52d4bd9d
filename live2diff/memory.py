"""What a stream remembers: keys and values of past frames, per temporal attention and per denoising row.

A memory is data, not module state: a flat set of tensors of fixed shape with device-side counters. Streams on
one model share its weights and nothing else.

Legend: T denoising rows, P = latent pixels of a layer (h * w), L window, Lw warm-up, R = L - Lw ring slots,
H heads of size D, channels C = H * D. Keys and values are stored *before* the positional encoding, because a
frame's index changes as older ones are evicted (Live2Diff, Sec. 3.3 and listing 4). Slots of one head lie
together: attention then reads the memory as it is, and no head is ever moved.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch

Precision = Literal["exact", "int8"]


class Tick(NamedTuple):
    """Where one streaming step reads and writes; computed once per step, shared by all layers.

    live: (T,) bool, rows that carry a frame.  slot: (T,) long, the slot a row writes.
    visible: (T, L) bool, slots a row may read.  position: (T, L) long, PE index of each slot.
    own_position: (T,) long, PE index of the row's own frame.
    """

    live: torch.Tensor
    slot: torch.Tensor
    visible: torch.Tensor
    position: torch.Tensor
    own_position: torch.Tensor


class Slots:
    """One layer's keys or values, (T, P, H, L, D): exact, or as 8-bit integers.

    `int8` rounds every pixel's C values in a slot to 127ths of the largest of them: no value is off by more
    than half of that.

    data: as stored.  scale: (T, P, L) float32, what 1 stands for; None when exact.
    """

    def __init__(self, shape: tuple[int, ...], dtype: torch.dtype, device: torch.device | str, exact: bool):
        self.dtype = dtype
        self.data = torch.zeros(shape, dtype=dtype if exact else torch.int8, device=device)
        rows, pixels, _, window, _ = shape
        self.scale = None if exact else torch.zeros(rows, pixels, window, device=device)

    def tensors(self) -> dict[str, torch.Tensor]:
        return {"": self.data} if self.scale is None else {"": self.data, "_scale": self.scale}

    def read(self) -> torch.Tensor:
        """(T, P, H, L, D) in the model's precision; the data itself when exact."""
        if self.scale is None:
            return self.data
        return (self.data * self.scale[:, :, None, :, None]).to(self.dtype)

    def put(self, rows: torch.Tensor, slots: torch.Tensor, live: torch.Tensor, new: torch.Tensor) -> None:
        """Store `new` (N, P, H, D) in `slots` (N,) of `rows` (N,), where `live` (N,)."""
        stored, scale = self._rounded(new)
        # A dead row may carry anything, NaN included: select, never multiply.
        old = self.data[rows, :, :, slots]
        self.data[rows, :, :, slots] = torch.where(live[:, None, None, None], stored, old)
        if self.scale is not None:
            self.scale[rows, :, slots] = torch.where(live[:, None], scale, self.scale[rows, :, slots])

    def put_first(self, row: int, new: torch.Tensor) -> None:
        """Store `new` (F, P, H, D) in the first F slots of `row`."""
        stored, scale = self._rounded(new)
        self.data[row, :, :, : len(new)] = stored.permute(1, 2, 0, 3)
        if self.scale is not None:
            self.scale[row, :, : len(new)] = scale.transpose(0, 1)

    def _rounded(self, new: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(N, P, H, D) as stored, and its scale (N, P)."""
        if self.scale is None:
            return new.to(self.dtype), new
        scale = new.abs().amax((-2, -1)).float() / 127
        units = new / scale.clamp_min(1e-30)[..., None, None]
        return units.round().clamp(-127, 127).to(torch.int8), scale


class StreamMemory:
    """Warm-up slots kept for ever, then a ring of the most recent frames, for every layer and row.

    Args:
        layers: (pixels, heads, head size) of every temporal attention, in the order of the model's layers.
        rows: denoising rows T >= 1. Rows know nothing of each other: those of several streams may stand in
            one memory.
        window, warmup: L and Lw; the ring has L - Lw >= 1 slots.
        precision: how keys and values are stored, see `Slots`.
    """

    def __init__(
        self,
        layers: list[tuple[int, int, int]],
        rows: int,
        window: int,
        warmup: int,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
        precision: Precision = "exact",
    ):
        if rows < 1:
            raise ValueError(f"rows={rows}: a memory needs at least one denoising row")
        self.rows, self.window, self.warmup = rows, window, warmup
        shapes = [(rows, pixels, heads, window, size) for pixels, heads, size in layers]
        self.keys, self.values = (
            [Slots(shape, dtype, device, precision == "exact") for shape in shapes] for _ in range(2)
        )
        # Frames a row has put on its ring so far, and whether its warm-up slots are filled. A row's ring slot
        # follows from its own count, so a row that joins late (pipeline fill) starts with an empty ring.
        self.count = torch.zeros(rows, dtype=torch.long, device=device)
        self.warm = torch.zeros(rows, dtype=torch.bool, device=device)
        self._row = torch.arange(rows, device=device)
        self._ring = torch.arange(window - warmup, device=device)

    def reset(self, rows: slice = slice(None)) -> None:
        """Forget everything of `rows`, in place."""
        for tensor in self._tensors().values():
            tensor[rows] = 0

    def _tensors(self) -> dict[str, torch.Tensor]:
        tensors = {"count": self.count, "warm": self.warm}
        for index, pair in enumerate(zip(self.keys, self.values, strict=True)):
            for name, slots in zip(("key", "value"), pair, strict=True):
                tensors |= {f"layers.{index}.{name}{end}": part for end, part in slots.tensors().items()}
        return tensors

    def state_dict(self, rows: slice = slice(None)) -> dict[str, torch.Tensor]:
        """Copies of all that the memory holds of `rows`, by name; what `load_state_dict` restores."""
        state = {name: tensor[rows].clone() for name, tensor in self._tensors().items()}
        return {**state, "warmup": torch.tensor(self.warmup)}

    def load_state_dict(self, state: dict[str, torch.Tensor], rows: slice = slice(None)) -> None:
        """Copy a saved state into `rows`, in place.

        Raises ValueError when it belongs to another model, size, precision or T.
        """
        state = dict(state)
        warmup = int(state.pop("warmup", torch.tensor(-1)))
        if warmup != self.warmup:
            raise ValueError(f"memory state does not fit: its warm-up is {warmup} frames, here {self.warmup}")
        own = {name: tensor[rows] for name, tensor in self._tensors().items()}
        if own.keys() != state.keys():
            odd = sorted(own.keys() ^ state.keys())[0]
            raise ValueError(f"memory state does not fit this model: key {odd!r} is on one side only")
        for name, tensor in own.items():
            if tensor.shape != state[name].shape:
                given, here = tuple(state[name].shape), tuple(tensor.shape)
                raise ValueError(f"memory state does not fit: {name} is {given}, here {here}")
        for name, tensor in own.items():
            tensor.copy_(state[name])

    @property
    def nbytes(self) -> int:
        return sum(tensor.nbytes for tensor in self._tensors().values())

    # -- what the model calls -----------------------------------------------------------------------------

    def start_row(self, row: int) -> None:
        """Begin `row` anew: its ring is empty and its warm-up slots are about to be written."""
        for tensor in self._tensors().values():
            tensor[row] = 0  # what is masked still enters products: a NaN from before would stay
        self.warm[row] = True

    def write_warm_up(self, layer: int, row: int, key: torch.Tensor, value: torch.Tensor) -> None:
        """Keep the warm-up frames' `key` and `value`, each (Lw, P, H, D), in `row` of `layer`."""
        self.keys[layer].put_first(row, key)
        self.values[layer].put_first(row, value)

    def tick(self, live: torch.Tensor | None) -> Tick:
        """Plan one step: every row is about to write ring frame number `count`. No host synchronisation."""
        if live is None:
            live = torch.ones_like(self.warm)
        ring = self.window - self.warmup
        newest = self.count[:, None]
        # The frame that ring slot j will hold after this step is the latest one whose number is j modulo R.
        frame = newest - (newest - self._ring) % ring
        oldest = (newest - ring + 1).clamp_min(0)
        warm = self.warm[:, None].expand(-1, self.warmup)
        start = self.warm.long()[:, None] * self.warmup
        return Tick(
            live=live,
            slot=self.warmup + self.count % ring,
            visible=torch.cat([warm, frame >= 0], dim=1),
            position=torch.cat(
                [
                    torch.arange(self.warmup, device=live.device).expand(self.rows, -1),
                    start + (frame - oldest).clamp_min(0),
                ],
                dim=1,
            ),
            own_position=(start + newest - oldest)[:, 0],
        )

    def write(self, layer: int, tick: Tick, key: torch.Tensor, value: torch.Tensor) -> None:
        """Put each live row's `key` and `value`, (T, P, H, D), into its slot; others keep what they hold."""
        for slots, new in ((self.keys[layer], key), (self.values[layer], value)):
            slots.put(self._row, tick.slot, tick.live, new)

    def commit(self, tick: Tick) -> None:
        """End the step that `tick` planned."""
        self.count += tick.live
