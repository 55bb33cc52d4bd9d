"""Interlaced frames lose their combs, keep their number, and show the right moment."""

from pathlib import Path

import av
import numpy as np
import pytest

from data_prep.decode import decode, open_video, picture
from data_prep.deinterlace import deinterlace
from data_prep.worker import process
from tests.data_prep.filters.pictures import pan


def write(path: Path, fields: list[np.ndarray], interlaced: bool) -> Path:
    """MPEG-2, a frame of every two `fields` (whole pictures): even lines of one, odd lines of the other."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg2video", rate=25)
        stream.height, stream.width = fields[0].shape[:2]
        stream.pix_fmt = "yuv420p"
        stream.options = {"bf": "2", "g": "12"}
        if interlaced:
            stream.options |= {"flags": "+ildct+ilme", "top": "1"}
        stream.bit_rate = 8_000_000
        for upper, lower in zip(fields[::2], fields[1::2], strict=True):
            frame = upper.copy()
            if interlaced:
                frame[1::2] = lower[1::2]
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode(None))
    return path


def combing(image: np.ndarray) -> float:
    """How much neighbouring lines differ from those next to them."""
    grey = image.mean(2)
    return float(np.abs(2 * grey[1:-1] - grey[:-2] - grey[2:]).mean())


@pytest.fixture
def fields() -> list[np.ndarray]:
    return pan(2, 50, 1.0)  # about 3 pixels between two fields


def test_combs_go_and_frames_stay(tmp_path: Path, fields):
    path = write(tmp_path / "i.mpg", fields, interlaced=True)
    with open_video(str(path)) as (container, stream):
        before = list(decode(container, stream))
    after = list(deinterlace(before))
    assert len(before) == len(after) == len(fields) // 2
    size = (fields[0].shape[1], fields[0].shape[0])
    for number in (3, 20, 40):
        combed, whole = (picture(frames[number], size, 0) for frames in (before, after))
        assert combing(whole) < combing(combed) / 3
        truth = fields[2 * number].astype(int)
        others = [fields[2 * number + shift].astype(int) for shift in (-3, 3)]
        errors = [np.abs(whole - picture_).mean() for picture_ in (truth, *others)]
        assert errors[0] == min(errors)  # the moment of the first field


@pytest.mark.parametrize("count", [0, 1, 2])
def test_few_frames_come_through(count: int):
    frames = [av.VideoFrame.from_ndarray(image, format="rgb24") for image in pan(1, 25, 0.3)[:count]]
    for number, frame in enumerate(frames):
        frame.pts, frame.time_base = number, 1
    assert len(list(deinterlace(frames))) == count


def test_only_interlaced_sources_are_deinterlaced(tmp_path: Path, fields, tiny):
    for interlaced in (True, False):
        folder = tmp_path / str(interlaced)
        folder.mkdir()
        result = process(str(write(folder / "x.mpg", fields, interlaced)), folder, tiny)
        assert result["facts"]["interlaced"] is interlaced
        assert [clip["frames"] for clip in result["clips"]] == [16]
