"""The videos of a WebDataset tar. Nothing is extracted: a member is a span of bytes in the tar."""

from __future__ import annotations

import json
import posixpath
import tarfile
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import IO

from data_prep.sources.places import open_place, reason
from live2diff.tars import entries, open_tar

_TEXT_BYTES = 1 << 18  # of a `.txt` or `.json` member
_CAPTION_KEYS = ("caption", "text")  # of a `.json` member, beside the configured one


@dataclass(frozen=True, slots=True)
class Member:
    """A video in a tar: its name there, where its bytes begin, their number, and its caption or ""."""

    name: str
    offset: int
    bytes: int
    caption: str


class TarError(Exception):
    """The tar cannot be read on; the message says where and why."""


def video_members(place: str, suffixes: Collection[str], caption_key: str) -> Iterator[Member]:
    """The members of the tar at `place` that have one of `suffixes`, in its order.

    A caption is the `.txt` member of the same name up to the first dot, or a text in its `.json` member,
    under `caption_key`, "caption" or "text".

    Raises:
        TarError: the tar is damaged; the members before the damage have been yielded.
    """
    try:
        with open_place(place) as file:
            yield from _members(file, suffixes, caption_key)
    except (TarError, MemoryError):
        raise
    except Exception as error:  # tarfile raises many kinds on hostile bytes, a remote file system any
        raise TarError(f"cannot be read as a tar: {reason(error)}") from error


def _members(file: IO[bytes], suffixes: Collection[str], caption_key: str) -> Iterator[Member]:
    """Members come in groups of one key; a group's videos are known when it has ended."""
    key, videos, texts = "", [], {}
    count = 0
    try:
        with open_tar(file) as tar:
            for member in entries(tar):
                count += 1
                if not member.isreg() or member.sparse is not None:
                    continue
                base, suffix = _split(member.name)
                if base != key:
                    yield from _group(file, videos, texts, caption_key)
                    key, videos, texts = base, [], {}
                if suffix in suffixes:
                    videos.append(member)
                elif suffix in (".txt", ".json"):
                    texts[suffix] = member
    except (tarfile.TarError, ValueError, OverflowError) as error:
        yield from _group(file, videos, texts, caption_key)
        raise TarError(f"damaged after {count} members: {reason(error)}") from error
    yield from _group(file, videos, texts, caption_key)


def _group(
    file: IO[bytes], videos: list[tarfile.TarInfo], texts: dict[str, tarfile.TarInfo], caption_key: str
) -> Iterator[Member]:
    if not videos:
        return
    back = file.tell()
    caption = _caption(file, texts, caption_key)
    file.seek(back)
    for video in videos:
        yield Member(video.name, video.offset_data, video.size, caption)


def _caption(file: IO[bytes], texts: dict[str, tarfile.TarInfo], caption_key: str) -> str:
    def content(suffix: str) -> str:
        member = texts[suffix]
        file.seek(member.offset_data)
        return file.read(min(member.size, _TEXT_BYTES)).decode("utf-8", "replace").strip()

    if ".txt" in texts and (text := content(".txt")):
        return text
    if ".json" in texts:
        try:
            record = json.loads(content(".json"))
        except (ValueError, RecursionError):
            return ""
        for key in (caption_key, *_CAPTION_KEYS):
            if isinstance(record, dict) and isinstance(record.get(key), str):
                return record[key]
    return ""


def _split(name: str) -> tuple[str, str]:
    """WebDataset's key of a member, and the suffix of its name in lower case."""
    folder, base = posixpath.split(name)
    return posixpath.join(folder, base.partition(".")[0]), posixpath.splitext(base)[1].lower()
