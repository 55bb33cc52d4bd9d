"""The worst frames: source, output before and after, and which part of the picture was measured."""

from __future__ import annotations

import math
from collections.abc import Callable

import cv2
import numpy as np

from live2diff.errors import Live2DiffError
from live2diff.eval.flow import Flow
from live2diff.eval.occlusion import visible
from live2diff.eval.pairs import Rule
from live2diff.eval.report.frames import read_pairs
from live2diff.eval.report.words import name_of, show
from live2diff.eval.results import VideoResult
from live2diff.html import Html, element, picture

# Of a source frame and the next, uint8 RGB (H, W, 3): bool (H, W), the pixels of the earlier one that count.
Masks = Callable[[np.ndarray, np.ndarray], np.ndarray]

_TINT, _STRENGTH = (226, 92, 20), 0.65
_AREA = 288 * 192  # pixels of a picture, at most
_QUALITY = 85


def masks_by(flow: Flow) -> Masks:
    """The mask of warp error, by the flow it was measured with."""
    return lambda first, second: visible(flow(first, second), flow(second, first))


def tinted(frame: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """A uint8 RGB frame (H, W, 3), coloured where `counts`, bool (H, W), is False."""
    result = frame.astype(np.float32)
    result[~counts] = (1 - _STRENGTH) * result[~counts] + _STRENGTH * np.array(_TINT, np.float32)
    return result.round().astype(np.uint8)


def worst_frame(
    video: VideoResult, at: int, figure: str, rule: Rule, masks: Masks | None, link: Html | str = ""
) -> Html:
    """Pictures of frame `at` of a video, and what they are.

    Args:
        rule: how frames were brought to one size.
        masks: None if it is not known what counted.
        link: to the player that shows the frame.
    """
    value = video.per_frame[figure][at]
    said = element(
        "p",
        element("b", video.name),
        f", frame {at}: {name_of(figure)} ",
        element("b", show(value)),
        class_="said",
    )
    try:
        pairs = list(read_pairs(video, range(max(0, at - 1), at + 1), rule))
    except Live2DiffError as error:
        return element("figure", element("figcaption", said, element("p", f"no picture: {error}"), link))
    (before, output_before), (source, output) = pairs[0], pairs[-1]
    shown = {"source": source, f"output, frame {at - 1}": output_before, f"output, frame {at}": output}
    if len(pairs) == 1:
        shown = {"source": source, "output": output}
    elif masks:
        counts = masks(before, source)
        shown[f"what counts of frame {at - 1}: {counts.mean():.0%}"] = tinted(output_before, counts)
    parts = [
        element(
            "figure",
            picture(_jpeg(frame), f"{name}: {video.name}, frame {at}"),
            element("figcaption", name),
        )
        for name, frame in shown.items()
    ]
    return element(
        "figure", element("figcaption", said, link), element("div", *parts, class_="four"), class_="worst"
    )


def _jpeg(frame: np.ndarray) -> bytes:
    height, width = frame.shape[:2]
    scale = min(1.0, math.sqrt(_AREA / (width * height)))
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    small = cv2.resize(frame, size, interpolation=cv2.INTER_AREA)
    return cv2.imencode(".jpg", small[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])[1].tobytes()
