"""The report as one offline HTML page."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from live2diff.errors import Live2DiffError
from live2diff.eval.pairs import Rule
from live2diff.eval.report.again import commands, rule_of
from live2diff.eval.report.frames import read_pairs
from live2diff.eval.report.players import player, shown_frames
from live2diff.eval.report.ranking import ranking_figure, worst_frames, worst_videos
from live2diff.eval.report.sheets import make_sheet, shrink
from live2diff.eval.report.sparkline import worst_at
from live2diff.eval.report.summary import summary
from live2diff.eval.report.words import NONE, flat, name_of, show, title_of
from live2diff.eval.report.worst import Masks, worst_frame
from live2diff.eval.results import Results, VideoResult
from live2diff.html import Html, contents, element, page, table
from live2diff.terminal import progress

PLAYERS = 12  # videos with a player, at most
BUDGET = 18 << 20  # bytes of their pictures, at most; base 64 makes them a third more
ROWS = 500  # of a table, at most


def write_page(results: Results, out: str, masks: Masks | None) -> str:
    """The whole report as HTML; see `live2diff.eval.report.write_report`."""
    figure, rule = ranking_figure(results), rule_of(results)
    order = worst_videos(results, figure)
    with progress("report", None, unit="videos and frames") as advance:
        watched = _watched(results, order, figure, rule, advance)
        frames = []
        for one in worst_frames(results, figure):
            link = _link(one.video, one.frame) if one.video in watched else ""
            video = results.videos[one.video]
            frames.append(worst_frame(video, one.frame, figure or "", rule, masks, link))
            advance()
    sections = [
        ("figures", "Figures", summary(results)),
        ("frames", "Worst frames", _frames(frames, figure, masks)),
        ("videos", "Videos", _videos(results, watched, figure)),
        ("table", "All videos", _table(results, order, watched)),
        ("left-out", "Left out", _left_out(results)),
        ("again", "Measuring it again", _again(results, out)),
    ]
    body = [
        element("header", element("h1", "Evaluation"), _facts(results)),
        contents([(anchor, heading) for anchor, heading, _ in sections]),
    ]
    body += [
        element("section", element("h2", heading, id=anchor), *parts) for anchor, heading, parts in sections
    ]
    return page(f"Evaluation of {results.pred}", *body, style=_part("report.css"), script=_part("report.js"))


def _part(name: str) -> str:
    return Path(__file__).with_name(name).read_text(encoding="utf-8")


def _facts(results: Results) -> Html:
    facts: list[tuple[str, object]] = [("output", results.pred), ("source", results.source)]
    facts += [("measured", results.created)] if results.created else []
    facts.append(("live2diff", results.version))
    parts = [part for key, value in facts for part in (element("dt", key), element("dd", value))]
    return element("dl", *parts, class_="facts")


def _watched(
    results: Results, order: Sequence[int], figure: str | None, rule: Rule, advance: Callable[[], None]
) -> dict[int, Html]:
    """What is seen of the first videos of `order`, by place: players, as many as are allowed and fit."""
    watched: dict[int, Html] = {}
    room = BUDGET
    for place in order[:PLAYERS]:
        video = results.videos[place]
        try:
            made, size = _player(video, results, figure, rule)
        except Live2DiffError as error:
            made, size = element("p", f"No pictures: {error}", class_="soft"), 0
        room -= size
        if room < 0:
            break
        watched[place] = made
        advance()
    return watched


def _player(video: VideoResult, results: Results, figure: str | None, rule: Rule) -> tuple[Html, int]:
    """The player of a video, and the bytes of its pictures."""
    better = results.figures[figure].better if figure else "lower"
    worst = worst_at(video.per_frame.get(figure or "", ()), better)
    shown = shown_frames(video, worst)
    sources, outputs, rows = [], [], 0
    for source, output in read_pairs(video, shown, rule):
        sources.append(shrink(source))
        outputs.append(shrink(output))
        rows = len(output)
    sheets = {"source": make_sheet(sources), "output": make_sheet(outputs)}
    size = (outputs[0].shape[1], outputs[0].shape[0])
    made = player(video, results.figures, sheets, shown, size, rows, worst or shown.start)
    return made, sum(map(len, sheets.values()))


def _link(place: int, frame: int) -> Html:
    return element("a", "see it move", href=f"#video-{place}", data_frame=frame)


def _frames(frames: Sequence[Html], figure: str | None, masks: Masks | None) -> list[Html]:
    if not frames or figure is None:
        return [element("p", "No figure has values by frame.")]
    note = f"The {len(frames)} worst frames of all videos by {name_of(figure)}, at least 4 frames apart."
    if figure == "warp_error":
        note += " Each is compared with the frame before it along the motion of the source. " + (
            "In orange: what does not count, because it is hidden in the later frame, leaves it, or "
            "lies on the edge between two motions."
            if masks
            else "What counted is not shown: the flow needs weights that the report has not got."
        )
    return [element("p", note, class_="soft"), element("div", *frames, class_="worst-frames")]


def _videos(results: Results, watched: Mapping[int, Html], figure: str | None) -> list[Html]:
    if not watched:
        return [element("p", "No video was measured.")]
    total = len(results.videos)
    all_of = len(watched) == total
    which = "All videos," if all_of else f"The {len(watched)} of {total} videos that are worst"
    by = f" by {name_of(figure)}" if figure else ""
    note = (
        f"{which}{by}, the worst first. Click into a picture to choose the row of the X–T slices, into a "
        "slice or a line to go to a frame. In an X–T slice one row of pixels runs across and time runs "
        "down: what stands still is a vertical line, what moves a slanted one, and flicker shows as "
        "stripes. Pictures are scaled down and compressed; the figures are of the videos themselves. "
        "Frames count from 0."
    )
    parts = [element("p", note, class_="soft")]
    parts += [element("noscript", element("p", element("b", "The players need JavaScript.")))]
    for place, made in watched.items():
        video = results.videos[place]
        facts = f"{video.frames} frames at {show(video.fps)} fps"
        said = element("p", video.caption, class_="said") if video.caption else ""
        heading = element("h3", video.name, " ", element("span", facts, class_="soft"))
        parts.append(element("article", heading, said, made, id=f"video-{place}"))
    return parts


def _table(results: Results, order: Sequence[int], watched: Mapping[int, Html]) -> list[Html]:
    if not order:
        return [element("p", "No video was measured.")]
    names = [name for name in results.figures if any(name in video.values for video in results.videos)]
    head = [_sorter("video", "text"), _sorter("frames", "number")]
    head += [_sorter(title_of(name), "number") for name in names]
    rows = [
        _table_row(results.videos[place], names, place if place in watched else None)
        for place in order[:ROWS]
    ]
    whole = element("table", element("thead", element("tr", *head)), element("tbody", *rows))
    more = len(order) - len(rows)
    rest = [element("p", f"and {more:,} more in results.json", class_="soft")] if more else []
    return [element("div", whole, class_="scroll"), *rest]


def _sorter(text: str, kind: str) -> Html:
    button = element("button", text, type="button", disabled="", data_sort=kind)
    return element("th", button, scope="col", class_="number" if kind == "number" else None)


def _table_row(video: VideoResult, names: Sequence[str], place: int | None) -> Html:
    name = element("a", video.name, href=f"#video-{place}") if place is not None else video.name
    cells = [element("td", video.frames, class_="number", data_value=video.frames)]
    for value in (video.values.get(name) for name in names):
        text = show(value)
        known = "" if text == NONE else value
        cells.append(element("td", text, class_="number", data_value=known))
    return element("tr", element("th", name, scope="row"), *cells)


def _left_out(results: Results) -> list[Html]:
    if not results.skipped:
        return [element("p", "No video was left out.")]
    rows = [(skip.name, skip.reason) for skip in results.skipped[:ROWS]]
    more = len(results.skipped) - len(rows)
    rest = [element("p", f"and {more:,} more in results.json", class_="soft")] if more else []
    return [table(["video", "reason"], rows), *rest]


def _again(results: Results, out: str) -> list[Html]:
    lines = "\n".join(commands(results, out))
    return [
        element("pre", element("code", lines)),
        element("h3", "Where this ran"),
        table(["what", "value"], list(flat(results.environment))),
    ]
