"""HDR pictures to SDR ones, by formula: PQ and HLG (ITU-R BT.2100) to 8-bit BT.709.

Without this an HDR source comes out grey and flat. The steps, on the light a display would emit, in cd/m2:

    Y'CbCr -> R'G'B' -> light      BT.2100: the PQ curve (table 4), or HLG with the system gamma of a
                                   1000 cd/m2 display (table 5)
    light up to 1000 -> up to 203  BT.2390, 5.4.1: the EETF, a curve that leaves dark and middle tones alone
                                   and bends the highlights; 203 cd/m2 is HDR reference white (BT.2408).
                                   It acts on the largest of R, G, B, so the hue stays.
    BT.2020 -> BT.709 primaries    BT.2087; what lies outside is clipped
    light -> code values           the inverse of a reference display's curve (BT.1886)

Content mastered above 1000 cd/m2 is clipped there; metadata about its peak is optional and often wrong.
"""

from __future__ import annotations

import numpy as np

PQ, HLG = 16, 18  # transfer functions, as ISO/IEC 23091-2 numbers them

_PEAK = 1000.0  # cd/m2: brightest light looked for in the source
_WHITE = 203.0  # cd/m2: what becomes the brightest SDR value

_KR, _KB = 0.2627, 0.0593  # weights of red and blue in BT.2020 luma
_LUMA = np.array([_KR, 1 - _KR - _KB, _KB], np.float32)
_TO_709 = np.array(
    [[1.6605, -0.5876, -0.0728], [-0.1246, 1.1329, -0.0083], [-0.0182, -0.1006, 1.1187]], np.float32
)


def to_sdr(codes: np.ndarray, transfer: int) -> np.ndarray:
    """HDR picture -> uint8 RGB (H, W, 3) for a BT.709 display.

    Args:
        codes: uint16 Y'CbCr (H, W, 3), BT.2020, narrow range scaled to 16 bits (black 4096, white 60160).
        transfer: `PQ` or `HLG`.
    """
    signal = _rgb(codes)
    light = pq_light(signal) if transfer == PQ else hlg_light(signal)
    peak = light.max(axis=-1, keepdims=True)
    light *= np.interp(peak, _LIGHTS, _GAINS).astype(np.float32) / _WHITE
    light = np.clip(light @ _TO_709.T, 0, 1)
    return np.rint(255 * light ** (1 / 2.4)).astype(np.uint8)


def pq_light(signal: np.ndarray) -> np.ndarray:
    """PQ signal in [0, 1] -> cd/m2 in [0, 10000] (BT.2100, table 4)."""
    m1, m2 = 2610 / 16384, 2523 / 4096 * 128
    c1, c2, c3 = 3424 / 4096, 2413 / 4096 * 32, 2392 / 4096 * 32
    root = signal ** (1 / m2)
    return 10000 * (np.maximum(root - c1, 0) / (c2 - c3 * root)) ** (1 / m1)


def pq_signal(light: np.ndarray) -> np.ndarray:
    """The inverse of `pq_light`."""
    m1, m2 = 2610 / 16384, 2523 / 4096 * 128
    c1, c2, c3 = 3424 / 4096, 2413 / 4096 * 32, 2392 / 4096 * 32
    power = (light / 10000) ** m1
    return ((c1 + c2 * power) / (1 + c3 * power)) ** m2


def hlg_light(signal: np.ndarray) -> np.ndarray:
    """HLG R'G'B' (..., 3) in [0, 1] -> cd/m2 on a display of 1000 cd/m2 (BT.2100, table 5)."""
    a, b, c = 0.17883277, 0.28466892, 0.55991073
    scene = np.where(signal <= 0.5, signal**2 / 3, (np.exp((signal - c) / a) + b) / 12)
    luminance = scene @ _LUMA
    return (_PEAK * luminance**0.2)[..., None] * scene  # system gamma 1.2


def compress(light: np.ndarray) -> np.ndarray:
    """cd/m2 in [0, `_PEAK`] -> cd/m2 in [0, `_WHITE`]: the EETF of BT.2390 for a black of zero."""
    top = pq_signal(np.array(_PEAK))
    signal = np.minimum(pq_signal(np.asarray(light, np.float64)) / top, 1)
    limit = pq_signal(np.array(_WHITE)) / top
    knee = 1.5 * limit - 0.5
    t = np.maximum(signal - knee, 0) / (1 - knee)
    # A cubic from the knee, where it continues the straight line, to the limit, which it meets level.
    bend = (
        (2 * t**3 - 3 * t**2 + 1) * knee + (t**3 - 2 * t**2 + t) * (1 - knee) + (3 * t**2 - 2 * t**3) * limit
    )
    return pq_light(np.where(signal < knee, signal, bend) * top)


def _rgb(codes: np.ndarray) -> np.ndarray:
    """Narrow-range Y'CbCr codes of 16 bits -> R'G'B' in [0, 1] (BT.2100, tables 6 and 9)."""
    luma, blue, red = np.moveaxis(codes.astype(np.float32), -1, 0)
    luma, blue, red = (luma - 4096) / 56064, (blue - 32768) / 57344, (red - 32768) / 57344
    r, b = luma + 2 * (1 - _KR) * red, luma + 2 * (1 - _KB) * blue
    g = (luma - _KR * r - _KB * b) / (1 - _KR - _KB)
    return np.clip(np.stack([r, g, b], axis=-1), 0, 1)


# The curve as a table of gains over light, evenly spaced to the eye.
_LIGHTS = pq_light(np.linspace(1e-3, 1, 1024))
_GAINS = compress(_LIGHTS) / _LIGHTS
