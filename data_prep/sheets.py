"""The pictures of a report: contact sheets, frames on either side of cuts, near-duplicates side by side."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from data_prep.finished import Finished, codes, numbers
from data_prep.look import Looker
from data_prep.members import read_array
from live2diff.columns import member, restore_depth
from live2diff.errors import DataError
from live2diff.html import Html, element, picture, show_number

_SIDE = 112  # short side of a picture, pixels: about 5 kB each
_CHARS = 400  # of a caption
_COLUMNS = ["key", "uri", "source_id", "split", "shard", "shot", "clip", "frames", "fps"]
_COLUMNS += ["start_s", "end_s", "first_frame", "stop_frame", "width", "height", "caption", "caption_source"]

Row = dict[str, Any]


class Sheets:
    """Makes the figures of one dataset; `looker` decodes the clips."""

    def __init__(self, dataset: Finished, looker: Looker):
        self._dataset, self._looker = dataset, looker
        self._clips = dataset.clips

    def contact(self, rows: Sequence[Row]) -> Iterator[Html]:
        """A figure per clip: four frames, its caption and its numbers."""
        for row in rows:
            count = row["frames"]
            frames = sorted({count * part // 8 for part in (1, 3, 5, 7)})
            facts = f"{show_number(count / row['fps'])} s, {count} frames at {show_number(row['fps'])} fps, "
            facts += f"{row['width']}x{row['height']}, {row['split']}"
            scores = ", ".join(
                f"{name.removeprefix('score_')} {show_number(value)}"
                for name, value in row.items()
                if name.startswith("score_") and isinstance(value, int | float)
            )
            said = (row["caption"] or "no caption")[:_CHARS]
            words = [
                element("p", said, class_="said" if row["caption"] else None),
                element("p", element("span", row["key"], class_="key"), " · ", row["uri"]),
                element("p", facts),
            ]
            if scores:
                words.append(element("p", scores))
            yield self._figure([(row, frames)], words)

    def cuts(self, most: int) -> Iterator[Html]:
        """Frames before and after detected cuts: the end of a clip and the start of the next shot's."""
        clips = self._clips
        source, shot, clip = (codes(clips, "source_id"), numbers(clips, "shot"), numbers(clips, "clip"))
        next_shot = (source[1:] == source[:-1]) & (shot[1:] == shot[:-1] + 1) & (clip[1:] == 0)
        found = np.flatnonzero(next_shot)
        for number in found[spread(clips.take(pa.array(found)), most)].tolist():
            before, after = self._rows([number, number + 1])
            lost = after["first_frame"] - before["stop_frame"]
            words = element(
                "p",
                before["uri"],
                f": cut before {after['start_s']:.2f} s, between shots {before['shot']} and {after['shot']}; "
                f"{lost} frames left out",
            )
            end = before["frames"]
            yield self._figure(
                [(before, [max(0, end - 5), end - 1]), (after, [0, min(4, after["frames"] - 1)])], [words]
            )

    def duplicates(self, most: int) -> Iterator[Html]:
        """Clips that look like an earlier one, beside it; the most alike first."""
        clips = self._clips
        others = clips.column("duplicate_of")
        at = pc.index_in(others, value_set=clips.column("key").combine_chunks())
        known = np.flatnonzero(pc.is_valid(at).to_numpy() & pc.is_valid(others).to_numpy())
        distances = np.nan_to_num(numbers(clips, "duplicate_distance"))
        for number in sorted(known.tolist(), key=lambda number: (distances[number], number))[:most]:
            distance, other = int(distances[number]), at[number].as_py()
            rows = self._rows([other, number])
            words = [element("p", f"{distance} of 192 bits differ")]
            words += [
                element("p", element("span", row["key"], class_="key"), f" · {row['uri']}") for row in rows
            ]
            yield self._figure([(row, [row["frames"] // 4, row["frames"] * 3 // 4]) for row in rows], words)

    def sample(self, most: int) -> list[Row]:
        """Rows of clips from as many sources as there is room for; the same ones every time."""
        return self._rows(spread(self._clips, most))

    def _rows(self, places: Sequence[int]) -> list[Row]:
        scores = [name for name in self._clips.column_names if name.startswith("score_")]
        return self._clips.select(_COLUMNS + scores).take(pa.array(places, pa.int64())).to_pylist()

    def _figure(self, parts: Sequence[tuple[Row, Sequence[int]]], words: Sequence[Html]) -> Html:
        """A row of pictures, `frames` of each clip, above a caption."""
        pictures, faults = [], []
        for row, frames in parts:
            try:
                found = self._dataset.place(row, "mp4")
            except DataError as error:
                found, fault = None, str(error)
            else:
                fault = None if found else "is not in its shard"
            if found:
                seen = self._looker(*found, frames=frames, side=_SIDE)
                fault = seen.fault
                for number, data in sorted(seen.pictures.items()):
                    apart = bool(pictures) and number == min(seen.pictures)
                    alt = f"frame {number} of {row['key']}"
                    pictures.append(picture(data, alt, class_="apart" if apart else None))
            if fault:
                faults.append(element("p", f"{row['key']}: {fault}"))
        return element(
            "figure", element("div", *pictures, class_="strip"), element("figcaption", *faults, *words)
        )


def spread(clips: pa.Table, most: int) -> list[int]:
    """At most `most` row numbers, drawn by their keys' hash: one of each source before a second of any."""
    drawn = np.argsort(
        [zlib.crc32(str(key).encode()) for key in clips.column("key").to_pylist()], kind="stable"
    )
    source = codes(clips, "source_id")[drawn]
    # The turn of each drawn row among those of its source: its place behind the first of them.
    grouped = np.argsort(source, kind="stable")
    first = np.searchsorted(source[grouped], source[grouped])
    turn = np.empty(len(drawn), np.int64)
    turn[grouped] = np.arange(len(drawn)) - first
    return sorted(drawn[np.argsort(turn, kind="stable")[:most]].tolist())


def depth_values(dataset: Finished, rows: Sequence[Row]) -> np.ndarray:
    """Raw inverse depth of `rows`, every eighth pixel of every fourth frame."""
    parts = [np.empty(0)]
    for row in rows:
        try:
            stored, scaling = (dataset.member(row, member("depth", of=of), "depth") for of in ("", "range"))
            if stored is not None and scaling is not None:
                values = restore_depth(read_array(stored)[::4, ::8, ::8], read_array(scaling)[::4])
                parts.append(values.reshape(-1))
        except (DataError, ValueError, IndexError):
            continue  # `data check` names it
    return np.concatenate(parts)
