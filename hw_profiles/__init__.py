"""Boards, scanners and batteries: every number a range with its source.

Profiles are TOML files, `<folder>/<kind>/<name>.toml`. A user's own folder ($EDGE_PROFILES, or
~/.config/edge-runtime/profiles) is looked at before the shipped one.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from edge_runtime.errors import BadInput
from edge_runtime.power.interval import Interval
from hw_profiles.schema import KINDS, Battery, Board, Profile, Quantity, Scanner, parse

__all__ = ["Battery", "Board", "Mission", "Quantity", "Scanner", "load", "mission", "names", "user_folder"]

SHIPPED = Path(__file__).parent
DEFAULT_SCANNER = "rf-explorer"
DEFAULT_BATTERY = "li-ion-18650"


@dataclass(frozen=True, slots=True)
class Mission:
    """What goes into the field together. The scanner has its own battery unless `shared_battery`."""

    board: Board
    scanner: Scanner
    battery: Battery
    shared_battery: bool = False

    @property
    def scan_hz(self) -> Interval:
        """Scans a second, as the scanner delivers them."""
        return self.scanner.sweep_hz.range


def user_folder() -> Path:
    """Where a user's own profiles are looked for."""
    if own := os.environ.get("EDGE_PROFILES"):
        return Path(own)
    config = os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config"
    return Path(config) / "edge-runtime" / "profiles"


def load(kind: str, name: str) -> Profile:
    """The profile of that kind ("board", "scanner", "battery") under its name or an alias.

    Raises BadInput where there is none (the message lists the known ones) or where its file is not valid.
    """
    folder = _folder(kind, name)
    for path in _files(kind):
        if path.stem == folder:
            return _read(kind, path)
    known: list[str] = []
    for path in _files(kind):
        profile = _read(kind, path)
        if folder in (profile.name, *profile.aliases):
            return profile
        known.append(profile.name)
    raise BadInput(
        f"{kind} profile {name!r}: unknown; choose of {', '.join(sorted(set(known)))}, "
        f"or put your own at {user_folder() / kind / f'{folder}.toml'}"
    )


def board(name: str) -> Board:
    """The board of that name; raises BadInput as `load` does."""
    profile = load("board", name)
    assert isinstance(profile, Board)
    return profile


def mission(
    board_name: str, scanner: str = DEFAULT_SCANNER, battery: str = DEFAULT_BATTERY, *, shared: bool = False
) -> Mission:
    """A mission of three profiles by name. Raises BadInput where one is unknown."""
    of_scanner, of_battery = load("scanner", scanner), load("battery", battery)
    assert isinstance(of_scanner, Scanner)
    assert isinstance(of_battery, Battery)
    return Mission(board(board_name), of_scanner, of_battery, shared)


def names(kind: str) -> list[str]:
    """The names of all profiles of that kind, shipped and the user's own."""
    return sorted({path.stem for path in _files(kind)})


def _folder(kind: str, name: str) -> str:
    if kind not in KINDS:
        raise BadInput(f"profile kind {kind!r}: unknown; choose of {', '.join(KINDS)}")
    return name.strip().lower()


def _files(kind: str) -> Iterator[Path]:
    for folder in (user_folder(), SHIPPED):
        yield from sorted((folder / kind).glob("*.toml"))


def _read(kind: str, path: Path) -> Profile:
    try:
        return parse(kind, tomllib.loads(path.read_text(encoding="utf-8")))
    except OSError as e:
        raise BadInput(f"{kind} profile {path}: {e.strerror}; make the file readable") from e
    except ValueError as e:  # TOMLDecodeError and UnicodeDecodeError are ValueErrors
        raise BadInput(f"{kind} profile {path}: {e}; compare with {SHIPPED / kind}") from e
