"""A stream that can be played again, bit for bit: what went in, what was changed when, what came out.

    SESSION/session.json    the model and its hashes, the stream's settings, the machine; written first
    SESSION/frames.mkv      every frame as the stream took it, lossless (FFV1)
    SESSION/log.jsonl       in order: {"change": ...}, {"frame": [time, duration]}, {"out": SHA-256}

What was logged before a kill can be replayed.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

from live2diff.errors import DataError, UsageError
from live2diff.files import write_json
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
            self.facts: dict[str, Any] = json.loads((self._folder / _FACTS).read_text(encoding="utf-8"))
            if self.facts["format"] != _FORMAT:
                raise DataError(f"{folder}: is a session of format {self.facts['format']}; update live2diff")
            rate = [Fraction(text) for text in self.facts["rate"]]
            lines = (self._folder / _LOG).read_text(encoding="utf-8").splitlines(keepends=True)
            self._lines = [json.loads(line) for line in lines if line.endswith("\n")]  # a kill tears the last
            super().__init__(str(folder), *rate)
            self._moments = [
                Moment(*(Fraction(text) for text in line["frame"])) for line in self._lines if "frame" in line
            ]
            self._outputs = [str(line["out"]) for line in self._lines if "out" in line]
            self._changes = self._read_changes()
        except (
            OSError,
            ValueError,
            KeyError,
            TypeError,
            ZeroDivisionError,
            AttributeError,
            RecursionError,
            OverflowError,
        ) as error:
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
            return Setup.from_dict(self.facts["setup"])
        except (KeyError, TypeError, ValueError, UsageError) as error:
            raise DataError(
                f"{self._folder / _FACTS}: setup cannot be used ({error}); record it again"
            ) from error

    @property
    def device(self) -> str:
        """The device it was recorded on."""
        return str(self.facts.get("device", "auto"))

    @property
    def threads(self) -> int:
        """Of the processor, when it was recorded."""
        threads = self.facts.get("threads")
        return threads if type(threads) is int and 1 <= threads <= 1024 else 1

    def changes(self, frame: int) -> list[Change]:
        """What was changed before frame number `frame`, from 0."""
        return self._changes.get(frame, [])

    def check(self, number: int, picture: np.ndarray) -> None:
        """Raises DataError unless output `number` is the recorded one, bit for bit."""
        if number < len(self._outputs) and self._outputs[number] != _hash(picture):
            recorded = self.facts.get("machine", {})
            raise DataError(
                f"{self._folder}: frame {number} came out different from the recording, which was made with "
                f"torch {recorded.get('versions', {}).get('torch')} on {self.facts.get('device')} "
                f"({recorded.get('cpu')}); only the same device and versions give the same bits"
            )

    @property
    def outputs(self) -> int:
        """Frames that came out while it was recorded."""
        return len(self._outputs)

    def _read_changes(self) -> dict[int, list[Change]]:
        changes: dict[int, list[Change]] = {}
        frame = 0
        for line in self._lines:
            frame += "frame" in line
            if "change" in line:
                changes.setdefault(frame, []).append(Change(**line["change"]))
        return changes


def check_session_folder(folder: str | Path) -> None:
    """Raises UsageError unless a session can be recorded in `folder`."""
    folder = Path(folder)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError(f"--record {folder}: is not an empty folder; choose another name")


def _hash(picture: np.ndarray) -> str:
    return hashlib.sha256(np.ascontiguousarray(picture).tobytes()).hexdigest()
