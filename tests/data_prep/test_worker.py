"""What the child does with one file, run here in the test's own process."""

from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest
from av.video.frame import PictureType

from data_prep.decode import RejectedError
from data_prep.worker import process
from live2diff.video import VideoReader
from tests.data_prep.videos import blocks, numbered, numbers, write_timed


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
    (clip,) = process(str(path), tmp_path, replace(tiny, cut_change=255.0))["clips"]
    assert clip["fps"] == 8 and clip["size"] == [96, 64]
    assert numbers(clip_frames(tmp_path, clip)) == list(range(0, 90, 3))


def test_variable_frame_rate_is_honoured(tmp_path, tiny):
    times = [0, *np.cumsum([125, 60, 65, 250, 125, 125, 375, 125] * 3).tolist()]
    write_timed(tmp_path / "vfr.mp4", numbered(len(times)), times)
    config = replace(tiny, cut_change=255.0)  # the numbers flicker: not cuts
    (clip,) = process(str(tmp_path / "vfr.mp4"), tmp_path, config)["clips"]
    shown = numbers(clip_frames(tmp_path, clip))
    expected = [
        max(i for i, time in enumerate(times) if time <= 125 * step + 12) for step in range(len(shown))
    ]
    assert shown == expected
    assert clip["repeated"] == len(shown) - len(set(shown)) > 0


def test_clips_are_h264_constant_rate_short_gop_without_b_frames(movie, tmp_path, tiny):
    path = movie("a.mp4", blocks(200, 0, (200, 120)))
    (clip,) = process(str(path), tmp_path, replace(tiny, fps=None))["clips"]
    with av.open(str(tmp_path / clip["file"])) as container:
        assert [stream.type for stream in container.streams] == ["video"]
        stream = container.streams.video[0]
        assert (stream.codec_context.name, stream.pix_fmt) == ("h264", "yuv420p")
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
