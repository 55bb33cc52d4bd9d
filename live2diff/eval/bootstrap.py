"""How sure a mean is: percentile bootstrap intervals, seeded (Efron 1979)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

SAMPLES = 10_000
LEVEL = 0.95
SEED = 0

_AT_ONCE = 1 << 22  # numbers drawn at a time


def interval(values: Sequence[float]) -> tuple[float, float] | None:
    """The interval of the mean of `values`; None for fewer than two.

    The values are drawn anew with replacement `SAMPLES` times; the ends are the percentiles of the means.
    """
    if len(values) < 2:
        return None
    data = np.asarray(values, dtype=np.float64)
    generator = np.random.default_rng(SEED)
    rows = max(1, _AT_ONCE // len(data))
    means = [
        data[generator.integers(0, len(data), (min(rows, SAMPLES - start), len(data)))].mean(axis=1)
        for start in range(0, SAMPLES, rows)
    ]
    low, high = np.quantile(np.concatenate(means), [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)
