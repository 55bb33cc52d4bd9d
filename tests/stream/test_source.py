"""Frames as a person sees them: upright, in true colours, at their times; and what is wrong in one line."""

from __future__ import annotations

import os
import struct
from fractions import Fraction

import av
import cv2
import numpy as np
import pytest
from av.video.reformatter import ColorPrimaries, ColorTrc

from live2diff.colour import ToRGB, ToYUV, guessed_matrix
from live2diff.errors import SetupError, UsageError
from live2diff.stream import source as module
from live2diff.stream.source import Clock, open_source
from tests.stream.media import still, write


def read(path):
    with open_source(str(path)) as source:
        return source, list(source)


# -- times ------------------------------------------------------------------------------------------------


def test_times_are_the_files_own_from_the_first_frame_on(tmp_path):
    times = [0, 0.04, 0.1, 0.105, 0.6, 2.1]
    path = write(tmp_path / "vfr.mkv", still(6), times=times, begin=3.4)
    source, frames = read(path)
    assert [float(frame.moment.time) for frame in frames] == pytest.approx(times, abs=0.001)
    assert float(source.begin) == pytest.approx(3.4, abs=0.001) and source.damage is None


def clocked(*stated, interval=Fraction(1, 25)):
    clock = Clock(interval, Fraction(1, 1000))
    return [None if time is None else float(clock(Fraction(time, 1000))) for time in stated]


def test_a_clock_keeps_sound_times_and_mends_the_others():
    assert clocked(0, 40, 1600, 1605) == [0, 0.04, 1.6, 1.605]
    assert clocked(0, 40, 40, 80) == [0, 0.04, 0.041, 0.08]  # twice the same: no drift
    assert clocked(0, 5000, 20, 60) == [0, 5, 5.04, 5.08]  # another recording begins
    clock = Clock(Fraction(1, 25), Fraction(1, 1000))
    assert [float(clock(None)) for _ in range(3)] == [0, 0.04, 0.08]
    jumpy = [float(time) for time in np.random.default_rng(0).integers(-5000, 5000, 200)]
    assert np.diff(clocked(*map(int, jumpy))).min() > 0


# -- shape ------------------------------------------------------------------------------------------------


def turned(path, quarter):
    """Write a display matrix into an MP4: `quarter` turns clockwise (ISO/IEC 14496-12, `tkhd`)."""
    data = bytearray(path.read_bytes())
    at = data.index(b"tkhd") + 44
    one = 1 << 16
    across, down = [(one, 0), (0, one), (-one, 0), (0, -one)][quarter]
    data[at : at + 36] = struct.pack(">9i", across, down, 0, -down, across, 0, 0, 0, 1 << 30)
    path.write_bytes(data)


@pytest.mark.parametrize("quarter", [0, 1, 2, 3])
def test_frames_come_upright_with_their_pixel_shape(tmp_path, quarter):
    picture = np.zeros((48, 96, 3), np.uint8)
    picture[:16, :16] = 255  # a mark in the top left corner
    path = write(tmp_path / "turned.mp4", [picture] * 3, aspect=Fraction(4, 3))
    turned(path, quarter)
    source, frames = read(path)
    upright = np.rot90(picture, -quarter)
    assert frames[0].picture.shape == upright.shape
    assert np.abs(frames[0].picture.astype(int) - upright).mean() < 3
    assert source.aspect == (Fraction(3, 4) if quarter % 2 else Fraction(4, 3))


# -- colours ----------------------------------------------------------------------------------------------

COLOURS = [(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255), (0, 0, 0), (200, 120, 40)]
# (Kr, Kb) of BT.601 and BT.709
MATRICES = {"smpte170m": (0.299, 0.114), "bt709": (0.2126, 0.0722)}


def tagged(colour, matrix, full, size=(64, 48)):
    """A frame of one colour by the standard's own formula, tagged with what it is, or not (matrix None)."""
    kr, kb = MATRICES[matrix or "smpte170m"]
    r, g, b = (value / 255 for value in colour)
    luma = kr * r + (1 - kr - kb) * g + kb * b
    planes = [luma, (b - luma) / (2 * (1 - kb)), (r - luma) / (2 * (1 - kr))]
    scale, offset = ((255, 255, 255), (0, 128, 128)) if full else ((219, 224, 224), (16, 128, 128))
    frame = av.VideoFrame(*size, "yuv420p")
    for plane, value, gain, zero in zip(frame.planes, planes, scale, offset, strict=True):
        code = int(np.clip(round(value * gain + zero), 0, 255))
        plane.update(bytes([code]) * plane.buffer_size)
    frame.colorspace = {"smpte170m": 6, "bt709": 1, None: 2}[matrix]
    frame.color_range = 2 if full else 1
    return frame


