"""The report: it loads nothing, believes no text, shows everything, and stays small."""

from __future__ import annotations

import base64
import math
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import cv2
import numpy as np
import pytest

from live2diff.eval.flow import make_flow
from live2diff.eval.paper import FIGURES, differences
from live2diff.eval.report import page as page_module
from live2diff.eval.report import write_report
from live2diff.eval.report.again import commands, rule_of
from live2diff.eval.report.markdown import text
from live2diff.eval.report.page import write_page
from live2diff.eval.report.ranking import worst_frames, worst_videos
from live2diff.eval.report.sheets import COLUMNS, MOST, make_sheet, shrink
from live2diff.eval.report.sparkline import sparkline, worst_at
from live2diff.eval.report.words import show
from live2diff.eval.report.worst import masks_by, tinted
from live2diff.eval.results import Figure, Results, Skipped
from tests.eval.reports import (
    FRAMES,
    HOSTILE_CAPTION,
    HOSTILE_NAME,
    HOSTILE_REASON,
    SIZE,
    picture,
    small_results,
    video,
)

MASKS = masks_by(make_flow("dis"))


class Page(HTMLParser):
    """Elements and text of a page; fails on tags that do not match."""

    def __init__(self, source: str):
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self._open: list[str] = []
        self.feed(source)
        self.close()
        assert not self._open

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in ("meta", "img", "br", "input"):
            self._open.append(tag)

    def handle_endtag(self, tag):
        assert self._open.pop() == tag

    def handle_data(self, data):
        if self._open[-1:] not in (["style"], ["script"]):
            self.words.append(data)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


@pytest.fixture(scope="module")
def results(tmp_path_factory) -> Results:
    return small_results(tmp_path_factory.mktemp("report"))


@pytest.fixture(scope="module")
def out(results: Results, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("out")
    write_report(results, folder, MASKS)
    return folder


@pytest.fixture(scope="module")
def page(out: Path) -> Page:
    return Page((out / "report.html").read_text())


def test_the_page_loads_nothing_and_runs_one_script(out: Path, page: Page):
    source = (out / "report.html").read_text()
    for word in ("http:", "https:", "url(", "@import", "fetch(", "innerHTML", "eval("):
        assert word not in source.replace(HOSTILE_CAPTION, "").replace("http://c.d", ""), word
    for tag, attributes in page.elements:
        assert tag not in ("link", "iframe", "object", "embed", "form", "base", "video"), tag
        assert not [name for name in attributes if name.startswith("on")]
        for name in ("src", "href", "srcset", "data", "data-source"):
            value = attributes.get(name)
            assert value is None or value.startswith(("data:image/", "#")), (tag, value)
    assert len(page.all("script")) == 1
    (policy,) = [a["content"] for a in page.all("meta") if a.get("http-equiv")]
    assert re.fullmatch(
        r"default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; "
        r"script-src 'sha256-[\w+/]{43}='",
        policy or "",
    )


def test_names_captions_and_reasons_are_text(page: Page):
    words = "".join(page.words)
    for hostile in (HOSTILE_NAME, HOSTILE_CAPTION, HOSTILE_REASON, "<b>some</b>"):
        assert hostile in words


def test_it_can_be_used_without_seeing_or_pointing(page: Page):
    ids = [a["id"] for _, a in page.elements if "id" in a]
    links = [a["href"][1:] for a in page.all("a") if a["href"]]
    assert len(set(ids)) == len(ids) and set(links) <= set(ids) and len(links) > 5
    assert all(a.get("alt") for a in page.all("img"))
    assert all(a.get("aria-label") and a["role"] == "img" for tag in ("svg", "canvas") for a in page.all(tag))
    assert all(a.get("aria-label") for tag in ("input", "select") for a in page.all(tag))
    assert all(a["type"] == "button" and "disabled" in a for a in page.all("button"))  # until the script runs
    headings = [int(tag[1]) for tag, _ in page.elements if re.fullmatch(r"h\d", tag)]
    assert headings.count(1) == 1 and set(headings) == {1, 2, 3}


def test_everything_is_on_it(page: Page, results: Results):
    words = "".join(page.words)
    expected = ["Warp error", "0.01230", "0.01000 to 0.02000", "0.0967", "not comparable", "dis medium"]
    expected += ["not known of the paper: version, flow", "data not stated against DAVIS-2017", "camel"]
    expected += [*commands(results, "X")[0].split(" --out")[:1], "versions.torch", "what counts of frame 5"]
    for one in expected:
        assert one in words, one
    assert "nan" not in words.lower().replace("nance", "") and "None" not in words
    players = [a for a in page.all("div") if (a.get("class") or "").startswith("player")]
    assert len(players) == 2
    # Each player has its two sheets, and its pictures come back out of them.
    sheets = [a for a in page.all("span") if "data-sheet" in a]
    assert [a["data-sheet"] for a in sheets] == ["source", "output"] * 2
    data = base64.b64decode((sheets[1]["data-source"] or "").partition(",")[2])
    sheet = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)[..., ::-1]
    width, height = SIZE
    last = sheet[height : 2 * height, 3 * width : 4 * width]  # frame 19 = 1 * 16 + 3
    assert np.abs(last.astype(int) - picture(FRAMES - 1, 40)).mean() < 4


