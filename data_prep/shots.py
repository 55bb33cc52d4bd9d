"""Cuts and shots. A shot is a run of frames from one camera take; training must never see across a cut."""

from __future__ import annotations

from collections.abc import Iterable

from av.video.frame import VideoFrame
from scenedetect.common import FrameTimecode
from scenedetect.detectors import AdaptiveDetector

from data_prep.decode import picture, short_side

_DETECT_SIDE = 144  # short side the detector looks at, pixels: finer detail only adds noise
_DETECT_FPS = 25.0  # the detector counts frames; the rate its time codes ask for plays no part
_WINDOW = 2  # frames on either side whose change is the measure of the ordinary
_MIN_GAP = 5  # frames between two cuts: a flash is not two shots


class CutDetector:
    """PySceneDetect's `AdaptiveDetector`, fed frame by frame so that it opens no file itself.

    It compares the change of brightness at a frame with that of the frames around it, so a fast pan is not a
    cut. Hue and saturation are left out: in dark, pale and fading pictures they are noise, and made up cuts.

    Args:
        ratio: how many times larger than around it the change must be.
        change: the least change, mean absolute difference of brightness (the V of HSV), 0 to 255.
    """

    def __init__(self, ratio: float, change: float):
        self._detector = AdaptiveDetector(
            adaptive_threshold=ratio,
            min_content_val=change,
            min_scene_len=_MIN_GAP,
            window_width=_WINDOW,
            luma_only=True,
        )
        self._seen = 0
        self._size: tuple[int, int] | None = None
        self.cuts: list[int] = []

    def see(self, frame: VideoFrame) -> None:
        """Look at the next frame; `cuts` grows by the first frame of each new shot."""
        self._size = self._size or short_side((frame.width, frame.height), _DETECT_SIDE)
        small = picture(frame, self._size, turns=0, pixels="bgr24")
        code = FrameTimecode(self._seen, fps=_DETECT_FPS)
        self.cuts.extend(cut.frame_num for cut in self._detector.process_frame(code, small))
        self._seen += 1


def split_shots(
    frames: int, cuts: Iterable[int], trim: int, spoiled: Iterable[tuple[int, int]] = ()
) -> list[tuple[int, int]]:
    """Frame ranges [first, last + 1) of the shots of a video of `frames` frames.

    `trim` frames go on either side of each cut (dissolves, mixed fields), none at the ends of the video. The
    ranges `spoiled`, which reach up to the end of a shot, are cut off it. Every shot keeps its place in the
    list, so shot numbers do not depend on what is left out; a range may be empty.
    """
    spoiled = [(first, stop) for first, stop in spoiled if first < stop]
    edges = [0, *sorted({cut for cut in cuts if 0 < cut < frames}), frames]
    shots = []
    for first, last in zip(edges, edges[1:], strict=False):
        start = first if first == 0 else first + trim
        stop = last if last == frames else last - trim
        stop = min([stop, *(begin for begin, end in spoiled if begin < last <= end)])
        shots.append((start, max(start, stop)))
    return shots
