"""As many frames out as in, when they were, with their sound; and what is left plays, whatever happens."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import textwrap
from contextlib import contextmanager
from fractions import Fraction

import av
import numpy as np
import pytest

from live2diff.errors import SetupError, UsageError
from live2diff.stream.output import check_output, open_sink
from live2diff.stream.run import run
from live2diff.stream.source import Frame, Moment, Source, open_source
from live2diff.stream.stopping import Stop
from tests.conftest import ROOT
from tests.stream.media import Echo, beeps_of, packets_of, pictures_of, still, times_of, write

SIZE = (64, 48)


def copy(path, out, stream=None):
    """`path` through a stream that changes nothing; returns the sink."""
    stream = stream or Echo(SIZE)
    with open_source(str(path)) as source, open_sink(str(out), source, stream.size) as sink:
        run(source, stream, sink)
    return sink


def left_in(folder):
    return sorted(item.name for item in folder.iterdir())


# -- frames and times -------------------------------------------------------------------------------------


@pytest.mark.parametrize("rows", [1, 2, 4])
@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_irregular_times_come_out_as_they_were(tmp_path, suffix, rows):
    times = np.cumsum([0, *np.random.default_rng(1).uniform(0.01, 0.3, 29)])
    path = write(tmp_path / "in.mp4", still(30), times=list(times), begin=1.7)
    out = tmp_path / f"out{suffix}"
    sink = copy(path, out, Echo(SIZE, rows=rows))
    assert times_of(out) == pytest.approx(times, abs=0.001)
    assert sink.count == 30 and float(sink.end) == pytest.approx(times[-1], abs=0.31)


def test_pictures_stay_with_their_times(tmp_path):
    """Frame k out is frame k in: each has its own grey."""
    greys = [20 + 8 * number for number in range(25)]
    path = write(tmp_path / "in.mkv", [np.full((48, 64, 3), grey, np.uint8) for grey in greys])
    copy(path, tmp_path / "out.mp4", Echo(SIZE, rows=3))
    assert [picture.mean() for picture in pictures_of(tmp_path / "out.mp4")] == pytest.approx(greys, abs=2)


@pytest.mark.parametrize("count", [1, 2, 7, 8, 9])
def test_fewer_frames_than_the_warm_up(tmp_path, capsys, count):
    path = write(tmp_path / "in.mp4", still(count))
    sink = copy(path, tmp_path / "out.mp4")
    assert sink.count == count == len(times_of(tmp_path / "out.mp4"))
    warned = f"warning: {path}: has {count} frames, the warm-up takes 8; the last is held for it\n"
    assert capsys.readouterr().err == (warned if count < 8 else "")


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_the_file_says_what_its_colours_are(tmp_path, suffix):
    path = write(tmp_path / "in.mp4", still(9))
    copy(path, tmp_path / f"out{suffix}")
    with av.open(str(tmp_path / f"out{suffix}")) as container:
        video = container.streams.video[0]
        context = video.codec_context
        tags = (context.color_primaries, context.color_trc, context.colorspace, context.color_range)
        assert tags == (1, 1, 1, 1) and context.pix_fmt == "yuv420p"
        assert (context.width, context.height) == SIZE
        assert video.average_rate == pytest.approx(25, rel=0.01)


def test_same_input_same_bytes(tmp_path):
    """Not at 64x48: there x264 itself gives other bytes about once in a hundred times."""
    path = write(tmp_path / "in.mkv", still(30), sound="libopus")
    for name in ("a.mp4", "b.mp4"):
        copy(path, tmp_path / name, Echo((128, 96)))
    assert (tmp_path / "a.mp4").read_bytes() == (tmp_path / "b.mp4").read_bytes()


# -- sound ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "sound", "out", "how"),
    [
        ("in.mp4", "aac", "out.mp4", "copied"),
        ("in.mp4", "aac", "out.mkv", "copied"),
        ("in.ts", "aac", "out.mp4", "copied"),  # ADTS; begins at 1.4 s
        ("in.avi", "libmp3lame", "out.mp4", "copied"),
        ("in.mkv", "libopus", "out.mp4", "copied"),
        ("in.mkv", "ac3", "out.mp4", "copied"),
        ("in.mkv", "eac3", "out.mp4", "copied"),
        ("in.mkv", "flac", "out.mp4", "copied"),
        ("in.mkv", "alac", "out.mp4", "copied"),
        ("in.mkv", "pcm_s16le", "out.mp4", "re-encoded to AAC: pcm_s16le does not go into an .mp4"),
        ("in.mkv", "pcm_s16le", "out.mkv", "copied"),
        ("in.mkv", "mp2", "out.mp4", "re-encoded to AAC: mp2 does not go into an .mp4"),
    ],
)
@pytest.mark.parametrize("begin", [0, 2.37])
def test_a_beep_stays_with_its_flash(tmp_path, name, sound, out, how, begin):
    """The flash is in frame 30, the beep at its time; the video may begin later than the sound."""
    pictures = [np.full((48, 64, 3), 250 if number == 30 else 20, np.uint8) for number in range(50)]
    if name.endswith(".avi") and begin:
        pytest.skip("AVI has no times to begin at")
    path = write(tmp_path / name, pictures, sound=sound, beeps=(30 / 25,), begin=begin)

    def apart(path):
        bright = next(i for i, picture in enumerate(pictures_of(path)) if picture.mean() > 128)
        (beep,) = beeps_of(path)
        return beep - times_of(path)[bright]

    sink = copy(path, tmp_path / out)
    assert sink.about.startswith(f"sound {how}")
    assert apart(tmp_path / out) == pytest.approx(apart(path), abs=0.01)
    assert len(times_of(tmp_path / out)) == 50
    times = [time for time, _ in packets_of(tmp_path / out)]
    assert times[0] - times_of(tmp_path / out)[0] < 0.06  # it begins with the pictures
    assert times[-1] < times_of(tmp_path / out)[-1] + 0.04  # and ends with them


def test_copied_sound_is_the_same_bytes(tmp_path):
    path = write(tmp_path / "in.mp4", still(40), sound="aac", beeps=(0.3, 0.9))
    copy(path, tmp_path / "out.mp4")
    known = dict(packets_of(path))
    for time, content in packets_of(tmp_path / "out.mp4"):
        assert known[min(known, key=lambda other: abs(other - time))] == content


def test_without_sound_there_is_none(tmp_path):
    sink = copy(write(tmp_path / "in.mp4", still(9)), tmp_path / "out.mp4")
    assert sink.about == "" and packets_of(tmp_path / "out.mp4") == []


# -- folders and pipes ------------------------------------------------------------------------------------


def test_a_folder_of_pictures(tmp_path):
    import cv2

    path = write(tmp_path / "in.mp4", still(12), times=[0.1 * n * n for n in range(12)])
    copy(path, tmp_path / "pictures")
    names = [f"{number:06}.png" for number in range(12)]
    assert left_in(tmp_path / "pictures") == [*names, "times.txt"]
    first = cv2.cvtColor(cv2.imread(str(tmp_path / "pictures/000000.png")), cv2.COLOR_BGR2RGB)
    with open_source(str(path)) as source:
        frames = [frame.picture for frame in source]
    from live2diff.stream.fit import fit

    assert (first == fit(frames[0], SIZE)).all()
    lines = (tmp_path / "pictures/times.txt").read_text().splitlines()
    assert lines[0] == "# timestamp format v2"
    assert [float(line) for line in lines[1:]] == pytest.approx([100 * n * n for n in range(12)], abs=1)
    copy(write(tmp_path / "short.mp4", still(9)), tmp_path / "pictures")
    assert len(left_in(tmp_path / "pictures")) == 10  # nothing of the longer run is left


def test_a_pipe_carries_y4m(tmp_path, capfdbinary):
    pictures = [np.full((48, 64, 3), grey, np.uint8) for grey in range(20, 240, 10)]
    copy(write(tmp_path / "in.mp4", pictures), "-")
    piped = capfdbinary.readouterr().out
    (tmp_path / "out.y4m").write_bytes(piped)
    shown = pictures_of(tmp_path / "out.y4m")
    assert [picture.mean() for picture in shown] == pytest.approx(list(range(20, 240, 10)), abs=2)
    assert len(piped) == piped.index(b"\n") + 1 + 22 * (6 + 64 * 48 * 3 // 2)
    assert times_of(tmp_path / "out.y4m") == pytest.approx([number / 25 for number in range(22)], abs=0.01)


# -- however it ends --------------------------------------------------------------------------------------


class Endless(Source):
    """Noise without end, at 25 frames per second."""

    def __init__(self):
        super().__init__("noise", Fraction(25), Fraction(1, 25))

    def __iter__(self):
        rng = np.random.default_rng(0)
        for number in range(1_000_000):
            picture = rng.integers(0, 256, (SIZE[1], SIZE[0], 3), dtype=np.uint8)
            yield Frame(picture, Moment(Fraction(number, 25), Fraction(1, 25)))


@contextmanager
def full_disk(limit):
    """No file of this process grows past `limit` bytes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
