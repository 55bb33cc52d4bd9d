"""Real videos, sound and damaged: every one is accounted for, hand-checked cuts are found."""

import csv
import json
import time
from pathlib import Path

import pytest

from data_prep.build import build

# File -> what its row in the index must say: a number of clips, or the beginning of the reason.
BROKEN = {
    "natural_corrupted.mp4": 1,  # 28 of 50 frames decode
    "natural_no_duration.webm": 1,
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
    "frozen_3s.mp4": 1,
    "black_2s.mp4": 1,
    "odd_479x359.mp4": "too short: 9 frames at 8 fps",
    "tiny_16x16.mp4": "too small: 16x16",
    "strip_512x16.mp4": "too small: 512x16",
    "starts_mid_gop.ts": "no good frame",
    "bitrot.mp4": "no good frame",
}


def rows_of(out: Path) -> dict[str, list[dict]]:
    rows: dict[str, list[dict]] = {}
    for line in (out / "index.jsonl").read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        rows.setdefault(Path(row["source"]["uri"]).name, []).append(row)
    return rows


def inputs_of(out: Path) -> dict[str, dict]:
    side_cars = [json.loads(path.read_text(encoding="utf-8")) for path in out.glob("*/clips-*.json")]
    return {Path(item["uri"]).name: item for side_car in side_cars for item in side_car["inputs"]}


@pytest.mark.slow
def test_broken_files_end_as_clips_or_as_a_reason(shared: Path, tmp_path: Path):
    start = time.monotonic()
    build([str(shared / "data/broken")], str(tmp_path), ["prep=tiny", "timeout_s=10"])
    assert time.monotonic() - start < 10 * len(BROKEN)
    rows = rows_of(tmp_path)
    assert set(rows) == set(BROKEN)
    for name, expected in BROKEN.items():
        if isinstance(expected, int):
            assert [row["kind"] for row in rows[name]] == ["clip"] * expected, name
        else:
            assert rows[name][0]["reason"].startswith(expected), name
    (partial,) = rows["natural_corrupted.mp4"]
    assert partial["source"]["frames_decoded"] == 28 and partial["source"]["damage"]


@pytest.mark.slow
def test_real_files_and_their_cuts(shared: Path, tmp_path: Path):
    folder = shared / "data/videos"
    summary = build([str(folder)], str(tmp_path), ["prep=tiny"])
    rows, inputs = rows_of(tmp_path), inputs_of(tmp_path)
    with open(folder / "index.tsv", encoding="utf-8") as file:
        listed = {row["path"]: row for row in csv.DictReader(file, delimiter="\t")}
    assert set(rows) == set(listed) and summary.inputs == 31
    assert all(
        row["kind"] == "clip" or row["reason"].startswith("too short") for r in rows.values() for row in r
    )

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
            if clip["kind"] == "clip":
                first, stop = clip["frame_range"]
                assert not any(first < cut - 2.5 < stop and first < cut + 2.5 < stop for cut in truth), name
    print(f"\ncuts: recall {hits}/{hits + misses}, {extra} found beside the listed ones")
    assert hits / (hits + misses) >= 0.9
