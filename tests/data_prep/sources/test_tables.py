"""Tables that list videos, sound and hostile."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data_prep.sources import list_sources
from live2diff.errors import UsageError

ROWS = [("a.mp4", "a fox"), ("x/b.mp4", 'says "hi", twice'), ("a b ü.mov", ""), ("gone.mp4", "never")]


def write_table(path: Path, rows=ROWS, columns=("path", "caption")) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    dicts = [dict(zip(columns, row, strict=True)) for row in rows]
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(dicts), path)
    elif path.suffix == ".jsonl":
        path.write_text("\n".join(map(json.dumps, dicts)) + "\n\n")
    else:
        import csv

        with open(path, "w", newline="", encoding="utf-8-sig" if path.suffix == ".csv" else "utf-8") as file:
            writer = csv.writer(file, delimiter="," if path.suffix == ".csv" else "\t")
            writer.writerows([columns, *rows])
    return path


@pytest.fixture
def videos(tmp_path: Path) -> Path:
    for name, _ in ROWS[:-1]:
        file = tmp_path / "in" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(name)
    return tmp_path / "in"


@pytest.mark.parametrize("suffix", ["csv", "tsv", "jsonl", "parquet"])
def test_rows_become_sources_and_missing_files_too(videos: Path, suffix: str):
    found = list_sources([str(write_table(videos / f"list.{suffix}"))])
    assert [(s.split_name, s.caption, s.caption_source, s.bytes) for s in found] == [
        ("a b ü.mov", "", "none", 10),
        ("a.mp4", "a fox", "column", 5),
        ("gone.mp4", "never", "column", 0),
        ("x/b.mp4", 'says "hi", twice', "column", 7),
    ]
    assert {s.path for s in found} == {str(videos / name) for name, _ in ROWS}
    assert not any(s.fault for s in found)  # a missing file is told when it is fetched


def test_columns_are_named_and_absolute_paths_kept(videos: Path, tmp_path: Path):
    rows = [(str(videos / "a.mp4"), "one", "1")]
    table = write_table(tmp_path / "lists/t.csv", rows, ("file", "text", "id"))
    (source,) = list_sources([str(table)], path_column="file", caption_column="text")
    assert (source.path, source.uri, source.caption) == (str(videos / "a.mp4"), str(videos / "a.mp4"), "one")


def test_a_table_beside_a_folder_gives_the_captions(videos: Path):
    table = write_table(videos / "list.csv")
    for order in ([str(videos), str(table)], [str(table), str(videos)]):
        found = {source.uri: source.caption for source in list_sources(order)}
        assert found == {f"in/{name}": caption for name, caption in ROWS}


def test_what_is_odd_is_noted(videos: Path):
    notes: list[str] = []
    list_sources([str(write_table(videos / "a.csv", [("a.mp4",)], ("path",)))], note=notes.append)
    twice = [("a.mp4", "one"), ("a.mp4", "two"), ("x/b.mp4", "three")]
    found = list_sources([str(write_table(videos / "b.csv", twice))], note=notes.append)
    assert [source.caption for source in found] == ["one", "three"]
    assert "no column 'caption'" in notes[0] and notes[1].startswith("1 rows name a video that has a caption")


def test_rows_without_a_usable_path_are_rejected_inputs(videos: Path):
    rows = [
        ("a.mp4", ""),
        ("", "a caption"),
        ("nosuch://x/y.mp4", ""),
        ("zip://a::b.zip", ""),
        ("a\0b.mp4", ""),
    ]
    found = {s.uri: s for s in list_sources([str(write_table(videos / "list.jsonl", rows))])}
    assert found["list.jsonl:2"].fault == "names no file: row 2 has no path"
    assert "row 3: its path: cannot be opened" in str(found["list.jsonl:3"].fault)
    assert "chained URLs" in str(found["list.jsonl:4"].fault)
    with pytest.raises(Exception, match="null"):
        found["a\0b.mp4"].fetch(videos, 1)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (
            "t.csv",
            "file,caption\na.mp4,x\n",
            r"t.csv: no column 'path', only 'file', 'caption'; set path_column",
        ),
        (
            "t.csv",
            "path,caption\na.mp4,x\nb.mp4," + "y" * 2_000_000,
            "t.csv: row 2 cannot be read: .* longer",
        ),
        ("t.csv", 'path,caption\na.mp4,"' + "y\n" * 200_000, "t.csv: row 1 cannot be read: field larger"),
        ("t.jsonl", '{"path": "a.mp4"}\n{"path": \n', "t.jsonl: row 2 cannot be read: Expecting value"),
        (
            "t.jsonl",
            '{"path": "a.mp4"}\n["a"]\n',
            "t.jsonl: row 2 cannot be read: it is no JSON object, but list",
        ),
        ("t.jsonl", '{"path": 3}\n', "t.jsonl: row 1 cannot be read: its path is no text, but int"),
        ("t.jsonl", '{"path": "a.mp4", "caption": ["a"]}\n', "row 1 cannot be read: its caption is no text"),
        ("t.jsonl", '{"path": ' + "[" * 500_000, "t.jsonl: row 1 cannot be read: maximum recursion"),
        ("t.jsonl", '{"path": ' + "1" * 5000 + "}", "t.jsonl: row 1 cannot be read"),
        ("t.parquet", "PAR1 not really", "t.parquet: row 1 cannot be read"),
        ("t.csv", "\x89PNG\x00\x01\x02" * 50, "t.csv"),
        ("t.csv", "path,caption\n", "holds no video"),
        ("t.csv", "", "holds no video"),
    ],
)
def test_hostile_tables_are_one_line(tmp_path: Path, name: str, content: str, message: str):
    (tmp_path / name).write_text(content, encoding="latin-1")
    with pytest.raises(UsageError, match=message) as caught:
        list_sources([str(tmp_path / name)])
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 600


def test_a_parquet_file_without_the_column_names_those_it_has(tmp_path: Path):
    with pytest.raises(UsageError, match="no column 'path', only 'file', 'caption'"):
        list_sources([str(write_table(tmp_path / "t.parquet", [("a.mp4", "")], ("file", "caption")))])
    with pytest.raises(UsageError, match="its path is no text, but int"):
        list_sources([str(write_table(tmp_path / "t.parquet", [(3, "")], ("path", "caption")))])


def test_a_giant_text_in_every_row_is_refused_and_not_multiplied(tmp_path: Path):
    column = pa.DictionaryArray.from_arrays(pa.array([0] * 1000, pa.int32()), pa.array(["x" * 5_000_000]))
    pq.write_table(pa.table({"path": column}), tmp_path / "t.parquet")
    with pytest.raises(UsageError, match="row 1 cannot be read: its path is longer"):
        list_sources([str(tmp_path / "t.parquet")])
