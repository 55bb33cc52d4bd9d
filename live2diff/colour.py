"""Colours between video files and RGB: which matrix, which range, and HDR brought down to what screens show.

swscale does the arithmetic. What is here is what to tell it: files that name their colours are believed, the
others are read as players read them, and everything written is BT.709 or says what else it is.
"""

from __future__ import annotations

import numpy as np
from av.video.frame import VideoFrame
from av.video.reformatter import ColorPrimaries, ColorRange, Colorspace, ColorTrc, VideoReformatter

HDR = (ColorTrc.SMPTE2084, ColorTrc.ARIB_STD_B67)  # PQ (HDR10) and HLG
_UNSPECIFIED = 2  # ISO/IEC 23091-2, the same number for matrix, primaries and transfer


def guessed_matrix(width: int, height: int) -> Colorspace:
    """The matrix players assume when a file names none: BT.709 for high definition, BT.601 below it."""
    return Colorspace.ITU709 if width >= 1280 or height > 576 else Colorspace.ITU601


class ToRGB:
    """Decoded frames to uint8 RGB arrays (H, W, 3) as a standard screen shows them, not yet turned upright.

    HDR (PQ, HLG) is converted to BT.709: colours as they were, highlights brighter than white are clipped.
    The conversion is set up at the first frame (HDR: about a second); keep one object per video.
    """

    def __init__(self) -> None:
        self._reformatter = VideoReformatter()

    def __call__(self, frame: VideoFrame) -> np.ndarray:
        matrix = None
        if frame.colorspace == _UNSPECIFIED and not frame.format.is_rgb:
            matrix = guessed_matrix(frame.width, frame.height)
        to: dict[str, int] = {}
        if frame.color_trc in HDR:
            if frame.color_primaries == _UNSPECIFIED:
                frame.color_primaries = ColorPrimaries.BT2020
            to = {"dst_color_trc": ColorTrc.BT709, "dst_color_primaries": ColorPrimaries.BT709}
        return self._reformatter.reformat(frame, format="rgb24", src_colorspace=matrix, **to).to_ndarray()


class ToYUV:
    """uint8 RGB arrays (H, W, 3) to limited-range frames for an encoder."""

    def __init__(self, matrix: Colorspace = Colorspace.ITU709):
        self._matrix = matrix
        self._reformatter = VideoReformatter()

    def __call__(self, picture: np.ndarray) -> VideoFrame:
        frame = VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
        return self._reformatter.reformat(
            frame, format="yuv420p", dst_colorspace=self._matrix, dst_color_range=ColorRange.MPEG
        )
