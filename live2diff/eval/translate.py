"""Stream sources through an export, so that there are outputs to measure."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

from live2diff.errors import DataError, UsageError
from live2diff.eval.clips import Clip, open_clip, printable
from live2diff.eval.pairs import Pair
from live2diff.eval.results import Skipped
from live2diff.model.video_model import VideoModel
from live2diff.stream.budget import advise_when_full
from live2diff.stream.fit import Fit
from live2diff.stream.output import open_sink
from live2diff.stream.run import run
from live2diff.stream.setup import Setup, warn_of_long
from live2diff.stream.source import Frame, Source
from live2diff.stream.stopping import Stop
from live2diff.terminal import progress

Outputs = Literal["mp4", "png"]


class Interrupted(Exception):
    """A signal came. `code` is what the command ends with."""

    def __init__(self, code: int):
        super().__init__(code)
        self.code = code


def translate_all(
    clips: Sequence[Clip],
    prompts: Mapping[str, str],
    setup: Setup,
    model: VideoModel,
    folder: Path,
    *,
    how: Fit = "crop",
    outputs: Outputs = "mp4",
    frames: int | None = None,
) -> tuple[list[Pair], list[Skipped]]:
    """Every clip through a stream of its own, written below `folder` under its name.

    Args:
        prompts: by name.
        setup: how every stream begins, but for the prompt.
        model: from `setup.load`.
        outputs: `mp4` is H.264 and small; `png` keeps every bit.
        frames: at most so many of each, from the beginning.

    Returns:
        What there now is to measure, and what could not be read, with the reasons.

    Raises:
        UsageError: a size or steps that cannot be.
        SetupError: the disk is full, or the memory too small.
        Interrupted: Ctrl-C or TERM.
    """
    setup.begin(model)  # what is wrong with the settings is wrong with every clip
    pairs, skipped = [], []
    with Stop() as stop:
        for number, clip in enumerate(clips, start=1):
            if Path(clip.name).is_absolute() or ".." in Path(clip.name).parts:
                skipped.append(Skipped(clip.name, "its name leads out of the folder of the outputs"))
                continue
            output = folder / (clip.name if outputs == "png" else f"{clip.name}.mp4")
            try:
                with open_clip(clip.address) as source, advise_when_full():
                    warn_of_long(model, [prompts[clip.name]])
                    stream = replace(setup, prompt=prompts[clip.name]).begin(model)
                    source.path = None  # outputs have no sound
                    label = f"{number} of {len(clips)}, {printable(clip.name)}"
                    with (
                        progress(label, _fewest(source.frames, frames)) as advance,
                        open_sink(
                            f"{output}/" if outputs == "png" else str(output), source, stream.size
                        ) as sink,
                    ):
                        run(_First(source, frames), stream, sink, how, stop, lambda *_: advance())
                    if stop.signal is not None:
                        raise Interrupted(stop.exit_code)
                    if source.damage is not None:
                        raise source.damage
            except (UsageError, DataError) as error:
                skipped.append(Skipped(clip.name, str(error)))
            else:
                pairs.append(Pair(clip.name, clip.address, str(output), prompts[clip.name]))
    return pairs, skipped


class _First(Source):
    """The first `count` frames of another source; None: all."""

    def __init__(self, source: Source, count: int | None):
        super().__init__(source.name, source.fps, source.time_base)
        self.aspect, self._source, self._count = source.aspect, source, count

    def __iter__(self) -> Iterator[Frame]:
        return itertools.islice(self._source, self._count)


def _fewest(stated: int, wanted: int | None) -> int | None:
    counts = [count for count in (stated, wanted) if count]
    return min(counts) if counts else None
