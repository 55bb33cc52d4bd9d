"""Translate a video file or a camera into a video file, a folder of pictures or a pipe."""

from __future__ import annotations

import re
import sys
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import ExitStack, redirect_stdout
from pathlib import Path

import numpy as np
import torch

from live2diff.errors import SetupError, UsageError
from live2diff.model.build import load_model
from live2diff.stream.engine import Noise, Stream
from live2diff.stream.fit import Fit, fit
from live2diff.stream.output import PIPE, check_output, open_sink
from live2diff.stream.side_by_side import Strip, save_side_by_side
from live2diff.stream.sink import Sink
from live2diff.stream.source import Frame, Source, open_source
from live2diff.stream.stopping import Stop
from live2diff.stream.strength import steps_of
from live2diff.terminal import progress


def translate(
    export: str | Path,
    input: str | Path,
    output: str | Path,
    *,
    prompt: str = "",
    steps: tuple[int, ...] | None = None,
    strength: float | None = None,
    size: tuple[int, int] | None = None,
    how: Fit = "crop",
    seed: int = 0,
    noise: Noise = "fresh",
    device: str = "auto",
    side_by_side: str | Path | None = None,
    overwrite: bool = False,
) -> int:
    """Stream `input` through the model in `export` and write as many frames, at the same times, to `output`.

    Where the input is damaged, and at Ctrl-C or TERM, the frames until then are kept. See `Stream` for the
    arguments not listed.

    Args:
        input: a video file, or "camera:N".
        output: an .mp4 or .mkv, a folder for numbered PNGs, or "-" for YUV4MPEG2 on standard output.
        steps, strength: one of them, or neither for the model's steps; see `steps_of`.
        how: whether frames of another shape are cropped, padded or stretched to `size`.
        device: "auto" takes a GPU when there is one.
        side_by_side: also write a PNG with input frames above output frames.

    Returns:
        0, or 128 + the number of the signal that ended it early.

    Raises:
        UsageError: an input that cannot be read or is damaged, an output that is taken, a wrong value.
        CheckpointError: an export that cannot be loaded.
        SetupError: no such camera or device, or the disk is full.
    """
    input, output = str(input), str(output)
    check_output(output, input, overwrite)
    _check_picture(side_by_side, overwrite)
    if steps is not None and strength is not None:
        raise UsageError("--steps and --strength: both say how far to go from the input; give one of them")
    if not 0 <= seed < 2**63:
        raise UsageError(f"--seed {seed}: expected a whole number from 0 to 2^63 - 1")
    with ExitStack() as stack:
        if output == PIPE:  # it carries frames only
            stack.enter_context(redirect_stdout(sys.stderr))
        source = stack.enter_context(open_source(input))
        model = load_model(export).to(_device(device))
        if model.text.is_too_long(prompt):
            _warn(f"the prompt is longer than {model.settings.text.max_length} tokens; its end is cut off")
        if strength is not None:
            steps = steps_of(strength, len(model.settings.steps))
        stream = Stream(model, prompt, size=size, steps=steps, seed=seed, noise=noise)

        stop = stack.enter_context(Stop())
        strip, start = Strip(), time.monotonic()
        sink: Sink | None = None
        try:
            with progress("streaming", source.frames or None) as advance:

                def see(before: np.ndarray, after: np.ndarray) -> None:
                    advance()
                    if side_by_side is not None:
                        strip.add(np.concatenate([before, after]))

                with open_sink(output, source, stream.size) as sink:
                    run(source, stream, sink, how, stop, see)
        finally:
            if sink is not None and sink.count:
                _report(sink, stream.size, time.monotonic() - start)
        if side_by_side is not None and sink.count:
            save_side_by_side(side_by_side, strip.row())
            print(f"{side_by_side}: input above output")
        if source.concealed:
            _warn(f"{input}: {source.concealed} of its frames are damaged; the decoder mended what it could")
        if source.damage is not None:
            raise source.damage
        if stop.signal is not None:
            print(f"stopped early; {'what was done is kept' if sink.count else 'nothing was done yet'}")
        elif output != PIPE:
            print("next: another --prompt, --strength (less stays closer to the input) or --seed")
        return stop.exit_code


def run(
    source: Source,
    stream: Stream,
    sink: Sink,
    how: Fit = "crop",
    stop: Stop | None = None,
    see: Callable[[np.ndarray, np.ndarray], None] = lambda before, after: None,
) -> None:
    """Every frame of `source` through `stream` into `sink`, in order, shown when it was shown.

    If the source has fewer frames than the warm-up takes, its last one is held for the rest; as many come out
    as it has.

    Args:
        stop: when a signal came, ends between two frames; the frames in the pipeline are lost.
        see: called with every fitted input picture and what came of it, both uint8 RGB (H, W, 3).
    """
    waiting: deque[Frame] = deque()  # what is in the pipeline

    def write(pictures: Sequence[np.ndarray]) -> None:
        for picture in pictures:
            before = waiting.popleft()
            sink.write(Frame(picture, before.moment))
            see(before.picture, picture)

    pushed = 0
    for frame in source:
        if stop is not None and stop.signal is not None:
            return
        waiting.append(Frame(fit(frame.picture, stream.size, how, source.aspect), frame.moment))
        write(stream.push(waiting[-1].picture))
        pushed += 1
    if pushed < stream.warmup:
        short = f"has {pushed} frames, the warm-up takes {stream.warmup}"
        _warn(f"{source.name}: {short}; the last is held for it")
        held = [stream.push(waiting[-1].picture) for _ in range(pushed, stream.warmup)]
        write(held[-1][:pushed])
    write(stream.flush())


def _report(sink: Sink, size: tuple[int, int], seconds: float) -> None:
    about = f", {sink.about}" if sink.about else ""
    print(
        f"{sink.name}: {sink.count} frames of {size[0]}x{size[1]}, {float(sink.end):.1f} s{about}; "
        f"took {seconds:.1f} s, {sink.count / seconds:.1f} frames per second"
    )


def _warn(text: str) -> None:
    print(f"warning: {text}", file=sys.stderr)


def _check_picture(path: str | Path | None, overwrite: bool) -> None:
    if path is None:
        return
    if Path(path).suffix.lower() != ".png":
        raise UsageError(f"{path}: must be named .png")
    if Path(path).exists() and not overwrite:
        raise UsageError(f"{path}: exists already; choose another name or add --overwrite")


def _device(name: str) -> torch.device:
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name not in ("cpu", "cuda") and not re.fullmatch(r"cuda:\d", name):
        raise UsageError(f"--device {name}: expected auto, cpu, cuda or cuda:N")
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise SetupError(f"--device {name}: no CUDA GPU is visible; use --device cpu")
    if int(name.partition(":")[2] or 0) >= max(1, torch.cuda.device_count()):
        raise SetupError(f"--device {name}: there are {torch.cuda.device_count()} GPUs, counted from 0")
    return torch.device(name)
