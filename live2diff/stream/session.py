"""A stream that can be played again, bit for bit: what went in, what was changed when, what came out.

    SESSION/session.json    the model and its hashes, the stream's settings, the machine; written first
    SESSION/frames.mkv      every frame as the stream took it, lossless (FFV1)
    SESSION/log.jsonl       in order: {"change": ...}, {"frame": [time, duration]}, {"out": SHA-256}

What was logged before a kill can be replayed.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

from live2diff.errors import DataError, UsageError
from live2diff.files import write_json
from live2diff.stream import session_form as form
from live2diff.stream.script import Change
from live2diff.stream.setup import Setup
from live2diff.stream.source import Frame, Moment, Source
from live2diff.video import DECODE_ERRORS, VideoReader, reason

_FACTS, _FRAMES, _LOG = "session.json", "frames.mkv", "log.jsonl"
_FORMAT = 1


class Recorder:
    """Writes a session while it happens. Use as a context manager.

    Args:
        folder: made; must be empty or absent.
        facts: what `session.json` says beside the format: plain JSON values.
        size: (width, height) of the frames.
        source: its frame rate is noted.
    """

    def __init__(self, folder: str | Path, facts: Mapping[str, Any], size: tuple[int, int], source: Source):
        folder = Path(folder)
        check_session_folder(folder)
        folder.mkdir(parents=True, exist_ok=True)
        rate = [str(source.fps), str(source.time_base)]
        write_json(folder / _FACTS, {"format": _FORMAT, "size": size, "rate": rate, **facts})
        with ExitStack() as stack:
            self._log = stack.enter_context(open(folder / _LOG, "w", encoding="utf-8"))
            # What a kill leaves can be read: every picture is on its way to the disk before its log line.
            options = {"flush_packets": "1", "cluster_time_limit": "0"}
            self._video = stack.enter_context(av.open(str(folder / _FRAMES), "w", options=options))
            self._stream = self._video.add_stream("ffv1", rate=25)  # the log has the times
            self._stream.width, self._stream.height = size
            self._stream.pix_fmt = "bgr0"
            self._closing = stack.pop_all()

    def change(self, change: Change) -> None:
        self._write({"change": change.to_dict()})

    def frame(self, picture: np.ndarray, moment: Moment) -> None:
        """The next frame goes in."""
        planes = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
        self._video.mux(self._stream.encode(planes.reformat(format="bgr0")))
        self._write({"frame": [str(moment.time), str(moment.duration)]})

    def out(self, picture: np.ndarray) -> None:
        """The next frame has come out."""
        self._write({"out": _hash(picture)})

    def _write(self, line: Mapping[str, Any]) -> None:
        self._log.write(json.dumps(line) + "\n")
        self._log.flush()

    def __enter__(self) -> Recorder:
        return self

    def __exit__(self, *_: object) -> None:
        self._video.mux(self._stream.encode(None))
        self._closing.close()


class Session(Source):
    """A recorded session as a source: its frames, with the changes and outputs that belong to them.

    Attributes:
        facts: what `session.json` says.

    Raises:
        UsageError: no session lies there.
        DataError: it is damaged, or of a later version.
    """

    def __init__(self, folder: str | Path):
        self._folder = Path(folder)
        if not (self._folder / _FACTS).is_file():
            raise UsageError(f"{folder}: is no recorded session (no {_FACTS})")
        try:
            self.facts = self._read_facts()
            super().__init__(str(folder), *self._rate())
            self._read_log()
        except (OSError, ValueError, RecursionError) as error:
            raise DataError(f"{folder}: is damaged ({error}); record it again") from error
        self.frames = len(self._moments)

    def __iter__(self) -> Iterator[Frame]:
        count = 0
        try:
            with VideoReader(self._folder / _FRAMES) as pictures:
                for picture, moment in zip(pictures, self._moments, strict=False):
                    yield Frame(picture, moment)
                    count += 1
        except (UsageError, *DECODE_ERRORS) as error:
            self.damage = DataError(
                f"{self._folder / _FRAMES}: damaged after frame {count} ({reason(error)})"
            )

    def setup(self) -> Setup:
        """How the stream began. Raises DataError."""
        try:
            return form.setup_of(self.facts["setup"])
        except (ValueError, UsageError) as error:
            raise DataError(
                f"{self._folder / _FACTS}: setup cannot be used ({error}); record it again"
            ) from error

    @property
    def device(self) -> str:
        """The device it was recorded on."""
        return self.facts.get("device", "auto")

    @property
    def threads(self) -> int:
        """Of the processor, when it was recorded."""
        return self.facts.get("threads", 1)

    def changes(self, frame: int) -> list[Change]:
        """What was changed before frame number `frame`, from 0."""
        return self._changes.get(frame, [])

    def check(self, number: int, picture: np.ndarray, here: Mapping[str, Any]) -> None:
        """Raises DataError unless output `number` is the recorded one, bit for bit.

        Args:
            here: `surroundings` of now; what is not as it was then is named.
        """
        if number < len(self._outputs) and self._outputs[number] != _hash(picture):
            then, now = _conditions(self.facts), _conditions(here)
            changed = [
                f"{key} was {form.shown(then[key])}, now {now[key]}" for key in now if then[key] != now[key]
            ]
            why = "; ".join(changed) or "device, threads and versions are those of then, the session is not"
            raise DataError(f"{self._folder}: frame {number} came out different from the recording: {why}")

    def check_loras(self, known: Sequence[str]) -> None:
        """Raises DataError when it changes a LoRA that the model does not have."""
        for change in (change for changes in self._changes.values() for change in changes):
            if odd := sorted(set(change.loras) - set(known)):
                raise DataError(
                    f"{self._folder / _LOG}: changes a LoRA {ascii(odd[0])} that it does not name"
                )

    @property
    def outputs(self) -> int:
        """Frames that came out while it was recorded."""
        return len(self._outputs)

    def _read_facts(self) -> dict[str, Any]:
        facts = form.read((self._folder / _FACTS).read_text(encoding="utf-8"))
        if isinstance(facts, dict) and facts.get("format") != _FORMAT:
            raise DataError(f"{self._folder}: is a session of another format; update live2diff")
        form.check_facts(facts)
        return facts

    def _rate(self) -> tuple[Fraction, Fraction]:
        """Frames per second, within what a source may have, and the time base."""
        fps, time_base = self.facts["rate"]
        return (
            form.fraction(fps, Fraction(1, 10), Fraction(240)),
            form.fraction(time_base, Fraction(1, 10**9), Fraction(10)),
        )

    def _read_log(self) -> None:
        self._moments: list[Moment] = []
        self._outputs: list[str] = []
        self._changes: dict[int, list[Change]] = {}  # by the number of the frame they come before
        lines = (self._folder / _LOG).read_text(encoding="utf-8").split("\n")
        for line in map(form.read, lines[:-1]):  # a kill tears the last one
            kind, value = form.entry(line)
            if kind == "frame":
                self._moments.append(self._moment(value))
            elif kind == "out":
                self._outputs.append(value)
            else:
                self._changes.setdefault(len(self._moments), []).append(form.change_of(value))

    def _moment(self, parts: Sequence[str]) -> Moment:
        time, duration = (form.fraction(part, Fraction(0), Fraction(10**9)) for part in parts)
        if self._moments and time <= self._moments[-1].time:
            raise ValueError(f"frame {len(self._moments)} is shown before the one before it")
        return Moment(time, duration)


def _conditions(facts: Mapping[str, Any]) -> dict[str, Any]:
    """What `surroundings` found, one value a key."""
    found = facts.get("machine", {})
    versions = found.get("versions")
    versions = versions if isinstance(versions, dict) else {}
    return {
        "device": facts.get("gpu") or facts.get("device"),
        "processor": found.get("cpu"),
        "threads": facts.get("threads"),
        **{library: versions.get(library) for library in ("torch", "diffusers")},
    }


def check_session_folder(folder: str | Path) -> None:
    """Raises UsageError unless a session can be recorded in `folder`."""
    folder = Path(folder)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError(f"--record {folder}: is not an empty folder; choose another name")


def _hash(picture: np.ndarray) -> str:
    return hashlib.sha256(np.ascontiguousarray(picture).tobytes()).hexdigest()
