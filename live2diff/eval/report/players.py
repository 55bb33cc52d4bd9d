"""Source and output of a video side by side, their X-T slices, and every metric over the frames.

The page holds no video file: `sheets.py` says why. All that moves is `report.js`.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping

from live2diff.eval.report.sheets import COLUMNS, MOST
from live2diff.eval.report.sparkline import known, sparkline, worst_at
from live2diff.eval.report.words import NONE, show, title_of
from live2diff.eval.results import Figure, VideoResult
from live2diff.html import Html, element

_SPEEDS = ("0.1", "0.25", "0.5", "1", "2")
_SLICE = 192  # least height of an X-T slice, pixels


def shown_frames(video: VideoResult, worst: int | None) -> range:
    """The frames that a player holds: all of them, or `MOST` around the worst one."""
    if video.frames <= MOST:
        return range(video.frames)
    first = min(max(0, (worst or 0) - MOST // 2), video.frames - MOST)
    return range(first, first + MOST)


def player(
    video: VideoResult,
    figures: Mapping[str, Figure],
    sheets: Mapping[str, bytes],
    shown: range,
    size: tuple[int, int],
    rows: int,
    start: int,
) -> Html:
    """The player of one video.

    Args:
        sheets: of "source" and "output", the frames `shown`, see `sheets.make_sheet`.
        size: (width, height) of a frame on them.
        rows: height of a frame as it was, pixels.
        start: the frame of the video that it opens with.
    """
    width, height = size
    row = height // 2
    screens = [_screen(video.name, of, "picture", (width, height)) for of in sheets]
    tall = len(shown) * max(1, -(-_SLICE // len(shown)))
    slices = [_screen(video.name, of, "slice", (width, len(shown)), tall) for of in sheets]
    stage = element(
        "div",
        element("div", *screens, class_="pair"),
        _controls(video.name, len(shown), start - shown.start),
        element("div", *slices, class_="pair"),
        element(
            "div",
            _slider("row", "row of the X–T slices", height, row, f"row of the X–T slices of {video.name}"),
            class_="controls",
        ),
        class_="stage",
    )
    lines = [_line(video, name, figure, shown) for name, figure in figures.items() if name in video.values]
    stored = [
        element("span", hidden="", data_sheet=of, data_source=_data_uri(sheet))
        for of, sheet in sheets.items()
    ]
    return element(
        "div",
        stage,
        element("div", *lines, class_="lines"),
        *stored,
        class_="player pixels" if width < 200 else "player",
        role="group",
        aria_label=f"player of {video.name}",
        data_frames=len(shown),
        data_first=shown.start,
        data_start=start - shown.start,
        data_total=video.frames,
        data_columns=min(COLUMNS, len(shown)),
        data_width=width,
        data_height=height,
        data_rows=rows,
        data_row=row,
        data_fps=f"{video.fps:g}",
    )


def _screen(name: str, of: str, show: str, size: tuple[int, int], tall: int | None = None) -> Html:
    what = of if show == "picture" else f"{of}, X–T slice"
    canvas = element(
        "canvas",
        width=size[0],
        height=size[1],
        role="img",
        aria_label=f"{what}, {name}",
        data_show=show,
        data_of=of,
        style=f"height:{tall}px" if tall else None,
    )
    mark = element("i", class_="at-row" if show == "picture" else "at-time")
    caption = element("figcaption", what)
    return element("figure", element("div", canvas, mark, class_="screen"), caption)


def _controls(name: str, frames: int, start: int) -> Html:
    speeds = [
        element("option", f"{speed}×", value=speed, selected="" if speed == "1" else None)
        for speed in _SPEEDS
    ]
    return element(
        "div",
        _button("Play", data_do="play", aria_label=f"play or pause {name}", class_="play"),
        _button("‹", data_do="back", aria_label=f"previous frame of {name}"),
        _button("›", data_do="next", aria_label=f"next frame of {name}"),
        _slider("frame", "frame", frames, start, f"frame of {name}"),
        element(
            "label",
            element("span", "speed"),
            element("select", *speeds, data_do="speed", disabled="", aria_label=f"speed of {name}"),
        ),
        class_="controls",
    )


def _slider(do: str, words: str, count: int, value: int, label: str) -> Html:
    slider = element(
        "input", type="range", min=0, max=count - 1, value=value, data_do=do, disabled="", aria_label=label
    )
    said = element("span", value, class_="value", data_say=do)
    return element("label", element("span", words), slider, said, class_="wide")


def _button(words: str, **attributes: object) -> Html:
    return element("button", words, type="button", disabled="", **attributes)


def _line(video: VideoResult, name: str, figure: Figure, shown: range) -> Html:
    values = video.per_frame.get(name, [])
    found = known(values)
    mean = show(video.values.get(name))
    title = element("span", title_of(name), class_="name")
    if not found:
        return element("div", title, element("span", mean, class_="value"), class_="line", data_values="[]")
    low, high = show(min(found.values())), show(max(found.values()))
    worst = worst_at(values, figure.better)
    label = f"{title_of(name)} of {video.name} by frame, {low} to {high}; worst at frame {worst}"
    texts = [show(found[at]) if at in found else None for at in shown]
    return element(
        "div",
        title,
        element("span", NONE, class_="value"),
        sparkline(values, figure.better, label, shown),
        element("span", f"{low} to {high}, mean {mean}", class_="soft range"),
        _button(
            f"worst: frame {worst}",
            data_frame=worst,
            aria_label=f"worst: frame {worst}, {title_of(name)} of {video.name}",
        ),
        class_="line",
        data_values=json.dumps(texts),
    )


def _data_uri(sheet: bytes) -> str:
    return f"data:image/webp;base64,{base64.b64encode(sheet).decode()}"