@pytest.mark.parametrize("matrix", ["smpte170m", "bt709", None])
@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("colour", COLOURS)
def test_tags_say_how_colours_are_read(matrix, full, colour):
    picture = ToRGB()(tagged(colour, matrix, full))
    assert np.abs(picture.astype(int) - colour).max() <= 3


def test_untagged_high_definition_is_read_as_bt709():
    frame = tagged((255, 0, 0), "bt709", False, (1280, 720))
    frame.colorspace = 2
    assert np.abs(ToRGB()(frame)[300, 300].astype(int) - (255, 0, 0)).max() <= 3
    assert guessed_matrix(1280, 720) != guessed_matrix(640, 480)


@pytest.mark.parametrize("colour", COLOURS)
def test_what_is_written_is_bt709_limited(colour):
    frame = ToYUV()(np.full((48, 64, 3), colour, np.uint8))
    assert (int(frame.colorspace), int(frame.color_range)) == (1, 1)
    expected = tagged(colour, "bt709", False)
    for plane, other in zip(frame.planes, expected.planes, strict=True):
        assert abs(bytes(plane)[0] - bytes(other)[0]) <= 1


@pytest.mark.parametrize("transfer", [ColorTrc.SMPTE2084, ColorTrc.ARIB_STD_B67])
def test_hdr_becomes_bright_enough_and_stays_in_order(transfer):
    """Grey steps of HDR: reference white (58 % PQ, 75 % HLG) comes out bright, darker steps darker."""
    frame = av.VideoFrame(64, 48, "yuv420p10le")
    shown = []
    white = 0.58 if transfer == ColorTrc.SMPTE2084 else 0.75
    to_rgb = ToRGB()
    for level in np.linspace(0, white, 6):
        for plane, code in zip(frame.planes, (64 + 876 * level, 512, 512), strict=True):
            plane.update(np.full(plane.buffer_size // 2, round(code), np.uint16).tobytes())
        frame.colorspace, frame.color_range = 9, 1
        frame.color_trc, frame.color_primaries = transfer, ColorPrimaries.BT2020
        pixel = to_rgb(frame)[20, 20].astype(int)
        assert np.ptp(pixel) <= 3  # grey stays grey
        shown.append(pixel.mean())
    assert shown == sorted(shown) and shown[0] <= 2 and 190 <= shown[-1] <= 255


# -- damage -----------------------------------------------------------------------------------------------


def test_damage_ends_the_frames_and_is_said(tmp_path, shared):
    broken = shared / "data/broken"
    source, frames = read(broken / "natural_corrupted.mp4")
    assert len(frames) == 28 and "damaged after frame 28" in str(source.damage)
    source, frames = read(broken / "truncated_faststart_40pct.mp4")
    assert len(frames) == 10 and "cut short; its pictures end after 0.50 s of 2.00 s" in str(source.damage)
    source, frames = read(broken / "bitrot.mp4")
    assert len(frames) == 40 and source.concealed > 30 and source.damage is None


def test_a_name_with_a_colon_is_a_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "http:x.mp4", still(3))
    assert len(read("http:x.mp4")[1]) == 3


# -- cameras ----------------------------------------------------------------------------------------------


class FakeCamera:
    """Delivers four pictures, blue above red, then fails."""

    released = False

    def __init__(self, number):
        self.left, self.there = 4, number == 1

    def isOpened(self):
        return self.there

    def get(self, key):
        return 15.0 if key == cv2.CAP_PROP_FPS else 0.0

    def set(self, key, value):
        return True

    def read(self):
        self.left -= 1
        picture = np.zeros((48, 64, 3), np.uint8)
        picture[:24, :, 0] = picture[24:, :, 2] = 255  # OpenCV's order: blue, green, red
        return (self.left >= 0), (picture if self.left >= 0 else None)

    def release(self):
        FakeCamera.released = True


def test_a_camera_gives_rgb_frames_at_rising_times_until_it_stops(monkeypatch):
    monkeypatch.setattr(module.cv2, "VideoCapture", FakeCamera)
    with open_source("camera:1") as source:
        frames = list(source)
        assert (source.fps, source.path, len(frames)) == (15, None, 4)
    assert isinstance(source.damage, SetupError) and FakeCamera.released
    assert tuple(frames[0].picture[0, 0]) == (0, 0, 255) and tuple(frames[0].picture[-1, 0]) == (255, 0, 0)
    times = [frame.moment.time for frame in frames]
    assert times[0] == 0 and times == sorted(set(times))


def test_no_camera_is_one_line(capfd):
    number = next(n for n in range(50, 99) if not os.path.exists(f"/dev/video{n}"))
    with pytest.raises(SetupError, match=f"camera:{number}: no such camera"):
        open_source(f"camera:{number}")
    assert capfd.readouterr() == ("", "")
    with pytest.raises(UsageError, match="like camera:0"):
        open_source("camera:front")
