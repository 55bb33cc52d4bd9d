"""A build whose children are made up: in the same process, at once, without video. For drills of the rest.

Sources are small files of any bytes. "short..." gives a rejection, "still..." a dropped clip, "twice..." two
clips; every other one gives a clip whose file is made of the source's bytes.
"""

from __future__ import annotations

import hashlib
import sys
import time
from pathlib import Path
from typing import Any

from data_prep.config import PrepConfig


class FakeChildren:
    """Stands in for `children.Children`."""

    seconds = 0.0  # per source
    seen: list[str] = []  # paths that were processed

    def __init__(self, config: PrepConfig):
        pass

    def run(self, path: str, folder: Path) -> dict[str, Any]:
        time.sleep(self.seconds)
        self.seen.append(path)
        data = Path(path).read_bytes()
        facts = {
            "frames_decoded": 60,
            "duration_s": 2.5,
            "fps": 24.0,
            "size": [96, 64],
            "rotation": 0,
            "codec": "h264",
            "pixel_format": "yuv420p",
            "transfer": 1,
            "hdr": False,
            "interlaced": False,
            "holes": [],
            "damage": None,
            "damaged_spans": [],
            "cuts": [],
        }
        if data.startswith(b"short"):
            return {"rejected": "too short: 3 frames, a clip needs 16", "facts": facts}
        count = 2 if data.startswith(b"twice") else 1
        clips = [self._clip(data, folder, number) for number in range(count)]
        result: dict[str, Any] = {"facts": facts, "clips": clips, "seconds": {"probe": time.monotonic()}}
        if all(clip["dropped"] for clip in clips):
            result["rejected"] = "all clips dropped: 1 static"
        return result

    def _clip(self, data: bytes, folder: Path, number: int) -> dict[str, Any]:
        name = f"0000_{number:03d}.mp4"
        dropped = "static: motion 0, at least 0.003 is wanted" if data.startswith(b"still") else None
        if not dropped:
            (folder / name).write_bytes(b"clip of " + data * 50)
        fingerprint = hashlib.sha256(data.rstrip(b"+")).hexdigest()[:48]
        return {
            "file": name,
            "shot": 0,
            "clip": number,
            "span_s": [0.0, 2.0],
            "frame_range": [0, 48],
            "frames": 16,
            "repeated": 0,
            "fps": 8.0,
            "size": [64, 64],
            "scores": {"motion": 0.0 if dropped else 0.1, "brightness": 0.5, "fingerprint": fingerprint},
            "dropped": dropped,
        }

    def stop(self) -> None:
        pass


def make_sources(folder: Path, count: int = 12) -> Path:
    """`count` files that the fake children understand, in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        kind = {3: "short", 5: "still", 7: "twice"}.get(number % 12, "good")
        (folder / f"{number:03d}.mp4").write_bytes(f"{kind} {number:03d}".encode())
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below `folder`, hidden ones too."""
    paths = [path for path in folder.rglob("*") if path.is_file()]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


def main() -> int:
    """`python -m tests.data_prep.fake SECONDS SRC... --out DIR ...`: such a build as a process of its own."""
    import data_prep.build
    from live2diff.cli import main as cli

    FakeChildren.seconds = float(sys.argv[1])
    data_prep.build.Children = FakeChildren
    return cli(["data", "build", *sys.argv[2:]])


if __name__ == "__main__":
    sys.exit(main())
