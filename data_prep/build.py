"""The pipeline: list, plan, process every source in a child, write shards, write the index."""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
from collections import deque
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from functools import partial
from itertools import islice
from pathlib import Path

from data_prep.children import Children
from data_prep.config import PrepConfig, load_config
from data_prep.dataset import open_dataset
from data_prep.manifest import Summary, write_manifest
from data_prep.progress import closing_lines, file_line, needs_an_eye, plural
from data_prep.records import Outcome
from data_prep.shards import read_side_car, write_shard
from data_prep.sources import list_sources
from data_prep.worklist import Unit, WorkItem, make_units
from live2diff.errors import SetupError
from live2diff.files import sha1_of
from live2diff.terminal import progress

_AHEAD = 4  # sources in the making per worker: a slow one must not leave the others idle


def build(sources: Sequence[str], out: str | os.PathLike, overrides: Sequence[str] = ()) -> Summary:
    """Turn videos into a dataset, or go on with one that was interrupted: finished shards are never redone.

    Args:
        sources: folders and files.
        out: folder of the dataset.
        overrides: `key=value` settings on top of `conf/prep.yaml`.

    Raises:
        UsageError: a wrong source or setting, or `out` was begun with other ones.
        DataError: no source gave a clip.
        SetupError: the disk is full, read-only or in use by another build.
    """
    config = load_config(overrides)
    found = list_sources(sources)
    units = make_units(found, sources_per_shard=config.sources_per_shard, val_fraction=config.val_fraction)
    out = Path(out)
    try:
        with open_dataset(out, config, units):
            _make_shards(out, units, config)
            return write_manifest(out, units, config)
    except OSError as error:
        raise SetupError(
            f"{error.filename or out}: {error.strerror or error}; finished shards are whole, "
            "run the same command again once this is mended"
        ) from error


def _make_shards(out: Path, units: Sequence[Unit], config: PrepConfig) -> None:
    """Make every shard that is not there yet."""
    missing = [unit for unit in units if read_side_car(out, unit) is None]
    items = [item for unit in missing for item in unit.items]
    finished = sum(len(unit.items) for unit in units) - len(items)
    if finished:
        print(f"{plural(finished, 'file')} in finished shards already, {len(items)} to do", flush=True)
    if not items:
        return
    children = Children(config)
    with (
        tempfile.TemporaryDirectory(prefix=".staged-work-", dir=out) as work,
        progress("files", len(items), unit="files") as advance,
        closing(_in_order(items, partial(_process, children, Path(work)), children.stop, config)) as outcomes,
    ):
        for unit in missing:
            group = []
            for outcome in islice(outcomes, len(unit.items)):
                if needs_an_eye(outcome) or not sys.stderr.isatty():  # a terminal has the bar
                    print(file_line(outcome), flush=True)
                advance()
                group.append(outcome)
            write_shard(out, unit, group, config)
            for outcome in group:
                shutil.rmtree(outcome.folder)


def _in_order(
    items: Sequence[WorkItem],
    process: Callable[[WorkItem], Outcome],
    stop: Callable[[], None],
    config: PrepConfig,
) -> Generator[Outcome, None, None]:
    """Process `items` in parallel and yield the outcomes in the order of `items`, whoever is done first."""
    workers = config.workers or os.cpu_count() or 1
    with ThreadPoolExecutor(workers) as pool:  # threads only wait for their child
        ahead: deque[Future[Outcome]] = deque()
        try:
            for item in items:
                ahead.append(pool.submit(process, item))
                if len(ahead) >= workers * _AHEAD:
                    yield ahead.popleft().result()
            while ahead:
                yield ahead.popleft().result()
        except BaseException:  # Ctrl-C too: no child outlives the run
            stop()
            for future in ahead:
                future.cancel()
            raise


def _process(children: Children, work: Path, item: WorkItem) -> Outcome:
    folder = Path(tempfile.mkdtemp(dir=work))
    sha1, caption = None, ""
    if not os.path.exists(item.source.path):
        result = {"rejected": "cannot be read: it is gone, or a link to nothing"}
    elif not os.path.isfile(item.source.path):
        result = {"rejected": "not a regular file: a pipe, a device or a folder"}
    elif item.same_as is not None:
        result = {"rejected": f"repeats another source: same bytes as {item.same_as}"}
    else:
        try:
            sha1 = sha1_of(item.source.path)
            caption = item.source.caption()
        except OSError as error:
            result = {"rejected": f"cannot be read: {error.strerror}"}
        else:
            result = children.run(item.source.path, folder)
    return Outcome(item, sha1, caption, result, folder)


def main(argv: Sequence[str] | None = None) -> int:
    """`python -m data_prep SRC... --out DIR [key=value ...]`; returns the exit code, 0."""
    parser = argparse.ArgumentParser(
        prog="python -m data_prep",
        description="Turn folders of videos into WebDataset shards of clips.",
        epilog="Settings: conf/prep/default.yaml. Run the same command again after an interruption.",
    )
    parser.add_argument("items", nargs="+", metavar="SRC|key=value", help="folders, videos and settings")
    parser.add_argument("--out", required=True, metavar="DIR", help="folder of the dataset")
    arguments = parser.parse_intermixed_args(argv)
    overrides = [item for item in arguments.items if "=" in item and not os.path.exists(item)]
    sources = [item for item in arguments.items if item not in overrides]
    summary = build(sources, arguments.out, overrides)
    print("\n".join(closing_lines(summary)))
    return 0
