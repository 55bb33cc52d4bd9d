"""What the child does with one file, run here in the test's own process."""

from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest
from av.video.frame import PictureType
from av.video.reformatter import ColorRange

from data_prep.decode import RejectedError
from data_prep.worker import process
from live2diff.video import VideoReader
from tests.data_prep.videos import blocks, numbered, numbers, set_rotation, write_timed


def clip_frames(folder: Path, clip: dict) -> list[np.ndarray]:
    with VideoReader(folder / clip["file"]) as reader:
        assert reader.fps == pytest.approx(clip["fps"], rel=1e-4)
        return list(reader)


def test_a_cut_gives_two_trimmed_clips_and_no_clip_spans_it(movie, tmp_path, tiny):
    path = movie("cut.mp4", blocks(60, 0) + blocks(55, 1))
    result = process(str(path), tmp_path, replace(tiny, fps=None))
    assert result["facts"]["cuts"] == [60]
    assert [clip["frame_range"] for clip in result["clips"]] == [[0, 58], [62, 115]]
    assert [(clip["shot"], clip["clip"]) for clip in result["clips"]] == [(0, 0), (1, 0)]


def test_clips_show_the_right_frames_at_the_asked_rate(movie, tmp_path, tiny):
    path = movie("numbered.mp4", numbered(90))
    config = replace(tiny, cut_change=255.0, min_motion=None)
    (clip,) = process(str(path), tmp_path, config)["clips"]
    assert clip["fps"] == 8 and clip["size"] == [96, 64]
    assert numbers(clip_frames(tmp_path, clip)) == list(range(0, 90, 3))


def test_variable_frame_rate_is_honoured(tmp_path, tiny):
    times = [0, *np.cumsum([125, 60, 65, 250, 125, 125, 375, 125] * 3).tolist()]
    write_timed(tmp_path / "vfr.mp4", numbered(len(times)), times)
    config = replace(tiny, cut_change=255.0, min_motion=None)  # the numbers flicker: no cuts, no motion
    (clip,) = process(str(tmp_path / "vfr.mp4"), tmp_path, config)["clips"]
    shown = numbers(clip_frames(tmp_path, clip))
    expected = [
        max(i for i, time in enumerate(times) if time <= 125 * step + 12) for step in range(len(shown))
    ]
    assert shown == expected
    assert clip["repeated"] == len(shown) - len(set(shown)) > 0


def test_clips_are_h264_constant_rate_short_gop_without_b_frames_in_bt709(movie, tmp_path, tiny):
    path = movie("a.mp4", blocks(200, 0, (200, 120)))
    (clip,) = process(str(path), tmp_path, replace(tiny, fps=None))["clips"]
    with av.open(str(tmp_path / clip["file"])) as container:
        assert [stream.type for stream in container.streams] == ["video"]
        stream = container.streams.video[0]
        context = stream.codec_context
        assert (context.name, stream.pix_fmt) == ("h264", "yuv420p")
        assert (context.colorspace, context.color_primaries, context.color_trc) == (1, 1, 1)
        assert context.color_range == ColorRange.MPEG
        frames = list(container.decode(stream))
    assert len({after.pts - before.pts for before, after in zip(frames, frames[1:], strict=False)}) == 1
    assert {frame.pict_type for frame in frames} <= {PictureType.I, PictureType.P}
    keys = [number for number, frame in enumerate(frames) if frame.key_frame]
    assert max(np.diff([*keys, len(frames)])) <= 16
    assert min(clip["size"]) == 64


def test_long_shots_are_cut_at_the_limit(movie, tmp_path, tiny):
    path = movie("long.mp4", blocks(130, 0))
    clips = process(str(path), tmp_path, replace(tiny, fps=None, max_seconds=2.0))["clips"]
    assert [clip["frame_range"] for clip in clips] == [[0, 48], [48, 96], [96, 130]]
    assert [clip["file"] for clip in clips] == [f"0000_{number:03d}.mp4" for number in range(3)]


@pytest.mark.parametrize(("matrix", "tag"), [("ITU709", 1), ("ITU601", 6)])
@pytest.mark.parametrize("wide", [False, True])
def test_colours_survive_whatever_the_source_is_coded_in(tmp_path, tiny, matrix: str, tag: int, wide: bool):
    colours = np.array(
        [(230, 30, 30), (30, 200, 40), (40, 60, 220), (250, 250, 250), (8, 8, 8), (240, 220, 60)]
    )
    card = np.kron(colours.reshape(2, 3, 3), np.ones((64, 64, 1))).astype(np.uint8)
    with av.open(str(tmp_path / "card.mp4"), "w") as container:
        stream = container.add_stream("libx264", rate=24)
        stream.height, stream.width = card.shape[:2]
        stream.pix_fmt = "yuvj420p" if wide else "yuv420p"
        stream.options = {"crf": "4"}
        span = ColorRange.JPEG if wide else ColorRange.MPEG
        stream.codec_context.colorspace, stream.codec_context.color_range = tag, span
        coded = av.VideoFrame.from_ndarray(card, format="rgb24").reformat(
            format=stream.pix_fmt, dst_colorspace=matrix, dst_color_range=span
        )
        for number in range(48):
            coded.pts = number
            container.mux(stream.encode(coded))
        container.mux(stream.encode(None))
    config = replace(tiny, min_motion=None, size=128)
    (clip,) = process(str(tmp_path / "card.mp4"), tmp_path, config)["clips"]
    shown = clip_frames(tmp_path, clip)[5][32::64, 32::64].reshape(-1, 3)
    assert np.abs(shown.astype(int) - colours).max() <= 5


