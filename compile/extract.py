"""Takes one target's artifact out of a bundle, for somebody else's build system."""

from __future__ import annotations

from pathlib import Path

from compile.targets import target as target_named
from edge_runtime.bundle import Bundle
from edge_runtime.errors import BadInput


def extract(bundle: Bundle, target: str, folder: Path) -> list[Path]:
    """Write the artifact, its header and its source for `target` into `folder`; the paths written.

    Raises BadInput where the bundle holds nothing for that target, or the folder cannot be written.
    """
    name = target_named(target).name
    artifact = bundle.manifest["artifacts"].get(name)
    if artifact is None:
        held = ", ".join(bundle.manifest["artifacts"])
        raise BadInput(
            f"bundle {bundle.origin}: holds nothing for {name}, only {held}; build it with --targets"
        )
    written = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for entry in (artifact["entry"], *artifact["sources"]):
            path = folder / Path(entry).name
            path.write_bytes(bundle.entry(entry))
            written.append(path)
    except OSError as e:
        raise BadInput(f"{folder}: {e.strerror}; choose another -o") from e
    return written