def test_the_same_results_give_the_same_page(results: Results, out: Path):
    assert write_page(results, str(out), MASKS) == (out / "report.html").read_text()


def test_markdown_has_the_numbers_and_no_markup(out: Path):
    source = (out / "report.md").read_text()
    assert "| Warp error | 0.01230 | 0.01000 to 0.02000 | lower | 2 | 0.0967 | not comparable" in source
    assert "| Latency decode | – | – | lower | – | – | not in the paper |" in source
    assert "\\</script\\>" in source and not re.search(r"(?<!\\)<", source)
    assert "\n\\# heading" not in source  # a reason stays on its line
    tables = [block.splitlines() for block in source.split("\n\n") if block.startswith("|")]
    assert len(tables) == 4
    for lines in tables:  # no text makes a cell of its own
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in lines}) == 1


@pytest.mark.parametrize(
    ("words", "shown"),
    [
        ("a|b", "a\\|b"),
        ("[x](http://y)", "\\[x\\]\\(http\\://y\\)"),
        ("a\n# b\x1b[0m", "a \\# b \\[0m"),
        ("www.x.y", "www\\.x.y"),
        ("a: b", "a: b"),
    ],
)
def test_markdown_text_is_escaped(words, shown):
    assert text(words) == shown


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, "–"),
        (math.nan, "–"),
        (math.inf, "–"),
        (0.0967, "0.09670"),
        (96.0, "96"),
        (1234.5, "1234"),
        (0.0, "0"),
    ],
)
def test_numbers(value, shown):
    assert show(value) == shown


def test_a_figure_compares_with_the_paper_only_if_all_is_known_and_equal():
    paper = FIGURES["warp_error"]
    same = Figure(dict(paper.known), 0.1, 0.0, 0.2, "", "lower", 90)
    assert differences(same, paper) == []
    fewer = differences(replace(same, videos=12), paper)
    assert [(d.key, d.ours, d.paper) for d in fewer] == [("videos", 12, 90)]
    more = differences(replace(same, signature={**same.signature, "flow": "dis"}), paper)
    assert [(d.key, d.ours, d.paper) for d in more] == [("flow", "dis", None)]
    less = differences(replace(same, signature={"videos": 90, "data": "DAVIS-2017"}), paper)
    assert [(d.key, d.ours, d.paper) for d in less] == [("resolution", None, "768x512")]


def test_the_worst_come_first():
    folder = Path("x")
    made = [video(number, folder, folder, 40) for number in range(3)]
    results = Results("s", "p", {"warp_error": Figure({}, 1.0, None, None, "", "lower", 3)}, made)
    assert worst_videos(results, "warp_error") == [2, 1, 0]
    worst = worst_frames(results, "warp_error")
    assert len(worst) == 10
    values = [one.value for one in worst]
    assert values == sorted(values, reverse=True) and worst[0].video == 2
    for one in worst:
        assert made[one.video].per_frame["warp_error"][one.frame] == one.value
        assert all(o is one or o.video != one.video or abs(o.frame - one.frame) >= 4 for o in worst)
    better = {"warp_error": replace(results.figures["warp_error"], better="higher")}
    assert worst_videos(replace(results, figures=better), "warp_error") == [0, 1, 2]
    lowest = worst_frames(replace(results, figures=better), "warp_error")[0]
    assert lowest.value == min(v for v in made[0].per_frame["warp_error"] if v and math.isfinite(v))


