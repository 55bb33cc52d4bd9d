"""Measure pairs of videos: every metric in one pass over the frames, then means with intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from live2diff.errors import DataError, UsageError
from live2diff.eval.bootstrap import interval
from live2diff.eval.clips import stored_as
from live2diff.eval.metric import Metric, Score
from live2diff.eval.pairs import Pair, PairReader, Rule
from live2diff.eval.results import Figure, Signature, Skipped, VideoResult
from live2diff.terminal import progress

_MOST_SIZES = 8  # that a signature names one by one


class Measured:
    """What came of all pairs so far.

    Attributes:
        videos: one for every pair that was measured.
        skipped: pairs that could not be, and figures that are not defined for a video, with the reasons.
    """

    def __init__(self, metrics: Sequence[Metric], rule: Rule):
        self.videos: list[VideoResult] = []
        self.skipped: list[Skipped] = []
        self._metrics, self._rule = metrics, rule
        self._sizes: set[tuple[int, int]] = set()
        self._stored: set[str] = set()

    def add(self, pair: Pair, label: str) -> None:
        """Measure one pair; what is wrong with it becomes a reason."""
        try:
            with PairReader(pair, self._rule) as reader:
                running = [metric.begin() for metric in self._metrics]
                with progress(label, None) as advance:
                    for source, pred in reader:
                        for measurement in running:
                            measurement.add(source, pred)
                        advance()
            scores = {name: score for each in running for name, score in each.scores().items()}
            stored = stored_as(pair.pred)
        except (UsageError, DataError) as error:
            self.skipped.append(Skipped(pair.name, str(error)))
            return
        assert reader.size is not None
        self._sizes.add(reader.size)
        self._stored.add(stored)
        self._keep(pair, reader, scores)

    def _keep(self, pair: Pair, reader: PairReader, scores: Mapping[str, Score]) -> None:
        there = {name: score for name, score in scores.items() if score.value is not None}
        for name, score in scores.items():
            if name not in there:
                self.skipped.append(Skipped(pair.name, f"{name}: {score.reason}"))
        self.videos.append(
            VideoResult(
                name=pair.name,
                source=pair.source,
                source_hash=reader.source_hash,
                pred=pair.pred,
                frames=reader.count,
                fps=reader.fps,
                caption=pair.caption,
                values={name: float(score.value or 0.0) for name, score in there.items()},
                per_frame={name: score.per_frame for name, score in there.items()},
            )
        )

    def figures(self, given: Signature) -> dict[str, Figure]:
        """Means over the videos; a figure that no video has is absent.

        Args:
            given: what the signature of every figure says besides, such as the position of trigger words.
        """
        rule = self._rule
        common: Signature = {
            "resolution": _sizes(self._sizes),
            "fit": rule.fit,
            "length": rule.length,
            "frames": rule.frames or "all",
            "stored_as": ",".join(sorted(self._stored)),
            **given,
        }
        figures = {}
        for metric in self._metrics:
            for kind in metric.kinds:
                values = [video.values[kind.name] for video in self.videos if kind.name in video.values]
                if not values:
                    continue
                low, high = interval(values) or (None, None)
                figures[kind.name] = Figure(
                    signature={**metric.signatures()[kind.name], **common},
                    mean=float(np.mean(values)),
                    low=low,
                    high=high,
                    unit=kind.unit,
                    better=kind.better,
                    videos=len(values),
                )
        return figures


def _sizes(sizes: set[tuple[int, int]]) -> str:
    """The sizes that were compared: each, or of many their number and what they span."""
    if len(sizes) <= _MOST_SIZES:
        return ",".join(f"{width}x{height}" for width, height in sorted(sizes))
    areas = sorted(sizes, key=lambda size: (size[0] * size[1], size))
    return f"{len(sizes)} sizes, {areas[0][0]}x{areas[0][1]} to {areas[-1][0]}x{areas[-1][1]}"