@pytest.mark.parametrize("limit", [50_000, 150_000, 400_000])
def test_with_the_disk_full_the_frames_before_play(tmp_path, suffix, limit):
    out = tmp_path / f"out{suffix}"
    with pytest.raises(SetupError, match=f"out{suffix}: cannot be written"), full_disk(limit):
        with open_sink(str(out), Endless(), SIZE) as sink:
            run(Endless(), Echo(SIZE), sink)
    if sink.count == 0:  # not even a second's worth
        assert left_in(tmp_path) == [] and suffix == ".mp4" and limit == 50_000
    else:
        assert left_in(tmp_path) == [out.name]
        assert times_of(out) == pytest.approx([number / 25 for number in range(sink.count)], abs=0.001)


def test_the_disk_may_fill_while_the_file_is_ended(tmp_path):
    """The index at the end of an MP4 does not fit: the fragments before it play."""
    path = write(tmp_path / "in.mp4", still(60), sound="aac")
    copy(path, tmp_path / "whole.mp4")
    size = (tmp_path / "whole.mp4").stat().st_size
    with pytest.raises(SetupError), full_disk(size - 500):
        copy(path, tmp_path / "out.mp4")
    assert len(times_of(tmp_path / "out.mp4")) >= 50
    assert left_in(tmp_path) == ["in.mp4", "out.mp4", "whole.mp4"]


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_an_error_on_the_way_keeps_what_is_done(tmp_path, suffix):
    def fail(before, after):
        if sink.count == 20:
            raise MemoryError("none left")

    path = write(tmp_path / "in.mp4", still(40), sound="aac")
    out = tmp_path / f"out{suffix}"
    with (
        pytest.raises(MemoryError),
        open_source(str(path)) as source,
        open_sink(str(out), source, SIZE) as sink,
    ):
        run(source, Echo(SIZE), sink, see=fail)
    assert len(times_of(out)) == 20
    assert packets_of(out)[-1][0] < times_of(out)[-1] + 0.04
    assert left_in(tmp_path) == ["in.mp4", out.name]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_between_two_frames(tmp_path, number, capfd):
    out = tmp_path / "out.mp4"
    before = signal.getsignal(number)

    def see(_, after):
        if sink.count == 20:
            os.kill(os.getpid(), number)

    with Stop() as stop, open_sink(str(out), Endless(), SIZE) as sink:
        run(Endless(), Echo(SIZE, rows=4), sink, stop=stop, see=see)
    assert len(times_of(out)) == 20 and left_in(tmp_path) == ["out.mp4"]
    assert stop.exit_code == 128 + number and signal.getsignal(number) == before
    assert capfd.readouterr().err.startswith("stopping after this frame")


