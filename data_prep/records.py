"""What is written about each clip and each input.

`record.schema.json` describes a clip's record, key by key; every record is checked against it before it is
written. Schema 1; later versions only add keys.

The record of an input, in the side-car of its shard, holds the same facts as `source` does there, `cuts` and
`holes` (index of the frame after each), `clips` and `dropped` (their numbers) and `rejected` (a reason, or
null).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_prep.config import PrepConfig
from data_prep.schema import record_faults
from data_prep.sources import Source
from live2diff import __version__

SCHEMA = 1
_INPUT_ONLY = ("cuts", "holes")  # a film has thousands: they are kept once, with the input


@dataclass(frozen=True)
class Outcome:
    """What became of one source.

    Attributes:
        sha1: of the source's bytes; None when they could not be read.
        caption, caption_source: of the whole source; a clip may have its own (`captions.py`).
        result: of the child: `facts`, and `clips` or `rejected` (a reason) or both.
        folder: where the clip files are.
    """

    source: Source
    sha1: str | None
    caption: str
    caption_source: str
    result: dict[str, Any]
    folder: Path

    @property
    def rejected(self) -> str | None:
        return self.result.get("rejected")

    @property
    def facts(self) -> dict[str, Any]:
        return self.result.get("facts", {})

    @property
    def clips(self) -> list[dict[str, Any]]:
        """The clips that no filter dropped; each has its file in `folder`."""
        return [clip for clip in self.result.get("clips", []) if not clip["dropped"]]

    @property
    def dropped(self) -> list[dict[str, Any]]:
        return [clip for clip in self.result.get("clips", []) if clip["dropped"]]


def clip_record(outcome: Outcome, clip: dict[str, Any], config: PrepConfig) -> dict[str, Any]:
    """The record of one clip of a source, dropped or not, checked against the schema."""
    assert outcome.sha1 is not None
    short = outcome.sha1[:12]
    facts = {key: value for key, value in outcome.facts.items() if key not in _INPUT_ONLY}
    record = {
        "schema": SCHEMA,
        "key": f"{short}_{clip['shot']:04d}_{clip['clip']:03d}",
        "source": {"id": short, "sha1": outcome.sha1, "uri": outcome.source.uri, **facts},
        "caption": outcome.caption,
        "caption_source": outcome.caption_source,
        **{key: value for key, value in clip.items() if key != "file"},
        "filters": config.filters(),
        "tool": f"live2diff {__version__}",
        "config_hash": config.hash(),
    }
    for fault in record_faults(record):
        raise ValueError(f"record {record['key']} is against the schema: {fault}")
    return record


def input_record(outcome: Outcome) -> dict[str, Any]:
    """What a source is and what came of it."""
    return {
        "uri": outcome.source.uri,
        "sha1": outcome.sha1,
        "bytes": outcome.source.bytes,
        **outcome.facts,
        "clips": len(outcome.clips),
        "dropped": len(outcome.dropped),
        "rejected": outcome.rejected,
    }


def reason_kind(reason: str) -> str:
    """The countable part of a reason: the words before its details."""
    return reason.partition(":")[0]
