"""A prompt that comes in over several frames."""

from __future__ import annotations

import torch


class Fade:
    """Text states on their way from `start` to `end` in `frames` equal steps.

    Args:
        start, end: (1, S, D).
        frames: 1 or more; after so many steps the states are `end`'s.
    """

    def __init__(self, start: torch.Tensor, end: torch.Tensor, frames: int, done: int = 0):
        self.start, self.end, self.frames, self.done = start, end, frames, done

    def step(self) -> tuple[torch.Tensor, bool]:
        """The states of the next frame, and whether it is the last step."""
        self.done += 1
        if self.done >= self.frames:
            return self.end, True
        return torch.lerp(self.start, self.end, self.done / self.frames), False

    def state_dict(self) -> dict[str, torch.Tensor]:
        return {
            "start": self.start.clone(),
            "end": self.end.clone(),
            "progress": torch.tensor([self.frames, self.done]),
        }

    @classmethod
    def from_state(cls, state: dict[str, torch.Tensor], device: torch.device) -> Fade:
        frames, done = state["progress"].tolist()
        return cls(state["start"].clone().to(device), state["end"].clone().to(device), frames, done)
