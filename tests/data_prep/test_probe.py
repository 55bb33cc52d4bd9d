"""The truth about a file: times, holes, rate, geometry."""

from fractions import Fraction

import numpy as np
import pytest

from data_prep.probe import probe, source_rate, timeline
from tests.data_prep.videos import blocks, write_timed


def look(path):
    return probe(str(path), see=lambda frame: None)


def test_frames_times_and_rate_are_those_of_the_file(movie):
    found = look(movie("a.mp4", blocks(50, 0)))
    assert found.rate == 24 and found.damage is None
    assert found.times == pytest.approx([number / 24 for number in range(50)], abs=1e-3)
    assert found.geometry.upright == (96, 64)


def test_irregular_times_survive(tmp_path):
    times = [0, 40, 80, 200, 210, 300, 360]
    write_timed(tmp_path / "vfr.mp4", blocks(7, 0), times)
    assert look(tmp_path / "vfr.mp4").times == pytest.approx([time / 1000 for time in times], abs=1e-3)


def test_a_cut_off_file_gives_the_frames_before_the_damage(movie):
    path = movie("cut.mp4", [np.roll(frame, 5 * i, 0) for i, frame in enumerate(blocks(60, 1))])
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * 0.6)])
    found = look(path)
    assert found.damage and 5 < len(found.times) < 60


def test_lost_frames_are_a_hole_and_are_told(movie):
    path = movie("x.mp4", [np.roll(frame, 3 * i, 0) for i, frame in enumerate(blocks(64, 1))])
    data = bytearray(path.read_bytes())
    middle = slice(len(data) * 2 // 5, len(data) * 2 // 5 + 300)
    data[middle] = bytes(300)
    path.write_bytes(data)
    found = look(path)
    (loss,) = found.losses
    assert 16 <= loss.frame <= 48 and found.holes == [loss.frame]
    facts = found.facts()
    assert facts["damage"] == loss.reason and facts["damaged_spans"] == [[loss.frame, loss.reason]]
    assert facts["frames_decoded"] == len(found.times) < 64
    lost = (64 - len(found.times)) / 24
    assert found.times[loss.frame] - found.times[loss.frame - 1] == pytest.approx(lost + 1 / 24, abs=1e-3)


def test_holes_are_closed_and_marked_jitter_is_flattened():
    times, holes = timeline([5.0, 5.1, 5.2, 90.0, 90.1, 1.0, 1.1], Fraction(10))
    assert holes == [3, 5]
    assert times == pytest.approx([0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6])
    times, holes = timeline([0.0, 0.08, 0.04, 0.12], Fraction(25))
    assert holes == [] and times == pytest.approx([0, 0.08, 0.08, 0.12])


@pytest.mark.parametrize("stamps", [[None, None, None], [0.0, 0.0, 0.0], [None, 1.0, 2.0]])
def test_without_usable_stamps_frames_are_spaced_evenly(stamps):
    assert timeline(stamps, Fraction(10)) == ([0.0, 0.1, 0.2], [])


def test_rate_of_irregular_times():
    ntsc = Fraction(30000, 1001)
    rounded = [round(float(number / ntsc), 3) for number in range(300)]
    assert source_rate(rounded, [ntsc]) == ntsc
    assert source_rate([*rounded, rounded[-1] + 1.5], [Fraction(25)]) == pytest.approx(float(ntsc), rel=1e-3)
    assert source_rate([0.0, 0.01, 1.5, 1.51, 3.0], []) == pytest.approx(4 / 3, rel=1e-3)
    assert source_rate([0.0], []) == 25
