"""Files that are written whole or not at all."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from edge_runtime.errors import BadInput


def write_whole(path: Path, data: bytes, what: str, option: str) -> None:
    """Write `path`, or leave what was there: beside it first, then under its name.

    what, option: for who reads why it could not be written: "bundle", "-o". Raises BadInput.
    """
    beside = path.parent / f".{path.name}.{os.getpid()}"
    try:
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        beside.write_bytes(data)
        beside.replace(path)
    except OSError as e:
        beside.unlink(missing_ok=True)
        raise BadInput(f"{what} {path}: cannot be written ({e.strerror}); choose another {option}") from e