@pytest.mark.parametrize("turns", [0, 1, 2, 3])
def test_rotation_is_applied(tmp_path, tiny, turns: int):
    frames = blocks(60, 0, (128, 80))
    path = tmp_path / "turned.mov"
    write_timed(path, frames, range(0, 2400, 40))
    set_rotation(path, turns)
    result = process(str(path), tmp_path, replace(tiny, size=80))
    (clip,) = result["clips"]
    expected = np.rot90(frames[30], turns)
    assert result["facts"]["size"] == [expected.shape[1], expected.shape[0]] == clip["size"]
    assert result["facts"]["rotation"] == 90 * turns
    shown = clip_frames(tmp_path, clip)[round(30 / 25 * 8)].astype(int)
    assert np.abs(shown - expected).mean() < 6


def test_dropped_clips_keep_their_scores_and_lose_their_file(movie, tmp_path, tiny):
    still = [blocks(1, 4)[0]] * 70
    path = movie("half.mp4", blocks(60, 0) + still)
    result = process(str(path), tmp_path, tiny)
    kept, dropped = result["clips"]
    assert kept["dropped"] is None and (tmp_path / kept["file"]).is_file()
    assert dropped["dropped"].startswith("static: motion 0")
    assert not (tmp_path / dropped["file"]).exists()
    assert set(kept["scores"]) == {"motion", "brightness", "contrast", "letterbox", "fingerprint"}
    assert len(dropped["scores"]["fingerprint"]) == 48 and "rejected" not in result


def test_a_source_whose_clips_are_all_dropped_is_rejected_with_the_counts(movie, tmp_path, tiny):
    path = movie("still.mp4", [blocks(1, 4)[0]] * 60 + [np.zeros((64, 96, 3), np.uint8)] * 60)
    result = process(str(path), tmp_path, tiny)
    assert result["rejected"] == "all clips dropped: 1 static, 1 black"
    assert len(result["clips"]) == 2 and not list(tmp_path.glob("*.mp4"))
    off = replace(tiny, min_motion=None, min_brightness=None, min_contrast=None, max_letterbox=None)
    assert [clip["dropped"] for clip in process(str(path), tmp_path, off)["clips"]] == [None, None]


def test_the_same_file_gives_the_same_bytes_and_scores(movie, tmp_path, tiny):
    """Often: x264's macroblock tree once made a clip in a hundred come out differently, by chance."""
    path = movie("a.mp4", blocks(60, 0) + blocks(60, 1))
    runs = []
    for _ in range(20):
        result = process(str(path), tmp_path, tiny)
        assert set(result.pop("seconds")) == {"probe", "shots", "encode", "filters"}
        runs.append((result, [(tmp_path / clip["file"]).read_bytes() for clip in result["clips"]]))
    assert all(run == runs[0] for run in runs)


def test_no_clip_reaches_over_lost_frames(movie, tmp_path, tiny):
    path = movie("x.mp4", [np.roll(frame, i, 1) for i, frame in enumerate(blocks(160, 1))])
    data = bytearray(path.read_bytes())
    middle = slice(len(data) // 2, len(data) // 2 + 200)
    data[middle] = bytes(200)
    path.write_bytes(data)
    result = process(str(path), tmp_path, replace(tiny, fps=None))
    ((frame, reason),) = result["facts"]["damaged_spans"]
    assert result["facts"]["damage"] == reason and frame in result["facts"]["cuts"]
    first, second = (clip["frame_range"] for clip in result["clips"])
    assert first[1] <= frame - 2 and second[0] == frame + 2
    assert second[1] == result["facts"]["frames_decoded"]


@pytest.mark.parametrize(
    ("frames", "changes", "reason"),
    [
        (3, {}, r"too short: 1 frame at 8 fps, a clip needs 16"),
        (3, {"fps": None}, r"too short: 3 frames, a clip needs 16"),
        (60, {"min_size": 100}, r"too small: 96x64 pixels, the short side must be at least 100"),
    ],
)
def test_rejections_give_a_reason_and_the_facts(movie, tmp_path, tiny, frames, changes, reason):
    with pytest.raises(RejectedError, match=reason) as caught:
        process(str(movie("x.mp4", blocks(frames, 0))), tmp_path, replace(tiny, **changes))
    assert caught.value.facts["frames_decoded"] == frames


def test_damage_is_noted_and_the_frames_before_it_used(movie, tmp_path, tiny):
    path = movie("cut.mp4", [np.roll(frame, 5 * i, 0) for i, frame in enumerate(blocks(90, 1))])
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * 0.6)])
    # A tall ratio: these frames roll too wildly for the cut detector, which is not the matter here.
    config = replace(tiny, fps=None, cut_change=255.0)
    result = process(str(path), tmp_path, config)
    assert result["facts"]["damage"]
    assert result["clips"][0]["frame_range"] == [0, result["facts"]["frames_decoded"]]
    with pytest.raises(RejectedError, match="^damaged: .* a clip needs 90"):
        process(str(path), tmp_path, replace(config, clip_frames=90))
