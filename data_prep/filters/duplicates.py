"""Near-duplicates among many fingerprints: those that differ in few of their 192 bits.

Comparing all pairs of a million clips is out of reach. So each fingerprint is cut into bands, and two are
compared only if they share a band. Of `n + 1` bands at least one is untouched by `n` changed bits: with 12
bands of 16 bits nothing within a distance of 11 is missed. Larger distances use 12 bands as well, because
shorter ones would be shared by too many; then a pair is missed only where its changed bits touch every band.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from data_prep.filters.fingerprint import BITS

_MAX_BANDS = 12
COMPLETE = _MAX_BANDS - 1  # up to this distance the search finds every pair


def find_duplicates(fingerprints: Sequence[str], max_distance: int) -> list[tuple[int, int, int]]:
    """Near-duplicates as (index, index of the clip it repeats, distance in bits), in the order of the first.

    The earlier of two stays: a fingerprint is compared with those before it that are no duplicates
    themselves, and the nearest is named. So nothing is dropped for being like something that is dropped too.

    Args:
        fingerprints: 48 hex digits each.
        max_distance: largest number of differing bits, 0 to 192.
    """
    bands = min(max_distance + 1, _MAX_BANDS)
    width = BITS // bands + (BITS % bands > 0)
    mask = (1 << width) - 1
    kept: list[defaultdict[int, list[int]]] = [defaultdict(list) for _ in range(bands)]
    values = [int(fingerprint, 16) for fingerprint in fingerprints]
    found = []
    for index, value in enumerate(values):
        keys = [value >> width * band & mask for band in range(bands)]
        nearest, distance = -1, max_distance + 1
        for table, key in zip(kept, keys, strict=True):
            for other in table.get(key, ()):
                differing = (value ^ values[other]).bit_count()
                if differing < distance or (differing == distance and other < nearest):
                    nearest, distance = other, differing
        if nearest >= 0:
            found.append((index, nearest, distance))
        else:
            for table, key in zip(kept, keys, strict=True):
                table[key].append(index)
    return found
