"""Opening one hostile file: nothing else is opened, reasons are plain, pictures are sane."""

from pathlib import Path

import numpy as np
import pytest

from data_prep.decode import RejectedError, decode, open_video, picture, short_side
from tests.data_prep.videos import SIZE, blocks, write_timed


def pictures(path: Path, size=SIZE) -> list[np.ndarray]:
    with open_video(str(path)) as (container, stream):
        return [picture(frame, size, turns=0) for frame in decode(container, stream)]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "empty"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git-LFS"),
        (b"<!DOCTYPE html><html>404</html>", "web page"),
        (b"\x89PNG\r\n\x1a\n" + bytes(99), "PNG"),
        (b"just some text, long enough to be probed as a container, and again and again\n" * 9, "cannot be"),
        (bytes(4096), "cannot be opened"),
    ],
)
def test_what_is_no_video_is_named(tmp_path: Path, content: bytes, reason: str):
    (tmp_path / "x.mp4").write_bytes(content)
    with pytest.raises(RejectedError, match=reason):
        pictures(tmp_path / "x.mp4")


@pytest.mark.parametrize(
    "playlist", ["#EXTM3U\n#EXTINF:2.0,\n{}\n#EXT-X-ENDLIST\n", "ffconcat version 1.0\nfile {}\n"]
)
@pytest.mark.parametrize("name", ["list.mp4", "list.m3u8", "list.ffconcat"])
def test_a_playlist_opens_no_other_file(movie, tmp_path: Path, playlist: str, name: str):
    path = tmp_path / name
    path.write_text(playlist.format(movie("real.mp4", blocks(5, 0))))
    with pytest.raises(RejectedError):
        pictures(path)


def test_ten_bit_input_becomes_the_same_eight_bit_picture(tmp_path: Path):
    frames = [np.full((64, 96, 3), 20 + 11 * number, np.uint8) for number in range(20)]
    for pixels in ("yuv420p", "yuv420p10le"):
        write_timed(tmp_path / f"{pixels}.mp4", frames, range(0, 800, 40), pixels)
    eight, ten = pictures(tmp_path / "yuv420p.mp4"), pictures(tmp_path / "yuv420p10le.mp4")
    for frame, low, high in zip(frames, eight, ten, strict=True):
        assert high.dtype == np.uint8
        assert np.abs(low.astype(int) - frame).max() <= 3 and np.abs(high.astype(int) - frame).max() <= 3


def test_shrinking_averages_instead_of_aliasing(movie):
    checks = np.kron(np.indices((64, 96)).sum(0) % 2 * 255, np.ones((2, 2))).astype(np.uint8)
    path = movie("checks.mp4", [np.repeat(checks[..., None], 3, -1)] * 3)
    small = pictures(path, (48, 32))[0]
    assert abs(float(small.mean()) - 127.5) < 12 and small.std() < 20


@pytest.mark.parametrize("size", [(1920, 1080), (1080, 1920), (479, 359), (512, 16), (3026, 1386)])
def test_short_side_is_exact_and_both_are_even(size):
    width, height = short_side(size, 64)
    assert min(width, height) == 64 and width % 2 == height % 2 == 0
    assert width / height == pytest.approx(size[0] / size[1], rel=0.02)
