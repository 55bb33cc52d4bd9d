"""The folder of a dataset: begun once, continued with the same settings and sources, versions beside it."""

import io
import json
import shutil
import tarfile
from pathlib import Path

import pyarrow.parquet as pq
import pytest

import data_prep.build as building
from data_prep.build import build, build_slice
from data_prep.dataset import read_units
from data_prep.schema import PATH, record_faults
from data_prep.slices import Slice
from live2diff.cli import main
from live2diff.errors import DataError, UsageError
from tests.data_prep.fake import FakeChildren, contents, make_sources

ROOT = Path(__file__).parents[2]
SMALL = ["prep=tiny", "sources_per_shard=5", "val_fraction=0.2", "workers=2"]


@pytest.fixture(autouse=True)
def fake(monkeypatch):
    monkeypatch.setattr(building, "Children", FakeChildren)


@pytest.fixture
def sources(tmp_path: Path) -> Path:
    return make_sources(tmp_path / "in")


def index(out: Path) -> list[dict]:
    return pq.read_table(out / "index.parquet").to_pylist()


def test_the_index_has_a_row_per_clip_per_dropped_clip_and_per_rejected_input(sources, tmp_path):
    summary = build([str(sources)], tmp_path / "out", SMALL)
    rows = index(tmp_path / "out")
    kinds = {
        kind: sorted(row["uri"][3:6] for row in rows if row["kind"] == kind) for kind in ("clip", "dropped")
    }
    assert kinds["clip"] == ["000", "001", "002", "004", "006", "007", "007", "008", "009", "010", "011"]
    assert kinds["dropped"] == ["005"]
    rejected = {row["uri"]: row["reason"] for row in rows if row["kind"] == "rejected"}
    assert rejected == {
        "in/003.mp4": "too short: 3 frames, a clip needs 16",
        "in/005.mp4": "all clips dropped: 1 static",
    }
    assert {row["key"] for row in rows if row["kind"] == "rejected"} == {None}
    assert [row["reason"] for row in rows if row["kind"] == "dropped"] == [
        "static: motion 0, at least 0.003 is wanted"
    ]
    assert (summary.inputs, summary.clips, summary.dropped, summary.rejected) == (12, 11, 1, 2)
    manifest = json.loads((tmp_path / "out/dataset.json").read_text())
    assert manifest["rejected"] == {"all clips dropped": 1, "too short": 1} and manifest["dropped"] == {
        "static": 1
    }


def test_every_row_points_at_its_clip_and_says_what_the_record_says(sources, tmp_path):
    build([str(sources)], tmp_path / "out", SMALL)
    found = {}
    for path in (tmp_path / "out").glob("*/clips-*.tar"):
        with tarfile.open(path) as tar:
            for name in tar.getnames():
                if name.endswith(".json"):
                    member = tar.extractfile(name)
                    assert member
                    record = json.load(member)
                    assert not list(record_faults(record)) and record["dropped"] is None
                    found[f"{path.parent.name}/{path.name}", record["key"]] = record
    rows = {(row["shard"], row["key"]): row for row in index(tmp_path / "out") if row["kind"] == "clip"}
    assert found.keys() == rows.keys()
    for place, row in rows.items():
        record = found[place]
        assert [row["start_s"], row["end_s"]] == record["span_s"]
        assert [row["first_frame"], row["stop_frame"]] == record["frame_range"]
        assert [row["width"], row["height"]] == record["size"]
        assert [row["source_width"], row["source_height"]] == record["source"]["size"]
        assert row["score_motion"] == record["scores"]["motion"]
        assert row["fingerprint"] == record["scores"]["fingerprint"]
        for name in ("frames", "repeated", "fps", "shot", "clip", "caption", "caption_source"):
            assert row[name] == record[name]
        for name in ("sha1", "uri", "rotation", "codec", "pixel_format", "transfer", "hdr", "interlaced"):
            assert row[name] == record["source"][name]


def test_the_schema_notices_what_is_missing_or_wrong(sources, tmp_path):
    build([str(sources)], tmp_path / "out", SMALL)
    record = json.loads((tmp_path / "out/train/clips-000000.json").read_text())["records"][0]
    schema = json.loads(PATH.read_text())
    assert set(schema["properties"]) == set(record) == set(schema["required"])
    assert set(schema["properties"]["source"]["properties"]) == set(record["source"])
    for key in record:
        assert list(record_faults({name: value for name, value in record.items() if name != key}))
        assert list(record_faults({**record, key: object()}))
    assert not list(record_faults({**record, "a key of a later version": 1}))


def test_the_documentation_lists_every_key_and_column(sources, tmp_path):
    build([str(sources)], tmp_path / "out", SMALL)
    text = (ROOT / "docs/dataset.md").read_text()
    schema = json.loads(PATH.read_text())
    names = {*schema["properties"], *schema["properties"]["source"]["properties"]}
    names |= set(pq.read_schema(tmp_path / "out/index.parquet").names)
    assert not [name for name in names if f"`{name}`" not in text]


