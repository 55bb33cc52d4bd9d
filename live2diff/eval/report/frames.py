"""The frames of a measured pair of videos, as they were measured."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from live2diff.errors import UsageError
from live2diff.eval.pairs import Pair, PairReader, Rule
from live2diff.eval.results import VideoResult


def read_pairs(video: VideoResult, wanted: range, rule: Rule) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Source and output of the frames `wanted`, both uint8 RGB (H, W, 3) of one size.

    Args:
        rule: how frames were brought to one size.

    Raises:
        UsageError, DataError: one of the two cannot be read, or ends early.
    """
    enough = replace(rule, length="shortest", frames=wanted.stop)
    with PairReader(Pair(video.name, video.source, video.pred), enough) as reader:
        for number, pair in enumerate(reader):
            if number in wanted:
                yield pair
        if reader.count < max(1, wanted.stop):
            raise UsageError(f"{video.pred}: ends after {reader.count} frames; {video.frames} were measured")