def test_a_second_ctrl_c_interrupts_and_still_ends_the_file(tmp_path):
    out = tmp_path / "out.mp4"

    class Stuck(Echo):
        def push(self, frame):
            if sink.count == 15:
                os.kill(os.getpid(), signal.SIGINT)
                os.kill(os.getpid(), signal.SIGINT)
                raise AssertionError("was not interrupted")
            return super().push(frame)

    with pytest.raises(KeyboardInterrupt), Stop() as stop, open_sink(str(out), Endless(), SIZE) as sink:
        run(Endless(), Stuck(SIZE), sink, stop=stop)
    assert len(times_of(out)) == 15 and left_in(tmp_path) == ["out.mp4"]


def test_stopped_before_the_first_frame_leaves_nothing(tmp_path):
    with Stop() as stop, open_sink(str(tmp_path / "out.mp4"), Endless(), SIZE) as sink:
        os.kill(os.getpid(), signal.SIGTERM)
        run(Endless(), Echo(SIZE), sink, stop=stop)
    assert sink.count == 0 and left_in(tmp_path) == []


KILLED = """
    import sys
    sys.path.insert(0, {root!r})
    from live2diff.stream.run import run
    from live2diff.stream.output import open_sink
    from tests.stream.media import Echo
    from tests.stream.test_sink import Endless
    with open_sink({out!r}, Endless(), (64, 48)) as sink:
        run(Endless(), Echo((64, 48)), sink, see=lambda *_: sink.count % 100 or print(sink.count, flush=True))
"""


