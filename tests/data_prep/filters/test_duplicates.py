"""A copy is recognised whatever was done to it; something else is not taken for one."""

import random

import numpy as np
import pytest

from data_prep.filters import Scores
from data_prep.filters.duplicates import COMPLETE, find_duplicates
from live2diff.video import VideoReader, write_video
from tests.data_prep.filters.pictures import pan


def fingerprint(frames) -> str:
    scores = Scores(len(frames), 12)
    for frame in frames:
        scores.see(frame)
    return scores.values()["fingerprint"]


def distance(one: str, other: str) -> int:
    return (int(one, 16) ^ int(other, 16)).bit_count()


def flipped(value: int, bits: int, rng: random.Random) -> int:
    for bit in rng.sample(range(192), bits):
        value ^= 1 << bit
    return value


def hexes(values) -> list[str]:
    return [f"{value:048x}" for value in values]


def test_a_copy_of_another_size_bitrate_or_brightness_is_near_and_other_scenes_are_far(tmp_path):
    frames = pan(3, 12, 0.3)
    original = fingerprint(frames)
    assert len(original) == 48
    write_video(tmp_path / "poor.mp4", frames, 12, crf=38)
    with VideoReader(tmp_path / "poor.mp4") as reader:
        poor = list(reader)
    small = [np.ascontiguousarray(frame[::2, ::2]) for frame in frames]
    dark = [(frame * 0.7 + 10).astype(np.uint8) for frame in frames]
    assert fingerprint(frames) == original
    for copy in (poor, small, dark):
        assert distance(fingerprint(copy), original) <= COMPLETE
    for seed in range(1, 9):
        assert distance(fingerprint(pan(3, 12, 0.3, seed)), original) > 50
    mirrored = [frame[:, ::-1].copy() for frame in frames]
    assert distance(fingerprint(mirrored), original) > 50


@pytest.mark.parametrize("max_distance", [0, 3, 7, COMPLETE])
def test_every_pair_within_the_distance_is_found_and_no_other(max_distance: int):
    rng = random.Random(max_distance)
    values = [rng.getrandbits(192) for _ in range(3000)]
    for number in range(0, 300):
        values.append(flipped(values[number], number % (max_distance + 4), rng))
    found = {index: (other, far) for index, other, far in find_duplicates(hexes(values), max_distance)}
    expected = {
        3000 + number: (number, number % (max_distance + 4))
        for number in range(300)
        if number % (max_distance + 4) <= max_distance
    }
    assert found == expected


def test_beyond_the_complete_distance_nearly_all_are_found():
    rng = random.Random(0)
    values = [rng.getrandbits(192) for _ in range(3000)]
    values += [flipped(value, 16, rng) for value in values]
    assert len(find_duplicates(hexes(values), 16)) >= 0.95 * 3000


def test_the_earlier_stays_and_no_clip_is_dropped_for_a_dropped_one():
    chain = [sum(1 << bit for bit in range(8 * step)) for step in range(4)]  # each 8 bits from the next
    assert find_duplicates(hexes(chain), 8) == [(1, 0, 8), (3, 2, 8)]
    assert find_duplicates(hexes([5, 5, 5, 7]), 0) == [(1, 0, 0), (2, 0, 0)]
    assert find_duplicates(hexes([0, 2**6 - 1, 2**3 - 1]), 5) == [
        (2, 0, 3)
    ]  # the nearer, at a draw the earlier
    assert find_duplicates([], 4) == []


def test_a_heap_of_copies_does_not_make_the_search_quadratic():
    """What is dropped is not compared with: a search that did would not end here."""
    assert len(find_duplicates(["0" * 48] * 200_000, COMPLETE)) == 199_999
