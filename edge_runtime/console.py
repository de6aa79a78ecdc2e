"""What both command lines share: one-line errors, exit codes, one JSON document on standard output."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, NoReturn

from edge_runtime.errors import BadInput, EdgeError

Command = Callable[[argparse.Namespace], int | None]


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors are one line that says what to do."""

    def error(self, message: str) -> NoReturn:
        """Raise BadInput in place of printing the usage and exiting."""
        raise BadInput(f"{message}; see {self.prog} --help")


def main(parser: argparse.ArgumentParser, arguments: Sequence[str] | None = None) -> int:
    """Parse, run the chosen command's `run`, and give the exit code; bad input leaves no traceback."""
    try:
        args = parser.parse_args(arguments)
        command: Command = args.run
        code = command(args) or 0
        sys.stdout.flush()
        return code
    except EdgeError as e:
        print(f"{parser.prog}: {e}", file=sys.stderr)
        return e.exit_code
    except BrokenPipeError:  # the reader (head, less) has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        return 130


def print_json(document: Any) -> None:
    """Print the one JSON document of a `--json` call."""
    json.dump(document, sys.stdout, indent=2)
    print()


def count(text: str) -> int:
    """A whole number above zero, for an option. Raises ArgumentTypeError."""
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number above zero")
    return int(text)


@contextmanager
def output(path: Path | None) -> Iterator[IO[str] | None]:
    """Open a text file for writing; None where no path is given. Raises BadInput where it cannot be."""
    if path is None:
        yield None
        return
    try:
        file = path.open("w", encoding="utf-8")
    except OSError as e:
        raise BadInput(f"{path}: {e.strerror}; choose another file") from e
    with file:
        yield file
