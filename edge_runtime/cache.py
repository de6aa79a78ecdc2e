"""Where built things that can be built again are kept: a checkout's own .cache, else the user's cache folder.

Not imported on the device's path; the compiler, the emulators and the energy tests keep their work here.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from edge_runtime.errors import BadInput

ENV = "EDGE_CACHE"
_REPO = Path(__file__).resolve().parent.parent


def _candidates() -> Iterator[Path]:
    if named := os.environ.get(ENV):
        yield Path(named)
        return  # an explicit choice that fails must say so, not be worked around
    if (_REPO / "pyproject.toml").is_file():
        yield _REPO / ".cache"
    if xdg := os.environ.get("XDG_CACHE_HOME"):
        yield Path(xdg) / "edge-runtime"
    if home := os.environ.get("HOME"):
        yield Path(home) / ".cache" / "edge-runtime"
    yield Path(tempfile.gettempdir()) / f"edge-runtime-{os.getuid()}"


def cache_dir(name: str) -> Path:
    """An existing, writable folder `name` for things that can be rebuilt; made on first use.

    The first of: $EDGE_CACHE, the checkout's .cache, $XDG_CACHE_HOME/edge-runtime, ~/.cache/edge-runtime, a
    folder in the temporary directory. Raises BadInput where none can be written.
    """
    tried = []
    for root in _candidates():
        path = root / name
        try:
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as e:
            tried.append(f"{path} ({e.strerror})")
            continue
        if os.access(path, os.W_OK):
            return path
        tried.append(f"{path} (not writable)")
    raise BadInput(f"cache: no folder to write to; tried {', '.join(tried)}; set {ENV} to one that exists")
