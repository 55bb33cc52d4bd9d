"""Table 3: how long a frame takes with the cache and without, and whether both show the same."""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from live2diff.errors import DataError, UsageError
from live2diff.files import write_json
from live2diff.machine import describe
from live2diff.terminal import progress
from train.ablate.cache import compare_caches
from train.ablate.claims import Verdict
from train.ablate.data import toy_model
from train.ablate.evaluate import made_on
from train.ablate.folder import Folder
from train.ablate.intervals import interval
from train.ablate.scenes import held_out
from train.ablate.settings import AblateSettings
from train.ablate.show import Shown, mean_cell, signed
from train.settings import load_config

# Rows: what they are, and the paper's seconds per frame.
_ROWS = {
    "cache_s": ("KV cache", "keys and values of past frames are kept", 0.06),
    "no_cache_s": ("no KV cache", "the whole window anew for every frame", 20.43),
}


def check_frames(settings: AblateSettings) -> None:
    """Raises UsageError: scenes of too few frames for one to be evicted."""
    window = load_config(["model=toy", "data.path=none"])["model"]["settings"]["window"]
    if settings.frames <= window:
        raise UsageError(f"frames={settings.frames}: Table 3 needs more than the window of {window}")


def cache_table(folder: Folder, settings: AblateSettings) -> tuple[Shown, dict[str, Any]]:
    """Measure unless it is measured; returns the table, and its values for results.json."""
    found = _measured(folder, settings)
    # As one row of many scenes, for `interval`.
    seconds = {name: np.array(found[name], dtype=np.float64)[None] for name in _ROWS}
    with_cache, without = seconds.values()
    saved, ends = without - with_cache, interval(without - with_cache)
    low, high = ends or (None, None)
    faster: Verdict = "undecided"
    if low is not None and high is not None and (low > 0 or high < 0):
        faster = "holds" if low > 0 else "does not hold"
    before, after = found["before"], found["after"]
    alike: Verdict = "holds" if before["largest"] <= 1 else "does not hold"
    findings = [
        (
            f"A frame takes less time with the cache: {faster}",
            [
                f"{without.mean() / with_cache.mean():.3g} times less; seconds saved per frame: "
                f"{signed(saved.mean(), low, high)}"
            ],
        ),
        (
            f"Until a frame is evicted, both show the same: {alike}",
            [
                f"largest difference {before['largest']} of 255 levels, mean {before['mean']:g}; rounding "
                "may cost one",
                f"afterwards, when the cache holds what its frames saw of evicted ones: largest "
                f"{after['largest']}, mean {after['mean']:g}",
            ],
        ),
    ]
    shown = Shown(
        "Table 3: with and without the cache",
        [
            f"Toy world: {settings.timed_scenes} scenes of {settings.frames} frames, both ways in turn; "
            f"{saved.size} frames with a full window timed, from picture to picture.",
            "The paper's are of SD1.5 at 512x512 on an RTX 4090. "
            f"Ours: {found['machine']['cpu']}, load {found['machine']['load']}.",
            "In brackets, 95 % intervals over the frames.",
        ],
        ["row", "", "seconds per frame ↓", "paper"],
        [
            [label, about, mean_cell(seconds[name].mean(), interval(seconds[name])), f"{paper:.2f}"]
            for name, (label, about, paper) in _ROWS.items()
        ],
        findings,
    )
    return shown, {
        "made_on": [found["made_on"]],
        "measured": found,
        "findings": [{"text": text, "details": parts} for text, parts in findings],
    }


def _measured(folder: Folder, settings: AblateSettings) -> dict[str, Any]:
    path = folder.measured("cache", 0)
    if path.exists():
        try:
            return json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise DataError(f"{path}: cannot be read; remove it, and run the same command again") from error
    model = toy_model("model.unet.motion=toy:live2diff.safetensors")
    scenes = held_out(settings.timed_scenes, settings.frames)
    with progress("timing", settings.timed_scenes, "scenes") as advance:
        found = compare_caches(model, scenes, settings.steps, advance)
    found |= {"machine": describe(), "made_on": made_on()}
    write_json(path, found)
    return found