def test_a_record_against_the_schema_is_never_written(sources, tmp_path, monkeypatch):
    real = FakeChildren._clip
    monkeypatch.setattr(FakeChildren, "_clip", lambda *args: {**real(*args), "frames": "16"})
    with pytest.raises(ValueError, match="against the schema: frames: '16' is not of type 'integer'"):
        build([str(sources)], tmp_path / "out", SMALL)
    assert not list((tmp_path / "out").glob("*/clips-*"))


def test_captions_come_from_the_column_then_the_tar_then_the_side_car(tmp_path):
    folder = make_sources(tmp_path / "in", 3)
    (folder / "000.txt").write_text("of the side-car")
    (folder / "001.txt").write_text("of the side-car")
    (folder / "list.csv").write_text("path,caption\n000.mp4,of the column\n001.mp4,\n002.mp4,\ngone.mp4,x\n")
    with tarfile.open(folder / "set.tar", "w") as tar:
        for name, data in (("a.mp4", b"good in a tar"), ("a.txt", b"of the tar"), ("b.mp4", b"good too")):
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    build([str(folder / "list.csv"), str(folder / "set.tar")], tmp_path / "out", [*SMALL, "val_fraction=0"])
    found = {
        row["uri"]: (row["caption"], row["caption_source"], row["reason"]) for row in index(tmp_path / "out")
    }
    assert found == {
        "000.mp4": ("of the column", "column", None),
        "001.mp4": ("of the side-car", "sidecar", None),
        "002.mp4": ("", "none", None),
        "gone.mp4": (None, None, "cannot be read: it is gone, or a link to nothing"),
        "set.tar/a.mp4": ("of the tar", "tar", None),
        "set.tar/b.mp4": ("", "none", None),
    }
    assert not list((tmp_path / "out").glob(".*"))


def test_a_captioner_writes_what_is_missing(tmp_path, monkeypatch):
    """The real one has tests of its own; here it is when it is asked, and what is kept of it."""
    import data_prep.captioner as module
    from live2diff.video import write_video
    from tests.data_prep.videos import blocks

    class Fake:
        identity = {"model": "fake", "weights_sha256": "0"}

        def __init__(self, model, prompt, device):
            assert (model, prompt, device) == ("some/model", None, "auto")

        def __call__(self, image):
            return f"a picture of {image.shape[1]}x{image.shape[0]}"

    def clip(self, data, folder, number):
        write_video(folder / "clip.mp4", blocks(16, 0), 8)
        return {**real(self, data, folder, number), "file": "clip.mp4", "size": [96, 64]}

    real = FakeChildren._clip
    monkeypatch.setattr(FakeChildren, "_clip", clip)
    monkeypatch.setattr(module, "Captioner", Fake)
    folder = make_sources(tmp_path / "in", 2)
    (folder / "000.txt").write_text("by hand")
    build([str(folder)], tmp_path / "out", [*SMALL, "val_fraction=0", "captioner=some/model"])
    assert {(row["caption"], row["caption_source"]) for row in index(tmp_path / "out")} == {
        ("by hand", "sidecar"),
        ("a picture of 96x64", "captioner"),
    }
    with tarfile.open(tmp_path / "out/train/clips-000000.tar") as tar:
        texts = {tar.extractfile(name).read() for name in tar.getnames() if name.endswith(".txt")}  # type: ignore
    assert texts == {b"by hand", b"a picture of 96x64"}
    assert json.loads((tmp_path / "out/dataset.json").read_text())["captioners"] == [Fake.identity]


def test_near_duplicates_are_listed_and_passed_over_only_if_asked_for(tmp_path):
    """The fake children give "x" and "x+" the same fingerprint. Validation keeps its clip."""
    folder = tmp_path / "in"
    folder.mkdir()
    for number in range(20):
        (folder / f"{number:02d}.mp4").write_bytes(b"good %02d" % number)
        (folder / f"{number:02d}-copy.mp4").write_bytes(b"good %02d+" % number)
    build([str(folder)], tmp_path / "scored", SMALL)
    assert not (tmp_path / "scored/duplicates.jsonl").exists()
    summary = build([str(folder)], tmp_path / "out", [*SMALL, "max_duplicate_distance=0"])
    rows = {row["key"]: row for row in index(tmp_path / "out")}
    pairs = [json.loads(line) for line in (tmp_path / "out/duplicates.jsonl").read_text().splitlines()]
    assert len(pairs) == summary.duplicates == 20
    for pair in pairs:
        first, second = rows[pair["duplicate_of"]], rows[pair["key"]]
        assert first["uri"][3:5] == second["uri"][3:5] and pair["distance"] == 0
        assert (first["split"], second["split"]) != ("train", "val")
    assert {first["split"] for first in (rows[pair["duplicate_of"]] for pair in pairs)} == {"train", "val"}
    scored = {row["key"]: row["duplicate_of"] for row in index(tmp_path / "scored")}
    assert scored == {key: row["duplicate_of"] for key, row in rows.items()}


