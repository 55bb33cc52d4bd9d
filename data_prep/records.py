"""What is written about each clip and each input. Schema 1; later versions only add keys.

A clip's record is its `.json` member and the first part of its row in `index.jsonl`:

    schema, key        1; the sample's key, `{sha1 of the source, 12 digits}_{shot:04d}_{clip:03d}`
    source             id (12 digits), sha1, uri (name relative to the folder above the sources), and:
                       frames_decoded, duration_s, fps, size [width, height] upright, rotation (degrees,
                       counter-clockwise), codec, pixel_format, transfer (ISO/IEC 23091-2; 16, 18: HDR),
                       damage (why decoding stopped early, or null)
    shot, clip         numbers in the source, from 0; shots too short for a clip are counted too
    span_s             [start, end] in the source, seconds from its first frame, holes closed up
    frame_range        [first, last + 1] source frames
    frames, fps, size  of the clip; repeated: frames that show the source frame before them once more
    caption, caption_source   text, and "sidecar" or "none"
    tool, config_hash  who made it, with which settings

The record of an input, in the side-car of its shard, holds the same facts, `cuts` and `holes` (index of the
frame after each), `clips` (their number) and `rejected` (the reason, or null).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_prep.config import PrepConfig
from data_prep.worklist import WorkItem
from live2diff import __version__

SCHEMA = 1


@dataclass(frozen=True)
class Outcome:
    """What became of one source.

    Attributes:
        sha1: of the source's bytes; None when they could not be read.
        result: of the child: `facts`, and `clips` or `rejected` (a reason).
        folder: where the clip files are.
    """

    item: WorkItem
    sha1: str | None
    caption: str
    result: dict[str, Any]
    folder: Path

    @property
    def rejected(self) -> str | None:
        return self.result.get("rejected")

    @property
    def clips(self) -> list[dict[str, Any]]:
        return self.result.get("clips", [])


def clip_records(outcome: Outcome, config: PrepConfig) -> list[dict[str, Any]]:
    """The record of each clip of a source, in order."""
    if not outcome.clips:
        return []
    assert outcome.sha1 is not None
    short = outcome.sha1[:12]
    # A film has thousands of cuts: they are kept once, with the input.
    facts = {key: value for key, value in outcome.result["facts"].items() if key not in ("cuts", "holes")}
    source = {"id": short, "sha1": outcome.sha1, "uri": outcome.item.source.uri, **facts}
    return [
        {
            "schema": SCHEMA,
            "key": f"{short}_{clip['shot']:04d}_{clip['clip']:03d}",
            "source": source,
            **{key: value for key, value in clip.items() if key != "file"},
            "caption": outcome.caption,
            "caption_source": "sidecar" if outcome.caption else "none",
            "tool": f"live2diff {__version__}",
            "config_hash": config.hash(),
        }
        for clip in outcome.clips
    ]


def input_record(outcome: Outcome) -> dict[str, Any]:
    """What a source is and what came of it."""
    return {
        "uri": outcome.item.source.uri,
        "sha1": outcome.sha1,
        "bytes": outcome.item.bytes,
        **outcome.result.get("facts", {}),
        "clips": len(outcome.clips),
        "rejected": outcome.rejected,
    }


def reason_kind(reason: str) -> str:
    """The countable part of a reason: the words before its details."""
    return reason.partition(":")[0]
