"""The `live2diff` command. Thin: it reads arguments, calls the library, and turns errors into one line.

One file per command; each has `add(commands)`, which declares its arguments. Nothing heavy is imported until
a command runs, so that --help answers at once.
"""

from __future__ import annotations

import argparse
import sys
import warnings
from collections.abc import Sequence

from live2diff import __version__
from live2diff.cli import ablate, bench, ckpt, data, doctor, eval, export, stream, train
from live2diff.cli.arguments import is_setting
from live2diff.errors import Live2DiffError, SetupError, UsageError


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit code (see `live2diff.errors`)."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    warnings.formatwarning = lambda message, *_, **__: f"warning: {message}\n"
    try:
        parsed, rest = _parser().parse_known_args(arguments)
        odd = [word for word in rest if not is_setting(word) or not hasattr(parsed, "settings")]
        if odd:
            raise UsageError(f"unknown argument {odd[0]!r}; see live2diff {parsed.command} --help")
        if rest:  # key=value after an option, where argparse no longer expects it
            parsed.settings += rest
        return parsed.run(parsed)
    except Live2DiffError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except BrokenPipeError:
        return 141
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        print(f"error: {where}{error.strerror or error}", file=sys.stderr)
        return SetupError.exit_code
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="live2diff", description="Train, fine-tune and stream causal video diffusion models."
    )
    parser.add_argument("--version", action="version", version=f"live2diff {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for command in (data, train, export, ckpt, stream, eval, ablate, bench, doctor):
        command.add(commands)
    return parser
