"""A build from end to end: every input accounted for, the same bytes whatever happens on the way."""

import json
import os
import shutil
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from data_prep.build import build
from live2diff.cli import main
from live2diff.errors import DataError, UsageError
from tests.data_prep.fake import contents
from tests.data_prep.videos import blocks

ROOT = Path(__file__).parents[2]
TINY = ["prep=tiny", "sources_per_shard=2", "val_fraction=0.3"]


@pytest.fixture(scope="module")
def videos(tmp_path_factory) -> Path:
    """Four good videos, one with a cut, and five that give nothing."""
    from live2diff.video import write_video

    folder = tmp_path_factory.mktemp("build") / "videos"
    for number in range(3):
        write_video(folder / f"good {number}.mp4", blocks(60, number), 24)
    write_video(folder / "ünï 视频.mp4", blocks(60, 10) + blocks(60, 11), 24)
    (folder / "good 0.txt").write_text("a square moves")
    write_video(folder / "short.mp4", blocks(3, 20), 24)
    (folder / "text.mp4").write_text("<html>404</html>")
    shutil.copy(folder / "good 1.mp4", folder / "twin.mp4")
    (folder / "empty.webm").touch()
    os.mkfifo(folder / "pipe.mp4")
    return folder


@pytest.fixture(scope="module")
def dataset(videos: Path) -> Path:
    out = videos.parent / "dataset"
    build([str(videos)], str(out), [*TINY, "workers=2"])
    return out


def index(folder: Path) -> list[dict]:
    return pq.read_table(folder / "index.parquet").to_pylist()


def test_every_input_ends_as_clips_or_as_a_reason(dataset: Path):
    rows = index(dataset)
    clips = {row["uri"] for row in rows if row["kind"] == "clip"}
    reasons = {row["uri"]: row["reason"] for row in rows if row["kind"] == "rejected"}
    assert clips == {f"videos/good {number}.mp4" for number in range(3)} | {"videos/ünï 视频.mp4"}
    expected = {
        "videos/short.mp4": "too short: 1 frame at 8 fps, a clip needs 16",
        "videos/text.mp4": "cannot be opened: not a video (looks like a web page)",
        "videos/twin.mp4": "repeats another source: same bytes as videos/good 1.mp4",
        "videos/empty.webm": "cannot be opened: the file is empty",
        "videos/pipe.mp4": "not a regular file: a pipe, a device or a folder",
    }
    assert reasons == expected
    totals = json.loads((dataset / "dataset.json").read_text())["totals"]
    assert (totals["inputs"], totals["rejected"], totals["clips"]) == (9, 5, 5)


def test_shards_hold_what_the_index_says(dataset: Path):
    listed = {(row["shard"], row["key"]) for row in index(dataset) if row["kind"] == "clip"}
    found = set()
    for path in dataset.glob("*/clips-*.tar"):
        with tarfile.open(path) as tar:
            names = tar.getnames()
            for mp4, txt, record in zip(names[::3], names[1::3], names[2::3], strict=True):
                key = mp4.removesuffix(".mp4")
                assert "." not in key and [txt, record] == [f"{key}.txt", f"{key}.json"]
                found.add((path.relative_to(dataset).as_posix(), key))
    assert found == listed and len(found) == 5


def test_no_source_is_in_both_splits(dataset: Path):
    split = {}
    for row in index(dataset):
        assert split.setdefault(row["uri"], row["split"]) == row["split"]
    assert set(split.values()) == {"train", "val"}


def test_webdataset_reads_the_shards(dataset: Path):
    import webdataset as wds

    urls = sorted(str(path) for path in dataset.glob("*/clips-*.tar"))
    samples = list(wds.WebDataset(urls, shardshuffle=False, empty_check=False))
    assert len(samples) == 5
    for sample in samples:
        record = json.loads(sample["json"])
        assert record["key"] == sample["__key__"] and sample["mp4"][4:8] == b"ftyp"
        assert sample["txt"].decode() == record["caption"]
    assert {sample["txt"] for sample in samples} == {b"", b"a square moves"}


def test_one_worker_gives_the_same_bytes_as_two(videos: Path, dataset: Path, tmp_path: Path):
    build([str(videos)], str(tmp_path / "again"), [*TINY, "workers=1"])
    assert contents(tmp_path / "again") == contents(dataset)


def test_a_rerun_redoes_nothing(videos: Path, dataset: Path, capsys):
    before = {path: path.stat().st_mtime_ns for path in dataset.glob("*/clips-*")}
    summary = build([str(videos)], str(dataset), TINY)
    assert {path: path.stat().st_mtime_ns for path in dataset.glob("*/clips-*")} == before
    assert "9 files in finished shards already, 0 to do" in capsys.readouterr().out
    assert (summary.inputs, summary.clips, summary.rejected) == (9, 5, 5)


def test_kill_minus_nine_and_rerun_give_the_same_bytes(videos: Path, dataset: Path, tmp_path: Path):
    """With real children; tests of slices and of robustness kill more often."""
    out = tmp_path / "out"
    command = [sys.executable, "-m", "data_prep", str(videos), "--out", str(out), *TINY, "workers=2"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL) as process:
        while len(list(out.glob("*/clips-*.json"))) < 2:
            assert process.poll() is None
            time.sleep(0.005)
        process.kill()
    assert not (out / "dataset.json").exists()
    build([str(videos)], str(out), TINY)
    assert contents(out) == contents(dataset)


def test_another_plan_is_refused_with_the_difference(videos: Path, dataset: Path, tmp_path: Path):
    before = contents(dataset)
    with pytest.raises(UsageError, match="size was 64, now 32"):
        build([str(videos)], str(dataset), [*TINY, "size=32"])
    with pytest.raises(UsageError, match=r"gone or changed \(such as good 0.mp4\)|other sources"):
        build([str(videos / "good 1.mp4")], str(dataset), TINY)
    build([str(videos)], str(dataset), [*TINY, "timeout_s=61"])  # the way of running may change
    assert contents(dataset) == before


def test_a_folder_of_something_else_is_left_alone(videos: Path, tmp_path: Path):
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(UsageError, match="not empty"):
        build([str(videos)], str(tmp_path), TINY)
    assert contents(tmp_path) == {"thesis.tex": b""}


def test_nothing_usable_names_the_commonest_reason(tmp_path: Path):
    for name in ("a.mp4", "b.mp4"):
        (tmp_path / "in" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "in" / name).write_text(f"<html>{name}</html>")
    with pytest.raises(DataError, match=r"none of the 2 inputs.*\(2\): cannot be opened"):
        build([str(tmp_path / "in")], str(tmp_path / "out"), TINY)
    assert len(index(tmp_path / "out")) == 2 and not (tmp_path / "out/dataset.json").exists()


def test_the_command_tells_sources_from_settings_and_ends_with_the_next_step(movie, tmp_path, capsys):
    path = movie("a=b.mp4", blocks(60, 0))
    main(["data", "build", str(path), "prep=tiny", "--out", str(tmp_path / "out"), "fps=12"])
    printed = capsys.readouterr().out.splitlines()
    assert printed[0] == "a=b.mp4 -> 1 clip"
    assert printed[1].startswith("1 file -> 1 clip, 30 frames")
    assert printed[-1].startswith("next: live2diff train") and str(tmp_path / "out") in printed[-1]