def test_other_settings_are_refused_or_begin_a_version_beside(sources, tmp_path):
    out = tmp_path / "out"
    build([str(sources)], out, SMALL)
    before = contents(out)
    with pytest.raises(UsageError, match="size was 64, now 32.*--new-version"):
        build([str(sources)], out, [*SMALL, "size=32"])
    assert build([str(sources)], out, [*SMALL, "size=32"], new_version=True).out == f"{out}-v2"
    assert build([str(sources)], out, [*SMALL, "size=48"], new_version=True).out == f"{out}-v3"
    assert build([str(sources)], out, [*SMALL, "size=32"], new_version=True).out == f"{out}-v2"
    assert build([str(sources)], out, SMALL, new_version=True).out == str(out)
    assert contents(out) == before
    (sources / "new.mp4").write_bytes(b"good new")
    with pytest.raises(UsageError, match=r"1 new or changed \(such as in/new.mp4\)"):
        build([str(sources)], out, SMALL)
    assert build([str(sources)], out, SMALL, new_version=True).out == f"{out}-v4"
    assert {path.name for path in tmp_path.iterdir()} == {"in", "out", "out-v2", "out-v3", "out-v4"}


def test_slices_agree_on_a_version(sources, tmp_path, capsys):
    out = tmp_path / "out"
    build([str(sources)], out, SMALL)
    for index_ in range(2):
        build_slice([str(sources)], out, [*SMALL, "size=32"], Slice(index_, 2), new_version=True)
    assert f"version: {out}-v2" in capsys.readouterr().out
    assert main(["data", "build", "--merge", "--out", f"{out}-v2"]) == 0
    assert not Path(f"{out}-v3").exists()


def test_a_new_version_of_nothing_is_the_folder_itself(sources, tmp_path):
    assert build([str(sources)], tmp_path / "out", SMALL, new_version=True).out == str(tmp_path / "out")


def test_changed_captions_are_other_sources(tmp_path):
    folder = make_sources(tmp_path / "in", 3)
    table = folder / "list.csv"
    table.write_text("path,caption\n000.mp4,one\n001.mp4,two\n")
    build([str(table)], tmp_path / "out", SMALL)
    table.write_text("path,caption\n000.mp4,one\n001.mp4,three\n")
    with pytest.raises(UsageError, match=r"1 with a new caption \(such as 001.mp4\)"):
        build([str(table)], tmp_path / "out", SMALL)


def test_a_moved_folder_is_the_same_sources(sources, tmp_path):
    out = tmp_path / "out"
    build([str(sources)], out, SMALL)
    before = contents(out)
    (out / "train/clips-000000.json").unlink()
    moved = tmp_path / "elsewhere/in"
    moved.parent.mkdir()
    shutil.move(sources, moved)
    build([str(moved)], out, SMALL)
    after = contents(out)
    assert {source.path for unit in read_units(out) for source in unit.sources} == set(
        map(str, moved.iterdir())
    )
    assert {**after, "worklist.jsonl": b""} == {**before, "worklist.jsonl": b""}


@pytest.mark.parametrize(
    "words", [["nowhere"], ["."], ["nowhere", "--new-version"], ["nowhere", "--slice", "0/2"]]
)
def test_what_never_began_leaves_nothing_behind(tmp_path, monkeypatch, capsys, words):
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    assert main(["data", "build", *words, "--out", str(tmp_path / "out")]) == 2
    assert "error: " in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_what_a_kill_left_at_the_top_is_removed(sources, tmp_path):
    out = tmp_path / "out"
    build([str(sources)], out, SMALL)
    before = contents(out)
    for name in (".staged-01234567-index.parquet", ".work/train-clips-000000-x/a.mp4", ".locks/dataset"):
        (out / name).parent.mkdir(exist_ok=True, parents=True)
        (out / name).write_text("half")
    build([str(sources)], out, SMALL)
    assert contents(out) == before


def test_a_damaged_side_car_is_named(sources, tmp_path):
    build([str(sources)], tmp_path / "out", SMALL)
    (tmp_path / "out/train/clips-000001.json").write_text("{")
    with pytest.raises(DataError, match="clips-000001.json: cannot be read"):
        build([str(sources)], tmp_path / "out", SMALL)


def test_lines_for_a_machine_are_json_and_say_the_same(sources, tmp_path, capsys):
    assert main(["data", "build", str(sources), "--out", str(tmp_path / "out"), *SMALL, "--json"]) == 0
    events = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    kinds = [event["event"] for event in events]
    assert kinds.count("file") == 12 and kinds.count("shard") == 3 and kinds[-1] == "summary"
    assert sum(event["clips"] for event in events if event["event"] == "shard") == events[-1]["clips"] == 11


@pytest.mark.parametrize(
    "words",
    [
        ["--merge", "SRC"],
        ["--merge", "size=32"],
        ["--merge", "--slice", "0/2"],
        ["--slice", "2/2", "SRC"],
        [],
    ],
)
def test_wrong_words_are_one_line(sources, tmp_path, capsys, words):
    words = [str(sources) if word == "SRC" else word for word in words]
    assert main(["data", "build", *words, "--out", str(tmp_path / "out")]) == 2
    assert capsys.readouterr().err.count("\n") == 1 and not (tmp_path / "out").exists()