@pytest.mark.slow
@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_after_kill_9_all_but_the_last_seconds_play(tmp_path, suffix):
    out = tmp_path / f"out{suffix}"
    code = textwrap.dedent(KILLED).format(root=str(ROOT), out=str(out))
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as child:
        for line in child.stdout:
            if int(line) >= 1000:
                child.kill()
                break
    (name,) = left_in(tmp_path)
    assert name.startswith(".staged-") and name.endswith(out.name)
    with av.open(str(tmp_path / name)) as container:
        played = 0
        try:
            for _ in container.decode(video=0):
                played += 1
        except av.FFmpegError:
            pass  # the fragment that was being written
    assert played >= 1000 - 75


# -- wrong use --------------------------------------------------------------------------------------------


def test_outputs_that_cannot_be(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in.mp4").touch()
    (tmp_path / "taken.mkv").touch()
    os.link(tmp_path / "in.mp4", tmp_path / "link.mp4")
    for folder, name in (("mine", "000000.png"), ("other", "holiday.jpg")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / name).touch()

    def refused(output, message, overwrite=False):
        with pytest.raises(UsageError, match=message):
            check_output(output, "in.mp4", overwrite)

    refused("out.avi", "must be named .mp4 or .mkv")
    refused("taken.mkv", "exists already.*--overwrite")
    refused("in.mp4", "is the input")
    refused("link.mp4", "is the input", overwrite=True)
    refused("mine", "not empty.*--overwrite")
    refused("other", "not empty")
    refused("other", "holiday.jpg: is no picture of an earlier run", overwrite=True)
    monkeypatch.setattr(os, "isatty", lambda number: True)
    refused("-", "this terminal")
    for output, overwrite in (("new.mp4", False), ("new", False), ("v1.2/", False), ("taken.mkv", True)):
        check_output(output, "in.mp4", overwrite)
    check_output("mine", "in.mp4", True)
    assert left_in(tmp_path / "other") == ["holiday.jpg"]


def test_a_place_that_cannot_be_written_shows_at_once():
    with pytest.raises(SetupError, match="/proc/out.mp4: cannot be written"):
        with open_sink("/proc/out.mp4", Endless(), SIZE):
            raise AssertionError("began to work")
