"""Opening one hostile file: nothing else is opened, reasons are plain, pictures are sane."""

import random
from pathlib import Path

import av
import numpy as np
import pytest

from data_prep.decode import Loss, RejectedError, decode, open_video, picture, short_side
from tests.data_prep.filters.pictures import pan
from tests.data_prep.videos import SIZE, blocks, write_gops, write_timed


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


@pytest.mark.parametrize("bits", [8, 10])
@pytest.mark.parametrize("size", [(876, 64), (438, 32)])
def test_levels_are_rounded_to_the_nearest_and_not_darkened(bits: int, size: tuple[int, int]):
    """A ramp from black to white in narrow range, where 235 (940 in ten bits) is white."""
    levels = np.linspace(16 * 2 ** (bits - 8), 235 * 2 ** (bits - 8), 876).round()
    frame = av.VideoFrame(876, 64, "yuv420p" if bits == 8 else "yuv420p10le")
    kind = np.uint8 if bits == 8 else np.uint16
    for plane, row in zip(
        frame.planes, (levels, [2 ** (bits - 1)] * 438, [2 ** (bits - 1)] * 438), strict=True
    ):
        lines = np.zeros((plane.height, plane.line_size // kind().itemsize), kind)
        lines[:, : plane.width] = row
        plane.update(lines)
    ideal = (levels / 2 ** (bits - 8) - 16) / 219 * 255
    ideal = ideal.reshape(size[0], -1).mean(1)
    error = picture(frame, size, turns=0).astype(float) - ideal[None, :, None]
    assert np.abs(error).max() < 0.8 and abs(error.mean()) < 0.05


@pytest.mark.parametrize("b_frames", [0, 3])
def test_frames_after_damage_are_exact_and_those_built_on_it_are_left_out(tmp_path: Path, b_frames: int):
    """Bits are flipped all over the file, a few at a time: what is kept must be what was there."""
    path = tmp_path / "x.mp4"
    write_gops(path, pan(5, 24, 0.3), gop=12, b_frames=b_frames)
    data = path.read_bytes()
    with open_video(str(path)) as (container, stream):
        truth = {frame.pts: picture(frame, (64, 48), 0) for frame in decode(container, stream)}
    assert len(truth) == 120
    rng, resumed, kept = random.Random(0), 0, 0
    for _ in range(25):
        damaged = bytearray(data)
        place = rng.randrange(len(data) // 8, len(data) * 7 // 8)
        damaged[place : place + 40] = rng.randbytes(40)
        path.write_bytes(damaged)
        losses: list[Loss] = []
        with open_video(str(path)) as (container, stream):
            frames = [(frame.pts, picture(frame, (64, 48), 0)) for frame in decode(container, stream, losses)]
        assert len(losses) <= 2
        for loss in losses:
            assert 0 <= loss.spoiled <= loss.frame <= len(frames) and loss.frame - loss.spoiled <= 4
            resumed += loss.frame < len(frames)
        if losses:
            spoiled = {number for loss in losses for number in range(loss.spoiled, loss.frame)}
            kept += len(frames) - len(spoiled)
            wrong = [n for n, (pts, image) in enumerate(frames) if not np.array_equal(image, truth[pts])]
            assert set(wrong) <= spoiled
    assert resumed >= 10 and kept >= 1500


def test_damage_at_the_end_keeps_what_came_before(movie):
    path = movie("x.mp4", [np.roll(frame, 5 * i, 0) for i, frame in enumerate(blocks(60, 1))])
    whole = pictures(path)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * 0.6)])
    losses: list[Loss] = []
    with open_video(str(path)) as (container, stream):
        frames = [picture(frame, SIZE, turns=0) for frame in decode(container, stream, losses)]
    assert 5 < len(frames) < 60 and losses[-1].frame == len(frames)
    assert all(np.array_equal(*pair) for pair in zip(frames, whole, strict=False))


def test_a_stream_of_nothing_but_errors_ends(movie):
    path = movie("x.mp4", pan(8, 24, 0.3))
    data = bytearray(path.read_bytes())
    begin, stop = data.index(b"mdat") + 4, len(data)
    data[begin:stop] = random.Random(0).randbytes(stop - begin)
    path.write_bytes(data)
    losses: list[Loss] = []
    with open_video(str(path)) as (container, stream):
        assert list(decode(container, stream, losses)) == [] and len(losses) == 1


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
