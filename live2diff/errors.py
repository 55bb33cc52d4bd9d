"""Errors a person can act on, each with the exit code its command ends with.

A message is one line: what is wrong, where (file, key, value) and what to do about it.
`live2diff.cli` prints it without a traceback; library users catch the classes.
"""

from __future__ import annotations


class Live2DiffError(Exception):
    """Base class: anything the user can mend. Exit code 1 is never used on purpose."""

    exit_code = 1


class UsageError(Live2DiffError):
    """A wrong argument or configuration value, or an input named on the command line that cannot be used."""

    exit_code = 2


class DataError(Live2DiffError):
    """A dataset that cannot be built or read: damaged shards, nothing left after filtering."""

    exit_code = 3


class CheckpointError(Live2DiffError):
    """Weights or an export that are missing, damaged, of another architecture or another format version."""

    exit_code = 4


class SetupError(Live2DiffError):
    """The machine lacks something: a package, a device, disk space, a permission."""

    exit_code = 5
