"""What a stream remembers: keys and values of past frames, per temporal attention and per denoising row.

A memory is data, not module state: a flat set of tensors of fixed shape with device-side counters. Streams on
one model share its weights and nothing else.

Legend: T denoising rows, P = latent pixels of a layer (h * w), L window, Lw warm-up, R = L - Lw ring slots,
C channels of a layer. Keys and values are stored *before* the positional encoding, because a frame's index
changes as older ones are evicted (Live2Diff, Sec. 3.3 and listing 4).
"""

from __future__ import annotations

from typing import NamedTuple

import torch


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


class StreamMemory:
    """Warm-up slots kept for ever, then a ring of the most recent frames, for every layer and row.

    Args:
        layers: (pixels, channels) of every temporal attention, in the order of the model's layers.
        rows: denoising rows T >= 1.
        window, warmup: L and Lw; the ring has L - Lw >= 1 slots.
    """

    def __init__(
        self,
        layers: list[tuple[int, int]],
        rows: int,
        window: int,
        warmup: int,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ):
        if rows < 1:
            raise ValueError(f"rows={rows}: a memory needs at least one denoising row")
        self.rows, self.window, self.warmup = rows, window, warmup
        self.keys = [torch.zeros(rows, p, window, c, dtype=dtype, device=device) for p, c in layers]
        self.values = [torch.zeros_like(k) for k in self.keys]
        # Frames a row has put on its ring so far, and whether its warm-up slots are filled. A row's ring slot
        # follows from its own count, so a row that joins late (pipeline fill) starts with an empty ring.
        self.count = torch.zeros(rows, dtype=torch.long, device=device)
        self.warm = torch.zeros(rows, dtype=torch.bool, device=device)
        self._row = torch.arange(rows, device=device)
        self._ring = torch.arange(window - warmup, device=device)

    def reset(self) -> None:
        """Forget everything, in place."""
        for tensor in self._tensors().values():
            tensor.zero_()

    def _tensors(self) -> dict[str, torch.Tensor]:
        tensors = {"count": self.count, "warm": self.warm}
        for index, (key, value) in enumerate(zip(self.keys, self.values, strict=True)):
            tensors[f"layers.{index}.key"] = key
            tensors[f"layers.{index}.value"] = value
        return tensors

    def state_dict(self) -> dict[str, torch.Tensor]:
        """Copies of everything the memory holds, by name; what `load_state_dict` restores."""
        state = {name: tensor.clone() for name, tensor in self._tensors().items()}
        return {**state, "warmup": torch.tensor(self.warmup)}

    def load_state_dict(self, state: dict[str, torch.Tensor]) -> None:
        """Copy a saved state in, in place. Raises ValueError when it belongs to another model, size or T."""
        state = dict(state)
        warmup = int(state.pop("warmup", torch.tensor(-1)))
        if warmup != self.warmup:
            raise ValueError(f"memory state does not fit: its warm-up is {warmup} frames, here {self.warmup}")
        own = self._tensors()
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
        for cache in (*self.keys, *self.values):
            cache[row] = 0  # what is masked still enters products: a NaN from before would stay
        self.count[row] = 0
        self.warm[row] = True

    def write_warm_up(self, layer: int, row: int, key: torch.Tensor, value: torch.Tensor) -> None:
        """Keep the warm-up frames' `key` and `value`, each (P, Lw, C), in `row` of `layer`."""
        self.keys[layer][row, :, : self.warmup] = key
        self.values[layer][row, :, : self.warmup] = value

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
        """Put each live row's `key` and `value`, (T, P, C), into its slot; other rows keep what they hold."""
        # A dead row may carry anything, NaN included: select, never multiply.
        live = tick.live[:, None, None]
        for cache, new in ((self.keys[layer], key), (self.values[layer], value)):
            cache[self._row, :, tick.slot] = torch.where(live, new, cache[self._row, :, tick.slot])

    def commit(self, tick: Tick) -> None:
        """End the step that `tick` planned."""
        self.count += tick.live
