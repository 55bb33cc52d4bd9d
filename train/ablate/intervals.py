"""How sure a mean over training seeds and scenes is: percentile bootstrap that draws both anew.

Every draw takes seeds and scenes, each with replacement and independently, and every scene with every seed
(a crossed design: all seeds see the same scenes). Rows are compared by their differences, value by value,
which takes out how hard a scene is. Of one seed, only scenes are drawn: the interval then says nothing of
another training. Of few seeds it is too narrow rather than too wide.
"""

from __future__ import annotations

import numpy as np

from live2diff.eval.bootstrap import LEVEL, SAMPLES, SEED

LEAST = 5  # scenes; drawn from fewer, an interval would often leave out what it should hold


def interval(values: np.ndarray) -> tuple[float, float] | None:
    """The 95 % interval of the mean of `values` (S seeds, N scenes); None of fewer than 5 scenes, or NaN."""
    if values.shape[1] < LEAST or not np.isfinite(values).all():
        return None
    generator = np.random.default_rng(SEED)
    seeds, scenes = (
        generator.multinomial(count, np.full(count, 1 / count), SAMPLES) / count for count in values.shape
    )
    means = np.einsum("ds,sn,dn->d", seeds, values, scenes, optimize=True)
    low, high = np.quantile(means, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)
