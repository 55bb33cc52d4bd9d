"""The report in a headless Chromium: its script runs, its players stay in step, and it can be looked at."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

from live2diff.eval.flow import make_flow
from live2diff.eval.report import write_report
from live2diff.eval.report.worst import masks_by
from tests.eval.chromium import Browser, find
from tests.eval.reports import FRAMES, SIZE, small_results

WORST = 6  # the first of the worst frames of every small video


@pytest.fixture(scope="module")
def report(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("browser")
    write_report(small_results(folder), folder, masks_by(make_flow("dis")))
    return folder / "report.html"


@pytest.fixture(scope="module")
def browser(tmp_path_factory) -> Iterator[Browser]:
    program = find()
    if program is None:
        pytest.skip("needs Chromium: apt-get install chromium")
    browser = Browser(program, tmp_path_factory.mktemp("profile"))
    yield browser
    browser.close()


@pytest.fixture
def page(browser: Browser, report: Path) -> Browser:
    browser.open(report)
    browser.ask("player = document.querySelector('.player'); player.scrollIntoView(); undefined")
    browser.wait("player.dataset.loaded !== undefined")
    return browser


def pixel(page: Browser, show: str, of: str, x: int, y: int) -> list[int]:
    """Red, green, blue of a canvas of the first player."""
    canvas = f"player.querySelector('[data-show={show}][data-of={of}]')"
    return page.ask(f"[...{canvas}.getContext('2d').getImageData({x}, {y}, 1, 1).data].slice(0, 3)")


def frames(page: Browser) -> list[int]:
    """The frame that source and output show, from their pixels, and the one that is written below them."""
    seen = [round(pixel(page, "picture", of, 30, 20)[1] / 12) for of in ("source", "output")]
    return [*seen, int(page.ask("player.querySelector('[data-say=frame]').textContent"))]


def place(page: Browser, selector: str) -> list[float]:
    """Left, top, width and height of a part of the first player, in the window."""
    box = f"player.querySelector('{selector}').getBoundingClientRect()"
    return page.ask(f"(box => [box.left, box.top, box.width, box.height])({box})")


def drag(page: Browser, do: str, value: int) -> None:
    slider = f"player.querySelector('[data-do={do}]')"
    page.ask(f"{slider}.value = {value}; {slider}.dispatchEvent(new Event('input')); undefined")


def test_players_stay_in_step_and_slices_follow_the_row(page: Browser):
    assert frames(page) == [WORST] * 3  # it opens with the worst frame
    drag(page, "frame", 17)
    assert frames(page) == [17] * 3
    for row in (4, 40):
        drag(page, "row", row)
        for of, blue in (("source", 0), ("output", 40)):
            for frame in (0, 11, FRAMES - 1):  # time runs down
                expected = np.array([row * 5, frame * 12, blue])
                assert np.abs(pixel(page, "slice", of, 30, frame) - expected).max() < 12
    assert page.ask("player.querySelector('[data-say=row]').textContent") == "40"

    page.ask("player.querySelector('[data-do=frame]').focus()")
    page.press("ArrowLeft", 37)
    assert frames(page) == [16] * 3
    page.ask("player.querySelector('[data-do=next]').click()")
    assert frames(page) == [17] * 3
    page.ask("player.querySelector('[data-do=play]').focus()")
    page.press(" ", 32)
    page.wait("player.querySelector('[data-say=frame]').textContent < 10")  # on past the end, from the start
    page.press(" ", 32)
    assert page.ask("player.querySelector('[data-do=play]').textContent") == "Play"
    assert len(set(frames(page))) == 1

    left, top, width, height = place(page, ".line svg")
    page.click(left + width * 12.5 / FRAMES, top + height / 2)
    assert frames(page) == [12] * 3
    left, top, width, height = place(page, "[data-show=picture]")
    page.click(left + width / 2, top + height * 10.5 / SIZE[1])
    assert page.ask("player.querySelector('[data-say=row]').textContent") == "10"
    page.ask("player.querySelector('button[data-frame]').click()")
    assert frames(page) == [WORST] * 3
    page.ask("document.querySelectorAll('a[data-frame]')[1].click()")
    assert frames(page) == [13] * 3


def test_the_table_sorts_with_unknown_values_last(page: Browser):
    column = (
        "[...document.querySelectorAll('#table ~ .scroll tbody tr')].map(row => row.cells[3].textContent)"
    )
    assert page.ask(column) == ["–", "97.50"]
    for expected in ("ascending", "descending"):
        page.ask("document.querySelectorAll('th button')[3].click()")
        assert page.ask(column) == ["97.50", "–"]
        assert page.ask("document.querySelectorAll('th button')[3].parentElement.ariaSort") == expected


@pytest.mark.parametrize(("width", "dark"), [(1280, False), (1280, True), (400, False)])
def test_it_looks_like_something(browser: Browser, report: Path, tmp_path: Path, width: int, dark: bool):
    browser.open(report, width, 900, dark)
    assert browser.ask("document.documentElement.scrollWidth") <= width  # nothing hangs out at the side
    browser.ask("document.querySelector('.player').scrollIntoView()")
    browser.wait("document.querySelector('.player').dataset.loaded !== undefined")
    shot = browser.screenshot()
    (tmp_path / "report.png").write_bytes(shot)
    picture = cv2.imdecode(np.frombuffer(shot, np.uint8), cv2.IMREAD_COLOR)
    assert picture.shape[:2] == (900, width)
    assert (np.median(picture) < 60) == dark
    colours = np.unique((picture // 16).reshape(-1, 3), axis=0)
    assert len(colours) > 40 and picture.std() > 10
    # Nothing was asked of anyone, the page's policy stopped nothing, and nothing hostile ran.
    assert browser.console == []
    assert {url.partition(":")[0] for url in browser.requests} <= {"file", "data"}
    assert browser.ask("document.title").startswith("Evaluation of")
