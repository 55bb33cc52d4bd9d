"""The first scene as every row shows it: what figures do not say."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import cv2
import numpy as np

from live2diff.files import staged_file
from live2diff.panels import enlarge, labelled, strip


def keep_strip(path: Path, frames: np.ndarray) -> None:
    """Some of the frames of a clip (F, H, W, 3), beside each other."""
    _write(path, strip(frames))


def save_rows(path: Path, source: np.ndarray, kept: Mapping[str, Path]) -> None:
    """Strips that `keep_strip` wrote below that of their `source`, each under its name."""
    rows = {"input": strip(source)}
    for name, place in kept.items():
        picture = cv2.imread(str(place))
        if picture is not None:  # who removes a picture does without
            rows[name] = cv2.cvtColor(picture, cv2.COLOR_BGR2RGB)
    _write(path, labelled({name: enlarge(row) for name, row in rows.items()}, vertical=True))


def _write(path: Path, picture: np.ndarray) -> None:
    with staged_file(path) as stage:
        cv2.imwrite(str(stage), cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
