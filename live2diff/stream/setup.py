"""Everything that makes a stream what it is, as plain values: from a command line, or from a session."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from live2diff import machine
from live2diff.devices import find_device
from live2diff.errors import DataError, UsageError
from live2diff.interop.lora import add_lora, merge_loras
from live2diff.model.build import load_model
from live2diff.model.folder import DTYPES, sha256_of
from live2diff.model.video_model import VideoModel
from live2diff.stream.engine import Noise, Stream
from live2diff.stream.pipeline import StreamMask, Switches
from live2diff.stream.still import SkipStill
from live2diff.stream.strength import steps_of


@dataclass(frozen=True)
class Setup:
    """How a stream begins. `Stream` explains what is not listed.

    Attributes:
        export: an exported model, or a training run.
        steps, strength: one of them, or neither for the model's steps; see `steps_of`.
        loras: (file, strength) pairs.
        live_loras: keep the LoRA beside the weights, so that their strengths can change; otherwise they are
            fused, which costs nothing per frame.
        similar_frame_skip: see `SkipStill`; None denoises every frame.
        mask: another one than the model was trained with; None is that one.
        device: "auto" takes a GPU when there is one.
        dtype: fp32, fp16 or bf16; None is fp32.
        switches: how a tick is computed.
    """

    export: str
    prompt: str = ""
    steps: tuple[int, ...] | None = None
    strength: float | None = None
    size: tuple[int, int] | None = None
    seed: int = 0
    noise: Noise = "fresh"
    loras: tuple[tuple[str, float], ...] = ()
    live_loras: bool = False
    similar_frame_skip: float | None = None
    mask: StreamMask | None = None
    device: str = "auto"
    dtype: str | None = None
    switches: Switches = Switches()

    def __post_init__(self) -> None:
        if self.steps is not None and self.strength is not None:
            raise UsageError(
                "--steps and --strength: both say how far to go from the input; give one of them"
            )
        if self.dtype is not None and self.dtype not in DTYPES:
            raise UsageError(f"--dtype {self.dtype}: expected one of {', '.join(DTYPES)}")
        if not 0 <= self.seed < 2**63:
            raise UsageError(f"--seed {self.seed}: expected a whole number from 0 to 2^63 - 1")

    def load(self) -> VideoModel:
        """The model with its LoRA, on its device. Raises CheckpointError, UsageError, SetupError."""
        device = find_device(self.device, "--device")
        if device.type == "cuda":
            torch.cuda.set_device(device)  # events, graphs and kernels go to the current one
        model = load_model(self.export)
        if self.live_loras:
            for path, scale in self.loras:
                add_lora(model, path, scale)
        elif self.loras:
            merge_loras(model, self.loras)
        return model.to(device, DTYPES[self.dtype] if self.dtype else None).channels_last()

    def begin(self, model: VideoModel) -> Stream | SkipStill:
        """The stream on a model from `load`. Raises UsageError, SetupError."""
        steps = self.steps
        if self.strength is not None:
            steps = steps_of(self.strength, len(model.settings.steps))
        stream = Stream(
            model,
            self.prompt,
            size=self.size,
            steps=steps,
            seed=self.seed,
            noise=self.noise,
            mask=self.mask,
            switches=self.switches,
        )
        if self.similar_frame_skip is None:
            return stream
        return SkipStill(stream, self.similar_frame_skip)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def warn_of_long(model: VideoModel, prompts: Sequence[str]) -> None:
    """Say which prompts CLIP cuts off."""
    for prompt in prompts:
        if model.text.is_too_long(prompt):
            start, limit = prompt[:40] + "...", model.settings.text.max_length
            print(
                f"warning: prompt {start!r} is longer than {limit} tokens; its end is cut off",
                file=sys.stderr,
            )


def identity(setup: Setup, model: VideoModel) -> dict[str, dict[str, str]]:
    """What a stream is made of, for a session: hashes of the model's parts and of the LoRA files."""
    return {
        "weights": model.hashes(),
        "loras": {path: sha256_of(Path(path)) for path, _ in setup.loras},
    }


def check_identity(
    recorded: Mapping[str, Mapping[str, str]], setup: Setup, model: VideoModel, name: str
) -> None:
    """Raises DataError unless `identity` gives what was recorded."""
    for kind, values in identity(setup, model).items():
        for key, value in values.items():
            if recorded.get(kind, {}).get(key) != value:
                raise DataError(
                    f"{name}: {key} of {setup.export} is not what it was when this was recorded; "
                    "name the model of then with --model"
                )


def surroundings(device: torch.device) -> dict[str, Any]:
    """What decides the last bits of a picture beside the model: on what and with what it is computed."""
    return {
        "device": str(device),
        "gpu": torch.cuda.get_device_name(device) if device.type == "cuda" else None,
        "threads": torch.get_num_threads(),  # sums are split among them
        "machine": machine.describe("torch", "diffusers"),
    }
