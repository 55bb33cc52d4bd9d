"""HDR pictures become what a viewer of SDR expects: reference values of the standards, and a sane curve."""

from pathlib import Path

import av
import numpy as np
import pytest

from data_prep.decode import decode, open_video, picture
from data_prep.hdr import HLG, PQ, compress, hlg_light, pq_light, pq_signal, to_sdr


def grey(signal: np.ndarray | list[float]) -> np.ndarray:
    """Neutral narrow-range Y'CbCr codes of 16 bits for signals in [0, 1], one row."""
    luma = np.round(4096 + 56064 * np.asarray(signal))
    return np.stack([luma, *[np.full_like(luma, 32768)] * 2], axis=-1).astype(np.uint16)[None]


@pytest.mark.parametrize(
    ("signal", "light"), [(0, 0), (0.508078, 100), (0.580689, 203), (0.751827, 1000), (1, 10000)]
)
def test_pq_has_the_values_of_the_standard(signal: float, light: float):
    assert pq_light(np.array(signal)) == pytest.approx(light, rel=1e-4, abs=1e-6)
    assert pq_signal(np.array(light)) == pytest.approx(signal, abs=1e-5)


def test_hlg_has_the_values_of_the_standard():
    """BT.2408: HLG reference white, 75 %, is 203 cd/m2 on a display of 1000 cd/m2."""
    light = hlg_light(np.array([[0.0] * 3, [0.5] * 3, [0.75] * 3, [1.0] * 3], np.float32))
    assert light[:, 0] == pytest.approx([0, 1000 * (1 / 12) ** 1.2, 203, 1000], rel=0.002, abs=1e-6)


def test_the_curve_leaves_the_dark_alone_and_bends_smoothly_to_white():
    light = np.linspace(0.001, 2000, 20000)
    out = compress(light)
    assert np.all(np.diff(out) >= -1e-9) and out.max() == pytest.approx(203)
    assert out[light < 80] == pytest.approx(light[light < 80], rel=1e-6)
    slopes = np.diff(out) / np.diff(light)
    assert np.abs(np.diff(slopes)).max() < 0.02  # no corner


@pytest.mark.parametrize("transfer", [PQ, HLG])
def test_grey_stays_grey_and_in_order(transfer: int):
    row = to_sdr(grey(np.linspace(0, 1, 500)), transfer)[0].astype(int)
    assert row.dtype == int and row[0].max() == 0 and row[-1].min() >= 254
    assert np.ptp(row, axis=1).max() <= 1
    assert np.diff(row[:, 1]).min() >= 0


def test_reference_white_is_bright_and_a_dark_grey_is_what_sdr_shows():
    white, dark = (to_sdr(grey([pq_signal(np.array(light))]), PQ)[0, 0, 0] for light in (203.0, 10.0))
    assert 220 <= white < 250
    assert dark == pytest.approx(255 * (10 / 203) ** (1 / 2.4), abs=1)


def test_colours_keep_their_order_and_gain_saturation():
    """BT.2020 red as code values is paler than the same red on a BT.709 display."""
    red = np.array([[[22000, 27000, 42000]]], np.uint16)
    pixel = to_sdr(red, PQ)[0, 0].astype(int)
    assert pixel[0] > pixel[1] + 60 and pixel[0] > pixel[2] + 60


@pytest.mark.parametrize(("transfer", "tag"), [(PQ, "smpte2084"), (HLG, "arib-std-b67")])
def test_a_tagged_video_is_tone_mapped(tmp_path: Path, transfer: int, tag: str):
    path = tmp_path / "hdr.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p10le"
        context = stream.codec_context
        context.colorspace, context.color_primaries, context.color_trc, context.color_range = (
            9,
            9,
            transfer,
            1,
        )
        for _ in range(3):
            frame = av.VideoFrame(96, 64, "yuv420p10le")
            for plane, code in zip(frame.planes, (572, 512, 512), strict=True):  # 572: PQ 203 cd/m2
                plane.update(np.full(plane.buffer_size // 2, code, np.uint16))
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    with open_video(str(path)) as (container, stream):
        (first, *_) = decode(container, stream)
        assert int(first.color_trc) == transfer
        rgb, bgr = (picture(first, (96, 64), 0, pixels) for pixels in ("rgb24", "bgr24"))
    expected = to_sdr(grey([(572 - 64) / 876]), transfer)[0, 0]
    assert np.abs(rgb.astype(int) - expected).max() <= 1
    assert np.array_equal(rgb, bgr[..., ::-1])
