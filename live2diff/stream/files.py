"""Translate a video file or a camera into a video file, a folder of pictures or a pipe; play it again."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack, redirect_stdout
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from live2diff.errors import DataError, UsageError
from live2diff.interop.lora import lora_names
from live2diff.model.video_model import VideoModel
from live2diff.stream.budget import advise_when_full
from live2diff.stream.cuts import LiveCuts
from live2diff.stream.engine import Stream
from live2diff.stream.fit import Fit
from live2diff.stream.output import PIPE, check_output, open_sink
from live2diff.stream.run import run
from live2diff.stream.script import Change, Cue, Script
from live2diff.stream.session import Recorder, Session, check_session_folder
from live2diff.stream.setup import Setup, check_identity, identity, surroundings, warn_of_long
from live2diff.stream.side_by_side import Strip, save_side_by_side
from live2diff.stream.sink import NoSink, Sink
from live2diff.stream.source import Frame, Source, open_source
from live2diff.stream.still import SkipStill
from live2diff.stream.stopping import Stop
from live2diff.terminal import progress


def translate(
    setup: Setup,
    input: str | Path,
    output: str | Path,
    *,
    how: Fit = "crop",
    cues: Sequence[Cue] = (),
    on_cut: Literal["keep", "rewarm"] = "keep",
    record: str | Path | None = None,
    side_by_side: str | Path | None = None,
    overwrite: bool = False,
) -> int:
    """Stream `input` through a model and write as many frames, at the same times, to `output`.

    Where the input is damaged, and at Ctrl-C or TERM, the frames until then are kept.

    Args:
        setup: the model, and how the stream begins.
        input: a video file, or "camera:N".
        output: an .mp4 or .mkv, a folder for numbered PNGs, or "-" for YUV4MPEG2 on standard output.
        how: whether frames of another shape are cropped, padded or stretched to the stream's size.
        cues: what changes when.
        on_cut: whether a cut in the input lets the stream begin anew: the next Lw frames are gathered and
            come out together.
        record: a folder for the session, to be played again with `replay`.
        side_by_side: also write a PNG with input frames above output frames.

    Returns:
        0, or 128 + the number of the signal that ended it early.

    Raises:
        UsageError: an input that cannot be read or is damaged, an output that is taken, a wrong value.
        CheckpointError: an export or a LoRA that cannot be loaded.
        SetupError: no such camera or device, the disk is full, or the memory too small.
    """
    input, output = str(input), str(output)
    check_output(output, input, overwrite)
    _check_picture(side_by_side, overwrite)
    if record is not None:
        check_session_folder(record)
    with ExitStack() as stack:
        if output == PIPE:  # it carries frames only
            stack.enter_context(redirect_stdout(sys.stderr))
        source = stack.enter_context(open_source(input))
        with advise_when_full():
            model = setup.load()
            stream = setup.begin(model)
        warn_of_long(model, [setup.prompt, *(cue.change.prompt or "" for cue in cues)])
        _check_loras(model, cues)
        script = Script(cues)
        cuts = LiveCuts(stream.warmup) if on_cut == "rewarm" else None

        def changes(number: int, frame: Frame) -> Iterable[Change]:
            if cuts is not None and cuts.see(frame.picture):
                yield Change(memory="restart")
            yield from script.due(number, frame.moment.time)

        recorder = None
        if record is not None:
            found = {
                "export": str(Path(setup.export).absolute()),
                "loras": tuple((str(Path(path).absolute()), scale) for path, scale in setup.loras),
            }
            facts = {
                "setup": replace(setup, **found).to_dict(),
                "identity": identity(setup, model),
                "input": input,
                **surroundings(model.device),
            }
            recorder = stack.enter_context(Recorder(record, facts, stream.size, source))
        code = _play(source, stream, stack, output, how, changes, recorder, side_by_side, lambda *_: None)
        if script.left:
            _warn(f"the input ended before {script.left} of the changes asked for")
        if record is not None:
            print(f"{record}: the session; play it again with live2diff stream replay {record}")
        elif code == 0 and output != PIPE:
            print("next: another --prompt, --strength (less stays closer to the input) or --seed")
        return code


def replay(
    folder: str | Path,
    output: str | Path | None = None,
    *,
    export: str | None = None,
    device: str | None = None,
    overwrite: bool = False,
) -> int:
    """Play a recorded session again, and check that every frame comes out as it did, bit for bit.

    Args:
        output: as for `translate`, without sound; None only compares.
        export: where the model lies now, if not where it lay.
        device: another device than the recorded one.

    Returns:
        0, or 128 + the number of the signal that ended it early.

    Raises:
        UsageError: no session lies there, or an output that is taken.
        DataError: it is damaged, the model is another one, or a frame comes out different.
        CheckpointError, SetupError: as `translate`.
    """
    if output is not None:
        check_output(str(output), str(folder), overwrite)
    with ExitStack() as stack:
        if output == PIPE:
            stack.enter_context(redirect_stdout(sys.stderr))
        session = stack.enter_context(Session(folder))
        setup = session.setup()
        setup = replace(setup, export=export or setup.export, device=device or session.device)
        torch.set_num_threads(session.threads)
        with advise_when_full():
            model = setup.load()
            check_identity(session.facts.get("identity", {}), setup, model, str(folder))
            session.check_loras(lora_names(model))
            try:
                stream = setup.begin(model)
            except UsageError as error:  # not what the user asked for, but what was recorded
                raise DataError(f"{folder}: its setup cannot be used ({error}); record it again") from error
        here, compared = surroundings(model.device), 0

        def compare(_: np.ndarray, after: np.ndarray) -> None:
            nonlocal compared
            session.check(compared, after, here)
            compared += 1

        def changes(number: int, _: Frame) -> Iterable[Change]:
            return session.changes(number)

        code = _play(session, stream, stack, output, "stretch", changes, None, None, compare)
        same = min(compared, session.outputs)
        print(f"{folder}: {same} of {session.outputs} recorded frames came out again, bit for bit")
        return code


def _play(
    source: Source,
    stream: Stream | SkipStill,
    stack: ExitStack,
    output: str | Path | None,
    how: Fit,
    changes: Callable[[int, Frame], Iterable[Change]],
    recorder: Recorder | None,
    side_by_side: str | Path | None,
    also: Callable[[np.ndarray, np.ndarray], None],
) -> int:
    """Run to the end, a signal or the damage, and say what came of it; returns the exit code."""
    stop = stack.enter_context(Stop())
    strip, start = Strip(), time.monotonic()
    sink: Sink | None = None
    try:
        with advise_when_full(), progress("streaming", source.frames or None) as advance:

            def see(before: np.ndarray, after: np.ndarray) -> None:
                advance()
                also(before, after)
                if side_by_side is not None:
                    strip.add(np.concatenate([before, after]))

            if output is None:
                sink = NoSink()
                run(source, stream, sink, how, stop, see, changes, recorder)
            else:
                with open_sink(str(output), source, stream.size) as sink:
                    run(source, stream, sink, how, stop, see, changes, recorder)
    finally:
        if sink is not None and sink.count:
            _report(sink, stream, time.monotonic() - start)
    if side_by_side is not None and sink.count:
        save_side_by_side(side_by_side, strip.row())
        print(f"{side_by_side}: input above output")
    if source.concealed:
        _warn(
            f"{source.name}: {source.concealed} of its frames are damaged; the decoder mended what it could"
        )
    if source.damage is not None:
        raise source.damage
    if stop.signal is not None:
        print(f"stopped early; {'what was done is kept' if sink.count else 'nothing was done yet'}")
    return stop.exit_code


def _report(sink: Sink, stream: Stream | SkipStill, seconds: float) -> None:
    (width, height), about = stream.size, f", {sink.about}" if sink.about else ""
    if isinstance(stream, SkipStill):
        about += f", {stream.skipped} of them similar to the one before and not denoised"
    print(
        f"{sink.name}: {sink.count} frames of {width}x{height}, {float(sink.end):.1f} s{about}; "
        f"took {seconds:.1f} s, {sink.count / seconds:.1f} frames per second"
    )


def _check_loras(model: VideoModel, cues: Sequence[Cue]) -> None:
    known = lora_names(model)
    for name in (name for cue in cues for name in cue.change.loras):
        if name not in known:
            raise UsageError(f"--lora-at: no LoRA is called {name!r}; there are {', '.join(known) or 'none'}")


def _warn(text: str) -> None:
    print(f"warning: {text}", file=sys.stderr)


def _check_picture(path: str | Path | None, overwrite: bool) -> None:
    if path is None:
        return
    if Path(path).suffix.lower() != ".png":
        raise UsageError(f"{path}: must be named .png")
    if Path(path).exists() and not overwrite:
        raise UsageError(f"{path}: exists already; choose another name or add --overwrite")
