"""How much a video flickers."""

from __future__ import annotations

import cv2
import numpy as np


def flicker(frames: np.ndarray) -> float:
    """The temporal high-frequency energy of a video: the strength of what alternates from frame to frame.

    With y the brightness (BT.601 luma, 0 to 1) of a pixel over time, d_t = (y_t-1 - 2 y_t + y_t+1) / 4 is
    what remains of it after a high-pass filter. It is 0 where brightness stays or changes at an even pace,
    and plus or minus a where it alternates by plus or minus a. The number is the root mean square of d over
    all pixels and all frames but the first and last. Texture that moves counts too: compare with the
    input's.

    Args:
        frames: uint8 RGB (F, H, W, 3), F 3 or more.

    Returns:
        0 for a still, 0.5 for frames that are black and white in turn.

    Raises:
        ValueError: fewer than 3 frames.
    """
    if len(frames) < 3:
        raise ValueError(f"flicker needs 3 frames or more, not {len(frames)}")
    luma = np.stack([cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in frames]).astype(np.float32) / 255
    high = (luma[:-2] - 2 * luma[1:-1] + luma[2:]) / 4
    return float(np.sqrt(np.mean(high.astype(np.float64) ** 2)))
