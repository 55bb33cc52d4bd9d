"""Where files lie: a local path, or a URL that fsspec opens. fsspec is imported only for URLs."""

from __future__ import annotations

import glob
import os
import posixpath
import re
import stat
import time
from collections.abc import Callable, Collection, Iterator
from typing import IO, Any

from live2diff.errors import SetupError, UsageError

_TRIES = 3  # to learn the size of what lies behind a URL
_URL = re.compile(r"[a-zA-Z][a-zA-Z0-9+.-]*://")
_MAGIC = re.compile(r"[*?[]")


def is_url(place: str) -> bool:
    return _URL.match(place) is not None


def resolve(argument: str, folder: str | None = None) -> str:
    """What a person or a table wrote as an absolute path or a whole URL; relative paths start at `folder`.

    Raises:
        UsageError: a URL of a kind that fsspec does not know.
        SetupError: fsspec lacks a package for it.
    """
    argument = argument.removeprefix("file://") if argument.startswith("file:///") else argument
    if is_url(argument):
        system, path = _system(argument)
        return system.unstrip_protocol(path)
    if folder is not None and is_url(folder):
        return resolve(posixpath.join(folder, argument))
    return os.path.abspath(os.path.join(folder or "", argument))


def open_place(place: str) -> IO[bytes]:
    """Open for reading, seekable. Raises what the file system raises."""
    if not is_url(place):
        return open(place, "rb")
    system, path = _system(place)
    return system.open(path, "rb")


def size_of(place: str) -> int | None:
    """Size in bytes. Of a path 0 if there is no regular file to be seen; of a URL None if nobody says."""
    if not is_url(place):
        try:
            info = os.stat(place)
        except (OSError, ValueError):  # ValueError: a null byte in the path
            return 0
        return info.st_size if stat.S_ISREG(info.st_mode) else 0
    system, path = _system(place)
    for _ in range(_TRIES):
        try:
            return system.info(path)["size"]
        except FileNotFoundError:
            break
        except Exception:  # a file system behind a URL may raise anything, and mean it or not
            time.sleep(0.5)
    return None  # reading the file will tell


def is_pattern(place: str) -> bool:
    """Whether `place` is a glob. In a URL "?" begins a query, so only "*" and "[" count there."""
    if is_url(place):
        return "*" in place or "[" in place
    return _MAGIC.search(place) is not None and not os.path.lexists(place)


def fixed_part(pattern: str) -> str:
    """The folders of a glob before the first one with a wildcard."""
    before, wildcard, _ = re.split(r"([*?[].*)", pattern, maxsplit=1, flags=re.DOTALL)
    return before.rpartition("/")[0] or "/"


def matches(pattern: str) -> Iterator[tuple[str, bool]]:
    """(place, whether it is a folder) of all that a glob matches. Hidden names are passed over."""
    if not is_url(pattern):
        for found in glob.iglob(pattern, recursive=True):
            yield found, os.path.isdir(found)
        return
    system, path = _system(pattern)
    for found, info in _asked(pattern, lambda: system.glob(path, detail=True)).items():
        yield system.unstrip_protocol(found), info["type"] == "directory"


def walk(folder: str, suffixes: Collection[str]) -> Iterator[tuple[str, int | None]]:
    """(place, size) of the files below `folder` with one of `suffixes`.

    Hidden files and folders are passed over, and links to folders not followed.
    """
    if not is_url(folder):
        for parent, folders, files in os.walk(folder, onerror=_refuse):
            folders[:] = [name for name in folders if not name.startswith(".")]
            for name in files:
                if not name.startswith(".") and os.path.splitext(name)[1].lower() in suffixes:
                    place = os.path.join(parent, name)
                    yield place, size_of(place)
        return
    system, path = _system(folder)
    for found, info in _asked(folder, lambda: system.find(path, detail=True)).items():
        hidden = any(part.startswith(".") for part in found.removeprefix(path).split("/"))
        if not hidden and suffix_of(found) in suffixes:
            yield system.unstrip_protocol(found), info.get("size")


def is_folder(place: str) -> bool:
    if not is_url(place):
        return os.path.isdir(place)
    system, path = _system(place)
    return _asked(place, lambda: system.isdir(path))


def exists(place: str) -> bool:
    if not is_url(place):
        return os.path.exists(place)
    system, path = _system(place)
    return _asked(place, lambda: system.exists(path))


def suffix_of(place: str) -> str:
    """The suffix with its dot, in lower case; of a URL without its query."""
    return posixpath.splitext(_bare(place))[1].lower()


def name_of(place: str, start: str | None) -> str:
    """`place` as the dataset names it: relative to the folder `start`; of a URL no query and no password."""
    name = _bare(place)
    inside = start and f"{_bare(start).rstrip('/')}/"
    if inside and name.startswith(inside):
        name = name.removeprefix(inside)
    elif start and not is_url(place):
        name = os.path.relpath(place, start)
    # A file name is bytes on Linux; what is not UTF-8 could not be written into JSON.
    try:
        data = name.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:  # half of a pair, out of a table
        data = name.encode("utf-8", "replace")
    return data.decode("utf-8", "replace").replace(os.sep, "/")


def reason(error: BaseException) -> str:
    """What an error says, in one short line, without the secrets of URLs."""
    if isinstance(error, FileNotFoundError):
        return "it is gone, or a link to nothing"
    text = str(getattr(error, "strerror", None) or error) or type(error).__name__
    text = re.sub(r"""://[^\s'"]*""", lambda url: _bare(f"x{url[0]}")[1:], text)
    return " ".join(text.split())[:200]


def _refuse(error: OSError) -> None:
    """For `os.walk`, which would pass over a folder it cannot list: no reason would tell of its videos."""
    raise UsageError(
        f"{error.filename}: cannot be listed ({error.strerror}); make it readable, or name other folders"
    ) from error


def _bare(place: str) -> str:
    if not is_url(place):
        return place
    return re.sub(r"://[^/@]*@", "://", re.split(r"[?#]", place)[0])


def _system(url: str) -> tuple[Any, str]:
    import fsspec.core

    try:
        return fsspec.core.url_to_fs(url)
    except ImportError as error:
        raise SetupError(f"{_bare(url)}: needs a package that is not installed ({reason(error)})") from error
    except ValueError as error:
        raise UsageError(f"{_bare(url)}: cannot be opened ({reason(error)})") from error


def _asked(url: str, ask: Callable[[], Any]) -> Any:
    try:
        return ask()
    except Exception as error:  # a file system behind a URL may raise anything
        raise UsageError(f"{_bare(url)}: cannot be listed ({reason(error)})") from error
