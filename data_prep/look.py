"""Look into finished clips: decode every frame, in a child process, because a dataset may come from anyone.

A clip that takes too long is given up, one that crashes the decoder costs the child; the next clip gets a new
one. Clips are read out of their tar; no other file can be opened through them.
"""

from __future__ import annotations

import base64
import io
import json
import math
import os
import resource
import select
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from data_prep.members import Place, read_member

_MEMORY_MB = 3072  # address space of the child, MiB


@dataclass(frozen=True)
class Look:
    """What decoding all of a clip showed.

    Attributes:
        fault: why it cannot be trusted, or None; then the rest holds.
        frames, fps, size: their number, frames per second, (width, height) in pixels.
        codec, pixel_format: names.
        streams: of any kind; a clip has one.
        gop: longest distance between two key frames, frames.
        pictures: encoded pictures of the frames asked for, by number.
    """

    fault: str | None = None
    frames: int = 0
    fps: float = 0.0
    size: tuple[int, int] = (0, 0)
    codec: str = ""
    pixel_format: str = ""
    streams: int = 0
    gop: int = 0
    pictures: dict[int, bytes] = field(default_factory=dict)


class Looker:
    """Decodes clips one after another; use as a context manager, which ends the child.

    Args:
        cpu_s: processor seconds for one clip; one of ten seconds takes less than one.
        wall_s: seconds by the clock. Generous: the machine may be busy with other things.
    """

    def __init__(self, cpu_s: int = 20, wall_s: float = 300.0):
        self._cpu_s, self._wall_s = cpu_s, wall_s
        self._child: subprocess.Popen | None = None

    def __call__(
        self,
        tar_path: Path,
        place: Place,
        frames: Sequence[int] = (),
        side: int | None = None,
        kind: str = "jpeg",
    ) -> Look:
        """Decode the clip at `place` of a tar.

        Args:
            frames: numbers of the frames whose pictures are wanted.
            side: short side of the pictures, pixels; None: as they are.
            kind: "jpeg" or "png".
        """
        job = {
            "tar": str(tar_path),
            "place": list(place),
            "frames": list(frames),
            "side": side,
            "kind": kind,
            "cpu_s": self._cpu_s,
        }
        child = self._child = self._child or self._start()
        assert child.stdin
        try:
            child.stdin.write(json.dumps(job).encode() + b"\n")
            child.stdin.flush()
            line = self._line(child)
        except BrokenPipeError:
            line = b""
        if line and line.endswith(b"\n"):
            answer: dict[str, Any] = json.loads(line)
            pictures = {
                int(number): base64.b64decode(data) for number, data in answer.pop("pictures", {}).items()
            }
            return Look(**{**answer, "size": tuple(answer.get("size", (0, 0)))}, pictures=pictures)
        self.close()
        if line is None or child.returncode == -signal.SIGXCPU:
            limit = f"{self._wall_s:g} s" if line is None else f"{self._cpu_s} processor seconds"
            return Look(f"takes longer than {limit} to decode")
        return Look("crashes the decoder")

    def _line(self, child: subprocess.Popen) -> bytes | None:
        """The child's answer; incomplete if it died, None if time ran out."""
        assert child.stdout
        deadline, parts = time.monotonic() + self._wall_s, []
        while True:
            ready, _, _ = select.select([child.stdout], [], [], max(0.0, deadline - time.monotonic()))
            if not ready:
                return None
            part = os.read(child.stdout.fileno(), 1 << 20)
            parts.append(part)
            if not part or part.endswith(b"\n"):
                return b"".join(parts)

    def _start(self) -> subprocess.Popen:
        paths = [str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
        return subprocess.Popen(
            [sys.executable, "-m", "data_prep.look", str(os.getpid())],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths)), "OMP_NUM_THREADS": "1"},
            start_new_session=True,
        )

    def close(self) -> None:
        child, self._child = self._child, None
        if child:
            with suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
            child.communicate()

    def __enter__(self) -> Looker:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def look(data: bytes, frames: Sequence[int], side: int | None, kind: str) -> dict[str, Any]:
    """Decode an MP4 from memory; the fields of `Look`, as JSON has them. Runs in the child."""
    import av
    import cv2

    from data_prep.decode import picture, short_side

    wanted, pictures = set(frames), {}
    with av.open(io.BytesIO(data), format="mp4", options={"protocol_whitelist": "none"}) as container:
        if not container.streams.video:
            return {"fault": "holds no video"}
        stream = container.streams.video[0]
        stream.thread_type = "NONE"
        rate, base = stream.average_rate, stream.time_base
        if not rate or not base:
            return {"fault": "states no frame rate"}
        begin, size, count, key, gop = stream.start_time or 0, None, 0, 0, 1
        for number, frame in enumerate(container.decode(stream)):
            size = size or (frame.width, frame.height)
            if frame.is_corrupt or size != (frame.width, frame.height):
                return {"fault": f"frame {number} is damaged"}
            if frame.pts is None or round((frame.pts - begin) * base * rate) != number:
                return {"fault": f"frame {number} is not at its time: the frame rate is not constant"}
            if frame.key_frame:
                key = number
            gop = max(gop, number - key + 1)
            if number in wanted:
                shown = short_side(size, side) if side else size
                pixels = picture(frame, shown, turns=0, pixels="bgr24")
                _, encoded = cv2.imencode(f".{kind}", pixels, [cv2.IMWRITE_JPEG_QUALITY, 78])
                pictures[number] = base64.b64encode(encoded.tobytes()).decode()
            count += 1
        if not count:
            return {"fault": "holds no frame that decodes"}
        return {
            "frames": count,
            "fps": float(rate),
            "size": size,
            "codec": stream.codec_context.name,
            "pixel_format": stream.codec_context.pix_fmt or "",
            "streams": len(container.streams),
            "gop": gop,
            "pictures": pictures,
        }


def _answer(job: dict[str, Any]) -> dict[str, Any]:
    try:
        data = read_member(Path(job["tar"]), tuple(job["place"]))
        return look(data, job["frames"], job["side"], job["kind"])
    except MemoryError:
        return {"fault": f"needs too much memory: more than {_MEMORY_MB} MiB"}
    except Exception as error:  # decoders raise a dozen kinds on bytes that are not theirs
        words = " ".join(str(getattr(error, "strerror", None) or error).split())
        return {"fault": f"does not decode ({words or type(error).__name__})"}


def main() -> None:
    """Read jobs from standard input, a JSON object per line, and answer each with a line."""
    import av.logging

    from data_prep.worker import limit_process

    limit_process(int(sys.argv[1]), _MEMORY_MB, seconds=None)  # see below
    av.logging.set_level(av.logging.PANIC)
    for line in sys.stdin.buffer:
        job = json.loads(line)
        # Counted from the start of the process; beyond it, the system ends this process.
        limit = math.ceil(time.process_time()) + job["cpu_s"]
        resource.setrlimit(resource.RLIMIT_CPU, (limit, resource.getrlimit(resource.RLIMIT_CPU)[1]))
        sys.stdout.buffer.write(json.dumps(_answer(job)).encode() + b"\n")
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
