"""Real videos, sound and damaged: every one is accounted for, hand-checked cuts are found."""

import csv
import json
import time
from itertools import pairwise
from pathlib import Path

import av
import pyarrow.parquet as pq
import pytest
from av.video.frame import PictureType

from data_prep.build import build
from data_prep.children import Children
from data_prep.config import PrepConfig

# File -> what its row in the index must say: a number of clips, or the beginning of the reason.
BROKEN = {
    "natural_corrupted.mp4": 1,  # 28 of 50 frames decode
    "natural_no_duration.webm": "all clips dropped: 1 nothing to see",  # nearly black
    "natural_audio_only.mp4": "no video stream",
    "truncated_faststart_40pct.mp4": "damaged: 4 frames",
    "truncated_no_moov.mp4": "cannot be opened: moov atom not found",
    "zero_bytes.mp4": "cannot be opened: the file is empty",
    "text_as_video.mp4": "cannot be opened: not a video (looks like a web page)",
    "lfs_pointer.mp4": "cannot be opened: not a video (looks like a git-LFS pointer",
    "png_named.mp4": "cannot be opened: not a video (looks like a PNG picture)",
    "mp4_named.avi": 1,
    "single_frame.mp4": "too short: 1 frame",
    "two_frames.mp4": "repeats another source",  # the bytes of the next one
    "name with spaces & ünïcode 视频.mp4": "too short: 1 frame",
    "frozen_3s.mp4": "all clips dropped: 1 static",
    "black_2s.mp4": "all clips dropped: 1 black",
    "odd_479x359.mp4": "too short: 9 frames at 8 fps",
    "tiny_16x16.mp4": "too small: 16x16",
    "strip_512x16.mp4": "too small: 512x16",
    "starts_mid_gop.ts": "no good frame",
    "bitrot.mp4": "no good frame",
}


def rows_of(out: Path) -> dict[str, list[dict]]:
    rows: dict[str, list[dict]] = {}
    for row in pq.read_table(out / "index.parquet").to_pylist():
        rows.setdefault(Path(row["uri"]).name, []).append(row)
    return rows


def inputs_of(out: Path) -> dict[str, dict]:
    side_cars = [json.loads(path.read_text(encoding="utf-8")) for path in out.glob("*/clips-*.json")]
    return {Path(item["uri"]).name: item for side_car in side_cars for item in side_car["inputs"]}


@pytest.mark.slow
def test_broken_files_end_as_clips_or_as_a_reason(shared: Path, tmp_path: Path):
    build([str(shared / "data/broken")], str(tmp_path), ["prep=tiny"])
    rows = rows_of(tmp_path)
    assert set(rows) == set(BROKEN)
    for name, expected in BROKEN.items():
        kept = [row for row in rows[name] if row["kind"] == "clip"]
        reasons = [row["reason"] for row in rows[name] if row["kind"] == "rejected"]
        if isinstance(expected, int):
            assert len(kept) == expected and not reasons, name
        else:
            assert not kept and len(reasons) == 1 and reasons[0].startswith(expected), name
    (partial,) = rows["natural_corrupted.mp4"]
    assert partial["source_frames"] == 28 and partial["damage"]


@pytest.mark.slow
def test_no_broken_file_takes_ten_seconds(shared: Path, tmp_path: Path, tiny: PrepConfig):
    children = Children(tiny)
    for name in BROKEN:
        start = time.monotonic()
        children.run(str(shared / "data/broken" / name), tmp_path)
        assert time.monotonic() - start < 10, name


@pytest.mark.slow
def test_real_files_and_their_cuts(shared: Path, tmp_path: Path):
    folder = shared / "data/videos"
    summary = build([str(folder)], str(tmp_path), ["prep=tiny"])
    rows, inputs = rows_of(tmp_path), inputs_of(tmp_path)
    with open(folder / "index.tsv", encoding="utf-8") as file:
        listed = {row["path"]: row for row in csv.DictReader(file, delimiter="\t")}
    assert set(rows) == set(listed) and summary.inputs == 31
    without = {name: item["rejected"] for name, item in inputs.items() if item["rejected"]}
    slides = without.pop("long_123s_slides_1080p.mp4")
    assert slides.startswith("all clips dropped: ") and slides.endswith(" static")
    assert all(reason.startswith("too short") for reason in without.values()), without
    # Of the others the filters drop nothing but an empty room.
    dropped = {name for name, r in rows.items() for row in r if row["kind"] == "dropped"}
    assert dropped <= {"long_123s_slides_1080p.mp4", "long_139s_people.mp4"}
    hdr = {name for name, item in inputs.items() if item["hdr"]}
    assert hdr == {"portrait_hdr10_av1_10bit.mp4", "portrait_hevc10_rot90_editlist.mp4"}

    hits = misses = extra = 0
    for name, row in listed.items():
        source = inputs[name]
        if name == "cuts_nasa_multistream.mp4":
            # The table counts frames of the first stream (25 fps); the best one has 29.97: compare by time.
            scale = source["fps"] / 25
        else:
            scale = 1.0
            assert source["frames_decoded"] == int(row["frames_decoded"].split()[0]), name
        if row["scene_cuts_verified"] == "-":
            continue
        truth = [float(cut) * scale for cut in row["scene_cuts_verified"].split(",")]
        found = [cut for cut in truth if any(abs(cut - other) <= 2 * scale for other in source["cuts"])]
        hits, misses = hits + len(found), misses + len(truth) - len(found)
        extra += sum(all(abs(cut - other) > 2 * scale for cut in truth) for other in source["cuts"])
        for clip in rows[name]:
            if clip["kind"] != "rejected":
                first, stop = clip["first_frame"], clip["stop_frame"]
                assert not any(first < cut - 2.5 < stop and first < cut + 2.5 < stop for cut in truth), name
    print(f"\ncuts: recall {hits}/{hits + misses}, precision {hits}/{hits + extra}")
    assert hits / (hits + misses) >= 0.9 and hits / (hits + extra) >= 0.9


@pytest.mark.slow
def test_every_clip_of_a_real_file_is_what_training_reads(shared: Path, tmp_path: Path, tiny: PrepConfig):
    """H.264, 8 bits, constant rate, no B-frames, short GOPs, BT.709 in narrow range, no sound; upright."""
    children = Children(tiny)
    for path in sorted((shared / "data/videos").glob("*.*")):
        if path.suffix == ".tsv" or path.name.startswith("long"):
            continue
        for clip in children.run(str(path), tmp_path).get("clips", []):
            with av.open(str(tmp_path / clip["file"])) as container:
                (stream,) = container.streams
                context = stream.codec_context
                frames = list(container.decode(stream))
            assert (context.name, context.pix_fmt) == ("h264", "yuv420p")
            assert (context.colorspace, context.color_primaries, context.color_trc) == (1, 1, 1)
            assert context.color_range == 1 and [context.width, context.height] == clip["size"]
            assert len(frames) == clip["frames"] and min(clip["size"]) == tiny.size
            assert {frame.pict_type for frame in frames} <= {PictureType.I, PictureType.P}
            assert len({after.pts - before.pts for before, after in pairwise(frames)}) == 1
            keys = [number for number, frame in enumerate(frames) if frame.key_frame]
            assert max(after - before for before, after in pairwise([*keys, len(frames)])) <= 16
            tall = path.name.startswith("portrait") or path.name == "rot90_tiny.mov"
            assert (clip["size"][1] > clip["size"][0]) == tall, path.name
