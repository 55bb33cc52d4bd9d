"""The pipeline: list, plan, process every source in a child, write shards, write the index."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from data_prep.captions import Captions
from data_prep.children import Children
from data_prep.columns import make_columns
from data_prep.config import PrepConfig, load_config
from data_prep.dataset import open_dataset, open_version, read_plan, read_units
from data_prep.locks import clean_staged, locked, shard_lock, sweep
from data_prep.manifest import Summary, write_manifest
from data_prep.progress import JsonReport, Report, plural
from data_prep.records import Outcome
from data_prep.shards import read_side_car, write_shard
from data_prep.slices import Slice, note_slices, parse_slice
from data_prep.sources import Source, SourceError, list_sources
from data_prep.worklist import Unit, make_units
from live2diff.errors import SetupError, UsageError
from live2diff.terminal import progress

_AHEAD = 4  # sources in the making per worker: a slow one must not leave the others idle
_WORK = ".work"  # in the dataset: clips on their way into a shard


def build(
    sources: Sequence[str],
    out: str | os.PathLike,
    overrides: Sequence[str] = (),
    *,
    new_version: bool = False,
    report: Report | None = None,
) -> Summary:
    """Turn videos into a dataset, or go on with one that was interrupted: finished shards are never redone.

    Several of these, and slices, may work on one dataset at a time; each shard is made by one of them.

    Args:
        sources: folders, globs, tables, tars and videos (see `sources.list_sources`).
        out: folder of the dataset.
        overrides: `key=value` settings on top of `conf/prep.yaml`.
        new_version: if `out` was begun with other settings or sources, go on in a folder beside it.

    Raises:
        UsageError: a wrong source or setting, or `out` was begun with other ones.
        DataError: no source gave a clip.
        SetupError: the disk is full or read-only.
    """
    config, report = load_config(overrides), report or Report()
    with _machine_errors(Path(out)):
        folder = _open(sources, Path(out), config, report, check_sources=True, new_version=new_version)
        units = read_units(folder)
        _, busy = _make_shards(folder, units, config, report)
        for unit in busy:
            report.note(f"another run is making {unit.stem}; waiting for it")
            _make_shards(folder, [unit], config, report, wait=True)
        _make_columns(folder, units, config)
        return _finish(folder)


def build_slice(
    sources: Sequence[str],
    out: str | os.PathLike,
    overrides: Sequence[str],
    part: Slice,
    *,
    new_version: bool = False,
    report: Report | None = None,
) -> None:
    """Make the shards of one slice; `merge` completes the dataset when all slices are done.

    The sources are listed by whoever comes first, and once more by slice 0, to see whether they changed.
    Raises as `build` does.
    """
    config, report = load_config(overrides), report or Report()
    with _machine_errors(Path(out)):
        folder = _open(
            sources, Path(out), config, report, check_sources=part.index == 0, new_version=new_version
        )
        if not (folder / "dataset.json").exists():
            note_slices(folder, part)
        units = read_units(folder, part.takes)
        made, busy = _make_shards(folder, units, config, report)
        _make_columns(folder, [unit for unit in units if unit not in busy], config)
        before = len(units) - made - len(busy)
        report.slice_done(str(folder), part, made, before, [unit.stem for unit in busy])


def merge(out: str | os.PathLike) -> Summary:
    """Write the index and the totals of a dataset whose slices are done.

    Raises:
        UsageError: no dataset was begun at `out`.
        DataError: shards are missing; they are named.
        SetupError: the disk is full or read-only.
    """
    read_plan(Path(out))
    with _machine_errors(Path(out)):
        return _finish(Path(out))


def run(
    sources: Sequence[str],
    out: str,
    settings: Sequence[str] = (),
    *,
    part: str | None = None,
    only_merge: bool = False,
    new_version: bool = False,
    as_json: bool = False,
) -> int:
    """`live2diff data build`; returns the exit code, 0."""
    report = JsonReport() if as_json else Report()
    if only_merge:
        if sources or settings or part or new_version:
            raise UsageError("--merge takes no sources, settings or other options, only --out DIR")
        report.summary(merge(out))
    elif part:
        chosen = parse_slice(part)
        build_slice(sources, out, settings, chosen, new_version=new_version, report=report)
    else:
        report.summary(build(sources, out, settings, new_version=new_version, report=report))
    return 0


def _open(
    sources: Sequence[str],
    out: Path,
    config: PrepConfig,
    report: Report,
    *,
    check_sources: bool,
    new_version: bool,
) -> Path:
    """Begin the dataset or take it up again; returns its folder."""

    def list_units() -> list[Unit]:
        found = list_sources(
            sources, path_column=config.path_column, caption_column=config.caption_column, note=report.note
        )
        return make_units(found, sources_per_shard=config.sources_per_shard, val_fraction=config.val_fraction)

    if not new_version:
        open_dataset(out, config, list_units, check_sources=check_sources)
        return out
    folder = open_version(out, config, list_units())
    report.note(f"version: {folder}")
    return folder


def _finish(out: Path) -> Summary:
    summary = write_manifest(out)
    shutil.rmtree(out / _WORK, ignore_errors=True)
    sweep(out)
    return summary


@contextmanager
def _machine_errors(out: Path) -> Iterator[None]:
    """What the operating system refuses while a dataset is written is the machine's fault, not the user's."""
    try:
        yield
    except OSError as error:
        raise SetupError(
            f"{error.filename or out}: {error.strerror or error}; finished shards are whole, "
            "run the same command again once this is mended"
        ) from error


@dataclass(frozen=True)
class _Claim:
    """A shard that this process makes, the folder it does so in, and what lets go of both."""

    unit: Unit
    work: Path
    held: ExitStack


def _make_shards(
    out: Path, units: Sequence[Unit], config: PrepConfig, report: Report, *, wait: bool = False
) -> tuple[int, list[Unit]]:
    """Make every shard that is not there yet.

    Returns:
        How many were made, and the units left out because another process is making them. With `wait` there
        are none, but only one unit may be given: who waits must hold nothing that others wait for.
    """
    missing = [unit for unit in units if read_side_car(out, unit.stem) is None]
    total = sum(len(unit.sources) for unit in missing)
    finished = sum(len(unit.sources) for unit in units) - total
    if finished:
        report.note(f"{plural(finished, 'file')} in finished shards already, {total} to do")
    if not missing:
        return 0, []
    children, captions = Children(config), Captions(config)
    made, busy = 0, []

    def process(claim: _Claim, source: Source) -> Outcome:
        return _process(children, claim.work, source, config)

    with ExitStack() as held:  # left last: locks are held until every child has ended

        def jobs() -> Iterator[tuple[_Claim, Source]]:
            for unit in missing:
                claim = _claim(out, unit, wait)
                if claim:
                    held.push(claim.held)
                    yield from ((claim, source) for source in unit.sources)
                else:
                    busy.append(unit)

        with (
            progress("files", total, unit="files") as advance,
            closing(_in_order(jobs(), process, children.stop, config)) as outcomes,
        ):
            group = []
            for claim, outcome in outcomes:
                captions.add(outcome)
                report.file(outcome)
                advance()
                group.append(outcome)
                if len(group) == len(claim.unit.sources):
                    side_car = write_shard(out, claim.unit, group, config, captions.maker_of(group))
                    claim.held.close()
                    report.shard(side_car, claim.unit.stem)
                    made, group = made + 1, []
    return made, [unit for unit in busy if read_side_car(out, unit.stem) is None]


def _claim(out: Path, unit: Unit, wait: bool) -> _Claim | None:
    """Take a shard, unless another process has it or has finished it."""
    with ExitStack() as held:
        if not held.enter_context(locked(shard_lock(out, unit.stem), wait=wait)):
            return None
        if read_side_car(out, unit.stem) is not None:
            return None
        name = unit.stem.replace("/", "-")
        for leftover in (out / _WORK).glob(f"{name}-*"):  # of a process that was killed
            shutil.rmtree(leftover, ignore_errors=True)
        clean_staged(out / unit.split, f"{Path(unit.stem).name}.*")
        (out / _WORK).mkdir(exist_ok=True)
        work = Path(held.enter_context(tempfile.TemporaryDirectory(prefix=f"{name}-", dir=out / _WORK)))
        return _Claim(unit, work, held.pop_all())


def _in_order(
    jobs: Iterator[tuple[_Claim, Source]],
    process: Callable[[_Claim, Source], Outcome],
    stop: Callable[[], None],
    config: PrepConfig,
) -> Generator[tuple[_Claim, Outcome], None, None]:
    """Process `jobs` in parallel and yield the outcomes in the order of `jobs`, whoever is done first."""
    workers = config.workers or os.cpu_count() or 1
    with ThreadPoolExecutor(workers) as pool:  # threads only wait for their child
        ahead: deque[tuple[_Claim, Future[Outcome]]] = deque()
        try:
            for claim, source in jobs:
                ahead.append((claim, pool.submit(process, claim, source)))
                if len(ahead) >= workers * _AHEAD:
                    claim, future = ahead.popleft()
                    yield claim, future.result()
            while ahead:
                claim, future = ahead.popleft()
                yield claim, future.result()
        except BaseException:  # Ctrl-C too: no child outlives the run
            stop()
            for _, future in ahead:
                future.cancel()
            raise


def _process(children: Children, work: Path, source: Source, config: PrepConfig) -> Outcome:
    folder = Path(tempfile.mkdtemp(dir=work))
    sha1, caption, caption_source = None, source.caption, source.caption_source
    if source.fault:
        return Outcome(source, sha1, caption, caption_source, {"rejected": source.fault}, folder)
    try:
        path, sha1 = source.fetch(folder, config.max_copy_mb << 20)
        if not caption and (caption := source.side_car()):
            caption_source = "sidecar"
    except SourceError as error:
        result = {"rejected": str(error)}
    else:
        result = children.run(path, folder)
        if path != source.path:
            os.unlink(path)  # the copy
    return Outcome(source, sha1, caption, caption_source, result, folder)


def _make_columns(out: Path, units: Sequence[Unit], config: PrepConfig) -> None:
    """Add the configured columns to the finished shards of `units`."""
    if config.columns:
        with progress("columns", len(units), unit="shards") as advance:
            make_columns(out, [unit.stem for unit in units], config, advance)
