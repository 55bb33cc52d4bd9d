"""Frames out of a clip: the right ones, and the same from every reader."""

from __future__ import annotations

import importlib.util
import io

import av
import numpy as np
import pytest

from live2diff import toy
from live2diff.errors import SetupError
from train.readers import KINDS, find_reader

PLACES = [(0, 16, 1), (44, 16, 1), (5, 14, 4), (59, 1, 1), (16, 3, 16), (15, 2, 1)]


@pytest.fixture(scope="module")
def clip(tmp_path_factory) -> bytes:
    """60 frames, key frames 16 apart, 24000/1001 frames per second."""
    from fractions import Fraction

    from live2diff.video import write_video

    path = tmp_path_factory.mktemp("clip") / "clip.mp4"
    frames, _ = toy.frames(5, np.arange(60) / 24, (96, 64), "photo")
    write_video(path, iter(frames), Fraction(24000, 1001))
    return path.read_bytes()


@pytest.fixture(scope="module")
def everything(clip) -> np.ndarray:
    with av.open(io.BytesIO(clip)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


@pytest.mark.parametrize("kind", KINDS)
def test_random_access_finds_the_frames_asked_for(clip, everything, kind):
    """Frames read by seeking are, bit for bit, those of a whole decode, whichever reader seeks."""
    if importlib.util.find_spec(kind.replace("pyav", "av")) is None:
        pytest.skip(f"{kind} is not installed")
    read = find_reader(kind)
    for start, count, stride in PLACES:
        wanted = everything[start : start + count * stride : stride]
        assert np.array_equal(read(clip, start, count, stride), wanted)


@pytest.mark.parametrize("kind", ["pyav", "decord"])
def test_a_clip_that_ends_too_early_is_an_error(clip, kind):
    with pytest.raises(Exception, match="frames found|[Oo]ut of bound"):
        find_reader(kind)(clip, 50, 16, 1)
    with pytest.raises(Exception):  # noqa: B017 - of any kind
        find_reader(kind)(b"no video", 0, 1, 1)


@pytest.mark.parametrize("kind", ["pyav", "decord"])
def test_a_playlist_is_no_clip(clip, tmp_path, kind):
    """It would have the reader open another file, or fetch from a server."""
    (tmp_path / "other.mp4").write_bytes(clip)
    playlists = [
        f"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\n{tmp_path}/other.mp4\n#EXT-X-ENDLIST\n",
        f"ffconcat version 1.0\nfile {tmp_path}/other.mp4\n",
    ]
    for playlist in playlists:
        with pytest.raises(ValueError, match="no MP4|Invalid data"):
            find_reader(kind)(playlist.encode(), 0, 16, 1)


def test_a_reader_that_is_not_installed_is_named(monkeypatch):
    def absent(name):
        raise ModuleNotFoundError(f"No module named {name!r}")

    monkeypatch.setattr("train.readers.import_module", absent)
    with pytest.raises(SetupError, match="data.reader=torchcodec: .*No module.*install torchcodec") as error:
        find_reader("torchcodec")
    assert "\n" not in str(error.value)
