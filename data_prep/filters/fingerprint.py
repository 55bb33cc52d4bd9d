"""A perceptual hash: 64 bits for each of three frames, which survive another size, bitrate or colour grading.

The hash of a frame (pHash) says for each of its 64 lowest spatial frequencies whether it is stronger than
their median. The frames are those at 25, 50 and 75 % of the clip, so a copy cut at another place is not
recognised.
"""

from __future__ import annotations

import cv2
import numpy as np

BITS = 3 * 64

# The places of the 64 lowest frequencies in a 32 x 32 transform, without the first, which is the brightness.
_ROWS, _COLUMNS = np.indices((32, 32)).reshape(2, -1)
_ORDER = np.lexsort((_COLUMNS, _ROWS, _ROWS + _COLUMNS))[1:65]
_LOWEST = (_ROWS[_ORDER], _COLUMNS[_ORDER])


class Fingerprint:
    """Watches grey uint8 frames (H, W). `frames`: how many will come."""

    def __init__(self, frames: int):
        self._wanted = [frames * quarter // 4 for quarter in (1, 2, 3)]
        self._seen = 0
        self.hex = ""  # 16 digits per frame hashed so far, 48 at the end

    def see(self, grey: np.ndarray) -> None:
        for _ in range(self._wanted.count(self._seen)):
            self.hex += f"{frame_hash(grey):016x}"
        self._seen += 1


def frame_hash(grey: np.ndarray) -> int:
    """64 bits of one grey uint8 frame (H, W)."""
    small = cv2.resize(grey, (32, 32), interpolation=cv2.INTER_AREA).astype(np.float32)
    frequencies = cv2.dct(small)[_LOWEST]
    bits = frequencies > np.median(frequencies)
    return int.from_bytes(np.packbits(bits).tobytes(), "big")
