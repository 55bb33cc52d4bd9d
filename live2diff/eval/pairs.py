"""A source and its output, frame by frame: paired by name, brought to one size, of one length."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Literal

import numpy as np

from live2diff.errors import DataError
from live2diff.eval.clips import Clip, open_clip
from live2diff.eval.results import Skipped
from live2diff.stream.fit import Fit, fit

Length = Literal["equal", "shortest"]


@dataclass(frozen=True)
class Pair:
    """One video: its source, and what was made of it."""

    name: str
    source: str
    pred: str
    caption: str | None = None


@dataclass(frozen=True)
class Rule:
    """What frames are compared; all of it stands in every signature.

    Attributes:
        size: (width, height) that both are brought to; None: the output's own, which the source is fitted to.
        fit: how, where shapes differ: as `live2diff.stream.fit`.
        length: `equal`: a pair of different lengths is refused; `shortest`: the first frames are compared, as
            many as both have.
        frames: at most so many, from the beginning; None: all.
    """

    size: tuple[int, int] | None = None
    fit: Fit = "crop"
    length: Length = "equal"
    frames: int | None = None


def pair_up(sources: Sequence[Clip], preds: Sequence[Clip]) -> tuple[list[Pair], list[Skipped]]:
    """Pair by name, in the order of names; what has no partner, or two, is skipped with the reason."""
    skipped = []
    known: list[dict[str, Clip]] = []
    for kind, clips in (("sources", sources), ("outputs", preds)):
        double = repeated(clips)
        skipped += [Skipped(name, f"two {kind} have this name") for name in sorted(double)]
        known.append({clip.name: clip for clip in clips if clip.name not in double})
    before, after = known
    refused = {skip.name for skip in skipped}
    pairs = []
    for name in sorted({*before, *after}):
        if name in before and name in after:
            clip = before[name]
            pairs.append(Pair(name, clip.address, after[name].address, clip.caption))
        elif name not in refused:
            missing = "source" if name in after else "output"
            skipped.append(Skipped(name, f"there is no {missing} of this name"))
    return pairs, skipped


def repeated(clips: Iterable[Clip]) -> set[str]:
    """Names that more than one clip has."""
    return {name for name, count in Counter(clip.name for clip in clips).items() if count > 1}


class PairReader:
    """The frames of a pair; iterate once, as a context manager.

    Attributes:
        fps: of the source.
        size: (width, height) of what is compared; known after the first frame.
        count: pairs of frames so far.
        source_hash: of the source's frames so far, as they were decoded.

    Raises:
        UsageError, DataError: either cannot be opened. While iterating also: either is damaged, changes its
            size, or their lengths are not what the rule wants.
    """

    def __init__(self, pair: Pair, rule: Rule):
        self._rule, self.count = rule, 0
        self._seen = hashlib.sha256()
        self.size = rule.size
        with ExitStack() as stack:
            self._source = stack.enter_context(open_clip(pair.source))
            self._pred = stack.enter_context(open_clip(pair.pred))
            self._closing = stack.pop_all()
        self.fps = float(self._source.fps)

    def __enter__(self) -> PairReader:
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.close()

    @property
    def source_hash(self) -> str:
        return self._seen.hexdigest()

    def __iter__(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """(source, output), both uint8 RGB (H, W, 3)."""
        sources, preds = iter(self._source), iter(self._pred)
        while self._rule.frames is None or self.count < self._rule.frames:
            source, pred = next(sources, None), next(preds, None)
            if source is None or pred is None:
                self._check_end(source is not None, pred is not None, sources, preds)
                return
            height, width = pred.picture.shape[:2]
            size = self._rule.size or (width, height)
            if self.size not in (None, size):
                raise DataError(f"{self._pred.name}: frame {self.count} has another size than the first")
            self.size = size
            self.count += 1
            self._seen.update(repr(source.picture.shape).encode())
            self._seen.update(source.picture.tobytes())
            yield (
                fit(source.picture, size, self._rule.fit, self._source.aspect),
                fit(pred.picture, size, self._rule.fit, self._pred.aspect),
            )

    def _check_end(self, more_source: bool, more_pred: bool, sources: Iterator, preds: Iterator) -> None:
        for there, video in ((more_source, self._source), (more_pred, self._pred)):
            if not there and video.damage is not None:
                raise video.damage
        if more_source == more_pred or self._rule.length == "shortest":
            return
        rest = 1 + sum(1 for _ in (sources if more_source else preds))
        lengths = (self.count + rest * more_source, self.count + rest * more_pred)
        raise DataError(
            f"{lengths[0]} frames in the source, {lengths[1]} in the output; length=shortest compares "
            f"the first {self.count}"
        )
