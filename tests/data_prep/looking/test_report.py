"""`data report`: one page that loads nothing, believes no text, and shows everything."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from data_prep.finished import Finished
from data_prep.report import write_page
from data_prep.sheets import spread
from live2diff.cli import main
from tests.data_prep.looking.conftest import HOSTILE_CAPTION, HOSTILE_NAME


class Page(HTMLParser):
    """Elements and text of a page; fails on tags that do not match."""

    def __init__(self, text: str):
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert not self._open

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in ("meta", "img", "br"):
            self._open.append(tag)

    def handle_endtag(self, tag):
        assert self._open.pop() == tag

    def handle_data(self, data):
        if self._open[-1:] != ["style"]:
            self.words.append(data)


def test_the_page_loads_nothing(finished: Path, tmp_path: Path, capsys):
    out = tmp_path / "report.html"
    assert main(["data", "report", str(finished), "--out", str(out)]) == 0
    assert str(out) in capsys.readouterr().out
    text = out.read_text()
    page = Page(text)
    assert "http:" not in text and "https:" not in text and "url(" not in text and "@import" not in text
    for tag, attributes in page.elements:
        assert tag not in ("script", "link", "iframe", "object", "embed", "form", "base"), tag
        assert not [name for name in attributes if name.startswith("on")]
        for name in ("src", "href", "xlink:href", "srcset", "data", "action"):
            value = attributes.get(name)
            assert value is None or value.startswith(("data:image/", "#")), (tag, value)
    (policy,) = [a["content"] for tag, a in page.elements if a.get("http-equiv")]
    assert policy and policy.startswith("default-src 'none'")


def test_names_and_captions_are_text(finished: Path):
    page = Page(write_page(Finished(finished)))
    words = "".join(page.words)
    assert HOSTILE_CAPTION in words and HOSTILE_NAME in words
    assert all(
        a.get("src", "data:").startswith("data:image/jpeg;base64,") for t, a in page.elements if t == "img"
    )


def test_everything_is_on_it(finished: Path):
    text = write_page(Finished(finished))
    words = "".join(Page(text).words)
    for expected in (
        "two shots.mp4: cut before",
        "between shots 0 and 1",
        "then still.mp4",  # its still shot was dropped ...
        "static: motion 0",  # ... and here is why
        "page.mp4",
        "cannot be opened: not a video (looks like a web page)",
        "training passes over them",
        "Raw inverse depth",
        "Motion",
        "Brightness",
        "Duration",
        "max_duplicate_distance",
        "columns.depth.weights",
        "tools.scenedetect",
    ):
        assert expected in words, expected
    assert re.search(r"\d+ of 192 bits differ", words)


def test_it_can_be_read_without_seeing(finished: Path):
    page = Page(write_page(Finished(finished)))
    ids = [a["id"] for _, a in page.elements if "id" in a]
    links = [a["href"][1:] for tag, a in page.elements if tag == "a" and a["href"]]
    assert len(set(ids)) == len(ids) and set(links) <= set(ids) and len(links) > 5
    assert all(a.get("alt") for tag, a in page.elements if tag == "img")
    assert all(a["role"] == "img" and a["aria-label"] for tag, a in page.elements if tag == "svg")
    assert ("html", {"lang": "en"}) in page.elements
    headings = [int(tag[1]) for tag, _ in page.elements if re.fullmatch(r"h\d", tag)]
    assert headings.count(1) == 1 and set(headings) == {1, 2, 3}


def test_the_same_dataset_gives_the_same_page(finished: Path):
    assert write_page(Finished(finished)) == write_page(Finished(finished))


def test_a_large_dataset_gives_a_page_of_bounded_size(copy: Path):
    small = len(write_page(Finished(copy)))
    table = pq.read_table(copy / "index.parquet")
    rows = table.to_pylist()
    clips = [row for row in rows if row["kind"] == "clip"]
    rejected = [
        {**row, "uri": f"{row['uri']}{n}"} for row in rows if row["kind"] == "rejected" for n in range(3000)
    ]
    many = [{**clip, "source_id": f"{n:012x}"} for n in range(3000) for clip in clips]
    pq.write_table(pa.Table.from_pylist(many + rejected, schema=table.schema), copy / "index.parquet")
    large = write_page(Finished(copy))
    assert len(large) < small + 48 * 40_000
    words = "".join(Page(large).words)
    assert "48 of 18,000 clips" in words and "and 2,800 more in index.parquet" in words


def test_a_damaged_clip_is_named_on_the_page(copy: Path):
    row = Finished(copy).clips.to_pylist()[0]
    (copy / row["shard"]).unlink()
    assert f"{row['key']}: is not in its shard" in "".join(Page(write_page(Finished(copy))).words)


def test_the_sample_takes_one_clip_of_each_source_first():
    sources = ["a"] * 50 + ["b", "c", "d"]
    clips = pa.table({"key": [f"k{n}" for n in range(53)], "source_id": sources})
    drawn = spread(clips, 4)
    assert {sources[number] for number in drawn} == {"a", "b", "c", "d"}
    assert spread(clips, 4) == drawn and len(spread(clips, 100)) == 53 and len(set(spread(clips, 20))) == 20


def test_a_wrong_target_is_refused(finished: Path, tmp_path: Path, capsys):
    assert main(["data", "report", str(finished), "--out", str(tmp_path)]) == 2
    assert "is a folder; name a file" in capsys.readouterr().err
    assert main(["data", "report", str(finished), "--out", "/proc/none/report.html"]) == 5
