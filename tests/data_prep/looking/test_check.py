"""`data check` names exactly what was changed, and nothing else."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import io
import json
import random
import re
import shutil
import tarfile
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data_prep.check import check, run
from data_prep.finished import Finished
from data_prep.members import list_members, read_member
from data_prep.report import write_page
from live2diff.cli import main
from live2diff.errors import DataError, UsageError
from live2diff.video import VideoWriter
from tests.data_prep.videos import blocks

Members = list[tuple[str, bytes]]


def shard_of_two(dataset: Path) -> Path:
    """The tar of a shard with two clips."""
    shards = Finished(dataset).manifest["splits"]["train"]["shards"]
    return dataset / next(shard["name"] for shard in shards if shard["clips"] == 2)


def keys_of(tar: Path) -> list[str]:
    return [name.removesuffix(".json") for name in list_members(tar) if name.endswith(".json")]


def flip(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


def edit_json(path: Path, change: Callable[[Any], Any]) -> None:
    data = json.loads(path.read_text())
    change(data)
    path.write_text(json.dumps(data))


def edit_tar(tar: Path, change: Callable[[Members], Members]) -> None:
    """Rewrite a tar and make all hashes agree with it, as one who wants to deceive would."""
    members = [(name, read_member(tar, place)) for name, place in list_members(tar).items()]
    with tarfile.open(tar, "w", format=tarfile.USTAR_FORMAT) as file:
        for name, data in change(members):
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            file.addfile(entry, io.BytesIO(data))
    digest = hashlib.sha256(tar.read_bytes()).hexdigest()
    new = {"sha256": digest, "bytes": tar.stat().st_size}
    edit_json(tar.with_suffix(".json"), lambda data: data.update(new))
    if tar.name.startswith("clips-"):
        for column in ("latents", "depth", "text"):
            side_car = tar.with_name(tar.name.replace("clips", column)).with_suffix(".json")
            edit_json(side_car, lambda data: data.update(clips_sha256=digest))


def edit_member(tar: Path, name: str, change: Callable[[bytes], bytes]) -> None:
    edit_tar(tar, lambda members: [(n, change(data) if n == name else data) for n, data in members])


def edit_record(tar: Path, key: str, **values: Any) -> None:
    """Change a record in the tar and in the side-car."""

    def in_tar(data: bytes) -> bytes:
        return json.dumps({**json.loads(data), **values}).encode()

    def in_side_car(data: dict[str, Any]) -> None:
        (record,) = (record for record in data["records"] if record["key"] == key)
        record.update(values)

    edit_json(tar.with_suffix(".json"), in_side_car)
    edit_member(tar, f"{key}.json", in_tar)


def edit_index(dataset: Path, change: Callable[[list[dict[str, Any]]], Any]) -> None:
    table = pq.read_table(dataset / "index.parquet")
    rows = table.to_pylist()
    change(rows)
    pq.write_table(pa.Table.from_pylist(rows, schema=table.schema), dataset / "index.parquet")


def npy(array: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array, allow_pickle=True)
    return stream.getvalue()


def video(tmp_path: Path, frames: int, gop: int) -> bytes:
    with VideoWriter(tmp_path / "clip.mp4", Fraction(8), (96, 64), gop=gop) as writer:
        for frame in blocks(frames, 5):
            writer.write(frame)
    return (tmp_path / "clip.mp4").read_bytes()


def swapped(members: Members) -> Members:
    """The first two keys change places."""
    half = len(members) // 2
    return members[half:] + members[:half]


# What is done to the dataset -> file (with {} for the shard's number), whether the first key is named, what.
# Each function gets the dataset, the clip tar of a shard of two clips, and its first key.
CORRUPTIONS: dict[str, tuple[Callable[[Path, Path, str], Any], str, bool, str]] = {
    "a flipped bit": (
        lambda dataset, tar, key: flip(tar, 3000),
        "train/clips-{}.tar",
        False,
        "another sha256",
    ),
    "a tar cut short": (
        lambda dataset, tar, key: tar.write_bytes(tar.read_bytes()[:-2000]),
        "train/clips-{}.tar",
        False,
        r"has \d+ bytes, its side-car says",
    ),
    "no tar": (lambda dataset, tar, key: tar.unlink(), "train/clips-{}.tar", False, "is missing"),
    "no side-car": (
        lambda dataset, tar, key: tar.with_suffix(".json").unlink(),
        "train/clips-{}.tar",
        False,
        "has no side-car",
    ),
    "a side-car that is no JSON": (
        lambda dataset, tar, key: tar.with_suffix(".json").write_text("<html>"),
        "train/clips-{}.json",
        False,
        "cannot be read",
    ),
    "a side-car of another shard": (
        lambda dataset, tar, key: edit_json(tar.with_suffix(".json"), lambda d: d.update(split="val")),
        "train/clips-{}.json",
        False,
        "split val, which is not its own",
    ),
    "a wrong count": (
        lambda dataset, tar, key: edit_json(tar.with_suffix(".json"), lambda d: d.update(clips=7)),
        "train/clips-{}.json",
        False,
        "counts 7 clips, lists 2",
    ),
    "a record against the schema": (
        lambda dataset, tar, key: edit_record(tar, key, fps="fast"),
        "train/clips-{}.tar",
        True,
        "record is not valid: fps",
    ),
    "a record that differs": (
        lambda dataset, tar, key: edit_member(
            tar, f"{key}.json", lambda data: data.replace(b'"repeated": 0', b'"repeated": 1')
        ),
        "train/clips-{}.tar",
        True,
        "says another repeated",
    ),
    "a dropped clip in the tar": (
        lambda dataset, tar, key: edit_record(tar, key, dropped="static: 0"),
        "train/clips-{}.tar",
        True,
        "though it was dropped",
    ),
    "another caption": (
        lambda dataset, tar, key: edit_member(tar, f"{key}.txt", lambda data: b"a lie"),
        "train/clips-{}.tar",
        True,
        "is not the caption",
    ),
    "members in another order": (
        lambda dataset, tar, key: edit_tar(tar, lambda m: [m[1], m[0], *m[2:]]),
        "train/clips-{}.tar",
        False,
        "not in the order",
    ),
    "keys in another order": (
        lambda dataset, tar, key: edit_tar(tar, swapped),
        "train/clips-{}.tar",
        True,
        "out of order",
    ),
    "a missing member": (
        lambda dataset, tar, key: edit_tar(tar, lambda m: m[1:]),
        "train/clips-{}.tar",
        True,
        "has no .mp4",
    ),
    "a pickle in the tar": (
        lambda dataset, tar, key: edit_tar(tar, lambda m: [*m[:3], (f"{key}.pyd", b"x"), *m[3:]]),
        "train/clips-{}.tar",
        True,
        "unexpected .pyd",
    ),
    "a damaged clip": (
        lambda dataset, tar, key: edit_member(
            tar, f"{key}.mp4", lambda d: d[: len(d) // 2] + bytes(len(d) // 2)
        ),
        "train/clips-{}.tar",
        True,
        "does not decode|damaged|has .* frames",
    ),
    "a column's flipped bit": (
        lambda dataset, tar, key: flip(tar.with_name(tar.name.replace("clips", "depth")), 3000),
        "train/depth-{}.tar",
        False,
        "another sha256",
    ),
    "a column in another order": (
        lambda dataset, tar, key: edit_tar(tar.with_name(tar.name.replace("clips", "latents")), swapped),
        "train/latents-{}.tar",
        True,
        "out of order",
    ),
    "a column's side-car that is no JSON": (
        lambda dataset, tar, key: (
            tar.with_name(tar.name.replace("clips", "depth")).with_suffix(".json").write_text("<html>")
        ),
        "train/depth-{}.json",
        False,
        "cannot be read",
    ),
    "an array of another shape": (
        lambda dataset, tar, key: edit_member(
            tar.with_name(tar.name.replace("clips", "text")),
            f"{key}.text.npy",
            lambda data: npy(np.zeros((3, 4), np.float16)),
        ),
        "train/text-{}.tar",
        True,
        r"is float16 \(3, 4\), expected",
    ),
    "an array of objects": (
        lambda dataset, tar, key: edit_member(
            tar.with_name(tar.name.replace("clips", "text")),
            f"{key}.text.npy",
            lambda data: npy(np.array([{}], dtype=object)),
        ),
        "train/text-{}.tar",
        True,
        "array of Python objects",
    ),
    "an array that states more than it holds": (
        lambda dataset, tar, key: edit_member(
            tar.with_name(tar.name.replace("clips", "depth")), f"{key}.depth.npy", lambda data: data[:-7]
        ),
        "train/depth-{}.tar",
        True,
        "no array: .*but holds",
    ),
    "a column that is not there for one shard": (
        lambda dataset, tar, key: (
            [
                tar.with_name(tar.name.replace("clips", "depth")).with_suffix(suffix).unlink()
                for suffix in (".tar", ".json")
            ]
            and edit_json(dataset / "dataset.json", one_depth_less)
        ),
        "train/depth-{}.tar",
        False,
        "is missing, other shards have this column",
    ),
    "a column by another model": (
        lambda dataset, tar, key: edit_json(
            tar.with_name(tar.name.replace("clips", "text")).with_suffix(".json"),
            lambda d: d["made_by"].update(clip_skip=2),
        ),
        "train/text-{}.json",
        False,
        "made in another way: clip_skip was 0, now 2",
    ),
    "a column of other clips": (
        lambda dataset, tar, key: edit_json(
            tar.with_name(tar.name.replace("clips", "text")).with_suffix(".json"),
            lambda d: d.update(clips_sha256="0" * 64),
        ),
        "train/text-{}.json",
        False,
        "from other clips",
    ),
    "an index without a row": (
        lambda dataset, tar, key: edit_index(
            dataset, lambda rows: rows.remove(next(r for r in rows if r["key"] == key))
        ),
        "index.parquet",
        True,
        "has no row, but is a clip",
    ),
    "an index with other frames": (
        lambda dataset, tar, key: edit_index(
            dataset, lambda rows: next(r for r in rows if r["key"] == key).update(frames=99)
        ),
        "index.parquet",
        True,
        "says 99 frames",
    ),
    "an index without a rejection": (
        lambda dataset, tar, key: edit_index(
            dataset, lambda rows: rows.remove(next(r for r in rows if r["kind"] == "rejected"))
        ),
        "index.parquet",
        False,
        "page.mp4 is rejected in its shard 1 times, here 0",
    ),
    "a wrong total": (
        lambda dataset, tar, key: edit_json(dataset / "dataset.json", lambda d: d["totals"].update(frames=1)),
        "dataset.json",
        False,
        "says 1 frames in all, the shards hold 117",
    ),
    "a wrong split": (
        lambda dataset, tar, key: edit_json(
            dataset / "dataset.json", lambda d: d["splits"]["train"].update(rejected=9)
        ),
        "dataset.json",
        False,
        "train: says 9 rejected",
    ),
    "a source that is in no shard": (
        lambda dataset, tar, key: edit_worklist(dataset / "worklist.jsonl"),
        "worklist.jsonl",
        False,
        "lost.mp4 is not among the inputs",
    ),
    "a duplicate of nothing": (
        lambda dataset, tar, key: (dataset / "duplicates.jsonl").write_text(
            json.dumps({"key": "0" * 12 + "_0000_000", "duplicate_of": key, "distance": 1})
        ),
        "duplicates.jsonl",
        False,
        "is no clip of this dataset",
    ),
    "a stray file": (
        lambda dataset, tar, key: (dataset / "train/notes.txt").touch(),
        "train/notes.txt",
        False,
        "does not belong",
    ),
    "a half-written file": (
        lambda dataset, tar, key: (dataset / "train/.staged-0123abcd-clips-000009.tar").touch(),
        "train/.staged-0123abcd-clips-000009.tar",
        False,
        "left half-written",
    ),
    "a shard from elsewhere": (
        lambda dataset, tar, key: shutil.copy(
            tar.with_name(tar.name.replace("clips", "text")), dataset / "train/text-000077.tar"
        ),
        "train/text-000077.tar",
        False,
        "was never planned",
    ),
}


def one_depth_less(manifest: dict[str, Any]) -> None:
    manifest["columns"]["depth"]["shards"]["train"] -= 1


def edit_worklist(path: Path) -> None:
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    rows.append({**rows[-1], "uri": "videos/lost.mp4"})
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_a_sound_dataset_has_no_problem(finished: Path, capsys):
    before = {path: path.read_bytes() for path in finished.rglob("*") if path.is_file()}
    assert main(["data", "check", str(finished)]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0].endswith("sound: 4 shards, 6 clips, columns depth, latents, text, 6 decoded")
    assert said[1] == f"next: live2diff data report {finished}"
    assert {path: path.read_bytes() for path in finished.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_one_corruption_is_one_problem(copy: Path, name: str):
    spoil, file, with_key, what = CORRUPTIONS[name]
    tar = shard_of_two(copy)
    key = keys_of(tar)[0]
    spoil(copy, tar, key)
    problems = check(copy, samples=6 if "clip" in name else 0).problems
    assert len(problems) == 1, [problem.line() for problem in problems]
    (problem,) = problems
    assert problem.file == file.format(tar.stem[-6:])
    assert not with_key or problem.key == key
    assert re.search(what, problem.what), problem.what
    assert "\n" not in problem.line() and problem.todo


def test_a_dataset_may_be_passed_on_without_its_work_list(copy: Path):
    """It holds full paths and URLs."""
    (copy / "worklist.jsonl").unlink()
    assert not check(copy, samples=0).problems


def test_a_shard_that_is_gone(copy: Path):
    """The sums, which differ too, are not repeated."""
    tar = shard_of_two(copy)
    tar.unlink()
    tar.with_suffix(".json").unlink()
    (problem,) = check(copy, samples=0).problems
    assert problem.file == f"train/{tar.stem}.json" and problem.what == "is missing: the shard was not made"


@pytest.mark.parametrize(
    ("frames", "gop", "what"),
    [(17, 16, "has 17 frames, not"), (None, 60, r"key frames \d\d frames apart, more than 16")],
)
def test_a_clip_that_is_not_what_its_record_says(copy: Path, tmp_path: Path, frames, gop, what):
    tar = shard_of_two(copy)
    key = keys_of(tar)[0]
    (record,) = (r for r in json.loads(tar.with_suffix(".json").read_text())["records"] if r["key"] == key)
    edit_member(tar, f"{key}.mp4", lambda data: video(tmp_path, frames or record["frames"], gop))
    (problem,) = check(copy, samples=6).problems
    assert problem.key == key and re.search(what, problem.what), problem.what


def test_a_source_in_two_splits(copy: Path):
    """A whole validation shard is passed off as one of a training source."""
    stolen = keys_of(shard_of_two(copy))[0]
    (tar,) = (copy / "val").glob("clips-*.tar")
    (key,) = keys_of(tar)
    record = json.loads(read_member(tar, list_members(tar)[f"{key}.json"]))
    name = f"{stolen[:12]}_0077_000"
    record.update(key=name, source={**record["source"], "id": stolen[:12]})
    renamed = [(f"{name}.mp4", 0), (f"{name}.txt", 1), (f"{name}.json", 2)]
    edit_tar(tar, lambda m: [(n, json.dumps(record).encode() if at == 2 else m[at][1]) for n, at in renamed])
    edit_json(tar.with_suffix(".json"), lambda data: data.update(records=[record]))
    leak = [problem for problem in check(copy, samples=0).problems if problem.key == name]
    assert any("its source is in train too" in problem.what for problem in leak)


def test_json_lists_every_problem(copy: Path, capsys):
    tar = shard_of_two(copy)
    for number in range(30):
        (tar.parent / f"stray {number}").touch()
    tar.unlink()
    assert run(copy, as_json=True, samples=2) == 3
    said = json.loads(capsys.readouterr().out)
    assert said["ok"] is False and len(said["problems"]) == 31 and said["decoded"] == 2
    assert {"file", "key", "what", "todo"} == set(said["problems"][0])


def test_lines_of_one_file_are_not_repeated_for_ever(copy: Path, capsys):
    edit_index(copy, lambda rows: rows.extend([{**rows[0], "key": f"x{n}"} for n in range(50)]))
    assert run(copy, samples=0) == 3
    said = capsys.readouterr().out.splitlines()
    assert len(said) == 12 and "40 more like these; --json lists all" in said[10]
    assert said[-1].startswith(f"{copy}: 50 problems in 4 shards")


def places(tree: Any, path: tuple = ()) -> list[tuple]:
    """Every place in a JSON tree."""
    branches = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    return [place for at, branch in branches for place in [(*path, at), *places(branch, (*path, at))]]


@pytest.mark.parametrize(
    "name", ["dataset.json", "plan.json", "train/clips-000000.json", "train/depth-000000.json"]
)
def test_json_of_any_form_ends_in_a_line(copy: Path, name: str):
    """Hostile files: no traceback, no hang, from any of the three commands."""
    original = json.loads((copy / name).read_text())
    rng = random.Random(name)
    values = [None, -1, 10**18, 1e308, "x", "../../etc/passwd", [], {}, [[]], {"a": {}}, True]
    for number in range(30):
        tree = json.loads(json.dumps(original))
        *way, last = rng.choice(places(tree))
        branch = functools.reduce(lambda node, step: node[step], way, tree)
        if rng.random() < 0.2:
            del branch[last]
        else:
            branch[last] = rng.choice(values)
        (copy / name).write_text(json.dumps(tree))
        with contextlib.suppress(DataError):
            assert all(problem.line() for problem in check(copy, samples=0).problems)
        if number % 10 == 0 and name == "dataset.json":
            with contextlib.suppress(DataError):
                write_page(Finished(copy))


def test_an_index_of_any_form_ends_in_a_line(copy: Path):
    path = copy / "index.parquet"
    table = pq.read_table(path)
    for name in table.column_names:
        place = table.schema.get_field_index(name)
        rows = table.num_rows
        for column in (pa.array([[1]] * rows), pa.nulls(rows, table.schema.field(name).type), None):
            changed = table.remove_column(place) if column is None else table.set_column(place, name, column)
            pq.write_table(changed, path)
            if name in ("kind", "key", "uri", "frames"):
                with contextlib.suppress(DataError):
                    check(copy, samples=0)
            if name in ("key", "frames", "fps", "caption", "duplicate_of", "score_motion", "width", "reason"):
                with contextlib.suppress(DataError):
                    write_page(Finished(copy))


def test_what_is_no_finished_dataset(copy: Path, tmp_path: Path, capsys):
    with pytest.raises(UsageError, match="no such folder"):
        check(tmp_path / "nowhere")
    with pytest.raises(UsageError, match="is no dataset"):
        check(copy / "train")
    (copy / "index.parquet").write_text("PAR1 not")
    with pytest.raises(DataError, match=r"index.parquet: cannot be read"):
        check(copy)
    (copy / "dataset.json").unlink()
    assert main(["data", "check", str(copy)]) == 3
    assert "is not finished (no dataset.json); run the same" in capsys.readouterr().err
