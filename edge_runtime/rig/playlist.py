"""What an emulated scanner hears: recorded sweeps in order, put on whatever axis the scanner is set to."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from edge_runtime.errors import BadInput
from edge_runtime.recording import Recording, Row, Split
from edge_runtime.scan import Axis

FLOOR_CODE = 220
"""-110 dBm: what is heard where nothing was recorded."""


class Playlist:
    """The rows of a recording, of the chosen splits, once or for ever. Raises BadInput where none is left."""

    def __init__(self, recording: Recording, splits: Sequence[Split] = (), loop: bool = False) -> None:
        self.axis = recording.axis
        self.labels = recording.labels
        self._rows = [(n, row) for n, row in enumerate(recording.rows) if not splits or row.split in splits]
        self._loop = loop
        if not self._rows:
            wanted = ", ".join(s.name.lower() for s in splits)
            raise BadInput(f"recording: has no scans of split {wanted}; leave --splits out")

    def __len__(self) -> int:
        return len(self._rows)

    def __iter__(self) -> Iterator[tuple[int, Row]]:
        """Pairs of the row's number in the recording, and the row."""
        yield from self._rows
        while self._loop:
            yield from self._rows

    def codes(self, row: Row, axis: Axis) -> bytes:
        """The row as it is heard on another axis: the nearest recorded point, or the floor."""
        if axis == self.axis:
            return row.codes
        own = self.axis
        out = bytearray()
        for k in range(axis.points):
            at = round((axis.start_hz + k * axis.step_hz - own.start_hz) / own.step_hz)
            out.append(row.codes[at] if 0 <= at < own.points else FLOOR_CODE)
        return bytes(out)


def parse_splits(text: str) -> list[Split]:
    """`test,unknown` as splits. Raises BadInput for an unknown one."""
    try:
        return [Split[name.strip().upper()] for name in text.split(",") if name.strip()]
    except KeyError as e:
        known = ", ".join(s.name.lower() for s in Split)
        raise BadInput(f"--splits {text}: unknown split {str(e).lower()}; choose of {known}") from e


def open_playlist(path: Path, splits: str, loop: bool) -> Playlist:
    """The playlist of a `.scans` file. Raises BadInput where the file or the splits are bad."""
    return Playlist(Recording.open(path), parse_splits(splits), loop)
