"""Bits are flipped, pieces cut out, ends cut off: every file ends as clips or as a reason, whatever it was.

Nothing a mutated file does may be taken for a bug of ours, stop the parent, or let memory grow.
"""

import random
import resource
import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from data_prep.children import Children
from data_prep.config import PrepConfig
from live2diff.errors import SetupError
from live2diff.video import VideoReader
from tests.data_prep.filters.pictures import pan
from tests.data_prep.videos import write_gops


def mutate(data: bytes, rng: random.Random) -> bytes:
    """`data` with 1 to 100 flipped bits, a piece overwritten, cut out or doubled, or its end missing."""
    out = bytearray(data)
    kind = rng.choice(("bits", "bits", "header", "noise", "cut", "double", "end"))
    place = rng.randrange(len(out))
    piece = slice(place, place + rng.randrange(1, max(2, len(out) // 20)))
    if kind in ("bits", "header"):
        # Headers are where a reader is led astray: sizes, counts and offsets, at either end of a file.
        span = len(out) if kind == "bits" else min(4096, len(out))
        offset = 0 if kind == "bits" or rng.random() < 0.5 else len(out) - span
        for _ in range(rng.choice((1, 10, 100))):
            out[offset + rng.randrange(span)] ^= 1 << rng.randrange(8)
    elif kind == "noise":
        out[piece] = rng.randbytes(len(out[piece]))
    elif kind == "cut":
        del out[piece]
    elif kind == "double":
        out[place:place] = out[piece]
    else:
        del out[place:]
    return bytes(out)


def drill(sources: list[Path], count: int, folder: Path, config: PrepConfig) -> dict[str, int]:
    """Process `count` mutations of `sources`, two at a time; returns how many ended in which way."""
    children, rng = Children(config), random.Random(0)
    jobs = [(number, rng.choice(sources), rng.randrange(2**32)) for number in range(count)]

    def run(job: tuple[int, Path, int]) -> str:
        number, source, seed = job
        place = folder / str(number)
        place.mkdir()
        path = place / f"in{source.suffix}"
        path.write_bytes(mutate(source.read_bytes(), random.Random(seed)))
        try:
            result = children.run(str(path), place)
        except SetupError as error:
            return f"BUG {source.name} {seed} {error}"
        clips = result.get("clips", [])
        written = {clip["file"] for clip in clips if not clip["dropped"]}
        assert {found.name for found in place.glob("0*.mp4")} == written, (source.name, seed)
        assert bool(result.get("rejected")) != bool(written), (source.name, seed)
        for name in written:
            with VideoReader(place / name) as reader:
                (frames,) = {clip["frames"] for clip in clips if clip["file"] == name}
                assert sum(1 for _ in reader) == frames >= config.min_frames, (source.name, seed)
        shutil.rmtree(place)
        if written:
            return "damaged clips" if result["facts"]["damage"] else "clips"
        return result["rejected"].partition(":")[0]

    endings: dict[str, int] = {}
    with ThreadPoolExecutor(2) as pool:
        for ending in pool.map(run, jobs):
            endings[ending] = endings.get(ending, 0) + 1
    assert not [ending for ending in endings if ending.startswith("BUG")]
    return endings


def test_mutations_of_small_files(tmp_path: Path, tiny):
    frames = pan(3, 24, 0.3)
    sources = []
    for name, codec, b_frames in (
        ("a.mp4", "libx264", 3),
        ("b.mkv", "libx264", 0),
        ("c.avi", "mpeg4", 0),
        ("d.ts", "libx264", 3),
        ("e.mpg", "mpeg2video", 2),
    ):
        write_gops(tmp_path / name, frames, gop=12, b_frames=b_frames, codec=codec)
        sources.append(tmp_path / name)
    endings = drill(sources, 20, tmp_path, tiny)
    assert sum(endings.values()) == 20 and "hangs" not in endings
    assert endings["damaged clips"] >= 3 and len(endings) >= 3


@pytest.mark.slow
def test_mutations_of_real_files(shared: Path, tmp_path: Path, tiny):
    """300 of them; the parent's memory does not grow, no child needs a gigabyte."""
    sources = sorted((shared / "data/videos").glob("*.*"))
    sources = [path for path in sources if path.suffix != ".tsv" and path.stat().st_size < 2_000_000]
    process = psutil.Process()
    before = process.memory_info().rss
    endings = drill(sources, 300, tmp_path, replace(tiny, timeout_s=120.0))
    grown = (process.memory_info().rss - before) / 2**20
    largest = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**10
    print(f"\n{endings}; the parent grew by {grown:.0f} MiB, the largest child had {largest:.0f} MiB")
    assert sum(endings.values()) == 300
    assert grown < 100 and largest < 1024
    assert not list(tmp_path.iterdir())
