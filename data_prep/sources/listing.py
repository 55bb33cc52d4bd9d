"""From arguments to sources. Listing costs one `stat` per file, whatever their number: no video is opened."""

from __future__ import annotations

import os
import posixpath
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from functools import cached_property

from data_prep.sources.places import (
    exists,
    fixed_part,
    is_folder,
    is_pattern,
    is_url,
    matches,
    name_of,
    resolve,
    size_of,
    suffix_of,
    walk,
)
from data_prep.sources.source import SUFFIXES, Source, SourceError, clean_caption
from data_prep.sources.tables import READERS, read_table
from data_prep.sources.tars import TarError, video_members
from live2diff.errors import UsageError

_TAR = ".tar"
_TAKEN = SUFFIXES | {_TAR}  # out of a folder or a glob
_PACKED = (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst")
_ASK_AT_ONCE = 16  # servers are asked for sizes in parallel


def list_sources(
    arguments: Sequence[str],
    *,
    path_column: str = "path",
    caption_column: str = "caption",
    note: Callable[[str], None] = lambda text: None,
) -> list[Source]:
    """All inputs that `arguments` name, sorted by name, each once.

    An argument is a folder, searched recursively for videos and tars; a glob; a table (.csv, .tsv, .jsonl,
    .ndjson, .parquet), whose relative paths start at its own folder; a WebDataset tar; or a video, whatever
    its suffix. All may be local or URLs. Hidden files and folders are passed over, and links to folders not
    followed.

    Args:
        path_column, caption_column: of tables; the latter also names the key in `.json` members of tars.
        note: is told, in one line each, what is odd but no error.

    Raises:
        UsageError: an argument that does not exist, a table that cannot be read, or no video in any of them.
    """
    if not arguments:
        raise UsageError("no source given; name at least one folder of videos or one video")
    roots = [_Root(argument) for argument in arguments]
    local = [os.path.dirname(root.top) for root in roots if not is_url(root.top)]
    above = os.path.commonpath(local) if local else None
    found: dict[tuple[str, int | None, str | None], Source] = {}
    repeated = 0
    for root in roots:
        for source in _Lister(root, above, path_column, caption_column, note).sources():
            # Rows of a table that name no file share its path.
            key = (source.path, source.offset, source.fault and source.uri)
            before = found.get(key)
            repeated += before is not None and before.caption != "" != source.caption
            if before is None or (source.caption and not before.caption):
                found[key] = source
    if not found:
        raise UsageError(f"{', '.join(arguments)}: holds no video file ({' '.join(sorted(SUFFIXES))})")
    if repeated:
        note(f"{repeated} rows name a video that has a caption already; the first caption is kept")
    return sorted(
        _with_sizes(found.values()), key=lambda source: (source.uri, source.path, source.offset or 0)
    )


class _Root:
    """An argument, resolved. `top`: the folder, the file, or the folder at which a glob starts."""

    def __init__(self, argument: str):
        self.place = resolve(argument)
        self.pattern = is_pattern(argument)
        if argument.lower().endswith(_PACKED):
            raise UsageError(f"{argument}: is a compressed tar; unpack it first")
        known = suffix_of(self.place) in _TAKEN | READERS.keys()
        # A server is not asked whether a video is a folder: some send the video.
        self.folder = not self.pattern and not (is_url(self.place) and known) and is_folder(self.place)
        if not self.pattern and not self.folder and not exists(self.place):
            raise UsageError(f"{argument}: no such file or folder")
        self.top = fixed_part(self.place) if self.pattern else self.place

    @cached_property
    def start(self) -> str:
        """The folder that names for drawing the split begin at."""
        return self.top if self.folder or self.pattern else posixpath.dirname(self.top)


class _Lister:
    """Yields the sources of one argument."""

    def __init__(
        self,
        root: _Root,
        above: str | None,
        path_column: str,
        caption_column: str,
        note: Callable[[str], None],
    ):
        self._root, self._above, self._note = root, above, note
        self._path_column, self._caption_column = path_column, caption_column

    def sources(self) -> Iterator[Source]:
        root = self._root
        if root.folder:
            yield from self._folder(root.place)
        elif root.pattern:
            yield from self._glob(root.place)
        else:
            yield from self._file(root.place, None if is_url(root.place) else size_of(root.place))

    def _glob(self, pattern: str) -> Iterator[Source]:
        tables = {suffix_of(pattern)} & READERS.keys()  # taken only if the glob asks for them: "lists/*.csv"
        nothing = True
        for place, folder in matches(pattern):
            nothing = False
            if not folder and suffix_of(place) in _TAKEN | tables:
                yield from self._file(place, None if is_url(place) else size_of(place))
            elif folder and "**" not in pattern:  # which reaches the files in it by itself
                yield from self._folder(place)
        if nothing:
            raise UsageError(f"{pattern}: matches nothing")

    def _folder(self, folder: str) -> Iterator[Source]:
        for place, size in walk(folder, _TAKEN):
            yield from self._file(place, size)

    def _file(self, place: str, size: int | None) -> Iterator[Source]:
        if suffix_of(place) == _TAR:
            yield from self._tar(place, size)
        elif suffix_of(place) in READERS:
            yield from self._table(place)
        else:
            yield Source(place, self._uri(place), name_of(place, self._root.start), size)

    def _tar(self, place: str, size: int | None) -> Iterator[Source]:
        uri, split_name, empty = self._uri(place), name_of(place, self._root.start), True
        try:
            for member in video_members(place, SUFFIXES, self._caption_column):
                empty = False
                # Only a name: nothing is ever written under it.
                inner = clean_caption(posixpath.normpath(f"/{member.name}")).lstrip("/")
                caption = clean_caption(member.caption)
                yield Source(
                    path=place,
                    uri=f"{uri}/{inner}",
                    split_name=f"{split_name}/{inner}",
                    bytes=member.bytes,
                    offset=member.offset,
                    caption=caption,
                    caption_source="tar" if caption else "none",
                )
        except TarError as error:
            yield Source(place, uri, split_name, size, fault=str(error))
        else:
            if empty:
                self._note(f"{place}: holds no video")

    def _table(self, table: str) -> Iterator[Source]:
        folder = posixpath.dirname(table)
        for row in read_table(table, self._path_column, self._caption_column, self._note):
            name = f"{self._uri(table)}:{row.number}"
            if not row.path:
                yield Source(table, name, name, fault=f"names no file: row {row.number} has no path")
                continue
            try:
                if "::" in row.path:
                    raise UsageError("chained URLs are not followed in a table")
                place = resolve(row.path, folder)
            except UsageError as error:
                # What the path holds stays out of the dataset: a password, or bytes that are no text.
                words = clean_caption(str(error).replace(row.path, "its path"))
                yield Source(table, name, name, fault=f"cannot be read: row {row.number}: {words}")
                continue
            caption = clean_caption(row.caption)
            written_whole = is_url(row.path) or os.path.isabs(row.path)
            yield Source(
                path=place,
                uri=name_of(place, None) if written_whole else self._uri(place),
                split_name=name_of(place, None if written_whole else folder),
                bytes=None if is_url(place) else size_of(place),
                caption=caption,
                caption_source="column" if caption else "none",
            )

    def _uri(self, place: str) -> str:
        return name_of(place, None if is_url(place) else self._above)


def _with_sizes(sources: Collection[Source]) -> list[Source]:
    """Learn the sizes that no listing told: of files behind URLs."""
    with ThreadPoolExecutor(_ASK_AT_ONCE) as pool:
        return list(pool.map(_with_size, sources) if any(s.bytes is None for s in sources) else sources)


def _with_size(source: Source) -> Source:
    if source.bytes is not None or source.fault:
        return source
    size = size_of(source.path)
    if size is None:  # some servers do not say
        with suppress(SourceError):
            size = sum(map(len, source.chunks()))
    return replace(source, bytes=size)