def test_a_sparkline_has_gaps_and_marks_the_worst():
    values = [None, 1.0, 2.0, math.nan, 5.0, math.inf, 1.0, 1.0]
    line = sparkline(values, "lower", "l <b>", range(2, 6))
    (path,) = re.findall(r'class="line-of" d="([^"]*)"', line)
    assert path.count("M") == 3 and path.count("L") == 2
    assert 'viewBox="0 0 8 40"' in line and "&lt;b&gt;" in line and "nan" not in path
    assert re.search(r'class="worst" d="M4.5 4h0"', line)
    assert re.findall(r'class="away" x="(\d)" y="0" width="(\d)"', line) == [("0", "2"), ("6", "2")]
    assert (
        worst_at(values, "lower") == 4
        and worst_at(values, "higher") == 1
        and worst_at([None], "lower") is None
    )
    long = [float(at == 777) for at in range(10_000)]
    drawn = sparkline(long, "lower", "l", range(10_000))
    assert len(drawn) < 8000 and "777.5 4" in drawn  # thinned, but a single bad frame is still seen


def test_sheets_are_bounded():
    for shape in ((10, 3000, 3), (3000, 10, 3), (1080, 1920, 3), (2, 2, 3)):
        small = shrink(np.zeros(shape, np.uint8))
        assert max(small.shape) <= 640 and small.shape[0] * small.shape[1] <= 84_000 and min(small.shape) >= 1
    assert shrink(np.zeros((48, 64, 3), np.uint8)).shape == (48, 64, 3)
    sheet = cv2.imdecode(np.frombuffer(make_sheet([np.zeros((4, 6, 3), np.uint8)] * 17), np.uint8), 1)
    assert sheet.shape == (8, 6 * COLUMNS, 3)
    assert 640 * (MOST // COLUMNS) < 16383 and 640 * COLUMNS < 16383
    for count in (0, MOST + 1):
        with pytest.raises(ValueError, match="a sheet holds"):
            make_sheet([np.zeros((4, 6, 3), np.uint8)] * count)


def test_what_is_left_out_is_tinted():
    frame = np.full((2, 2, 3), 100, np.uint8)
    counts = np.array([[True, False], [True, True]])
    changed = (tinted(frame, counts) != frame).any(axis=-1)
    assert (changed == ~counts).all()


def test_many_videos_give_a_page_of_bounded_size(results: Results, monkeypatch):
    one = results.videos[1]
    many = [replace(one, name=f"v{n}", values={"warp_error": n / 100}) for n in range(90)]
    big = replace(results, videos=many, skipped=[Skipped(f"s{n}", "r" * 50) for n in range(3000)])
    monkeypatch.setattr(page_module, "PLAYERS", 3)
    words = "".join(Page(write_page(big, "out", None)).words)
    assert "The 3 of 90 videos that are worst" in words and "and 2,500 more in results.json" in words
    assert all(f"v{n}" in words for n in range(90))
    monkeypatch.setattr(page_module, "BUDGET", 100)  # bytes: not one player fits
    empty = write_page(big, "out", None)
    assert 'data-sheet="' not in empty and len(empty) < 1_000_000


def test_videos_that_are_gone_leave_the_numbers(results: Results, tmp_path: Path):
    gone = [replace(one, source=str(tmp_path / "none.mp4")) for one in results.videos]
    source = write_page(replace(results, videos=gone), "out", None)
    assert "no such video file" in source and "0.01230" in source and 'data-sheet="' not in source
    short = [replace(one, frames=99, per_frame={}) for one in results.videos]
    assert f"ends after {FRAMES} frames; 99 were measured" in write_page(
        replace(results, videos=short), "out", None
    )


def test_nothing_measured_is_a_page_too():
    source = write_page(Results("", "export", {}, []), "out", None)
    assert "Nothing was measured" in source and "No video was measured" in source


def test_the_command_repeats_the_settings_that_are_not_usual(results: Results):
    settings = {"flow": "dis", "size": [64, 32], "trigger": "it's; $x", "captions": None, "unknown": 1}
    made = replace(results, environment={"settings": settings, "model": {}}, source="a b")
    line = commands(made, "out dir")[0]
    assert "--source 'a b' --export" in line and "size=[64,32]" in line.replace("'", "")
    assert "flow" not in line and "unknown" not in line and "captions" not in line
    import shlex

    from live2diff.config import compose

    assert (
        compose("eval", [word for word in shlex.split(line) if word.startswith("trigger=")]).trigger
        == "it's; $x"
    )
    assert rule_of(made).size == (64, 32)
    for size in ([64, -1], "big", [1, 2, 3], [10**9, 10**9]):
        hostile = replace(made, environment={"settings": {"size": size, "fit": "explode"}})
        assert rule_of(hostile).size is None and rule_of(hostile).fit == "crop"
