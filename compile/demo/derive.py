"""`scripts/derive_scans`: IQ captures to the sweeps that the demo trains on and plays.

Every capture has its own random streams, seeded from its SHA-256, and gives its sweeps in the same order
whatever other captures there are; only how many are taken, and into which split, depends on the set.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import io
import json
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np

from compile.demo.remix import Stretches, cut, find_stretches, remix_burst, remix_quiet
from compile.demo.sweeps import AXIS, POINTS, SAMPLE_RATE_HZ, SWEEP_SAMPLES, SWEEP_US, Iq, read_iq, sweep
from edge_runtime import console
from edge_runtime.errors import BadInput
from edge_runtime.files import write_whole
from edge_runtime.recording import Capture, Origin, Recording, Row, Split

CLASSES = (
    "TFA-Twin-Plus-30.3049",
    "brennstuhl_rcs_2044",
    "danfoss",
    "door_bell",
    "dsc",
    "ec3k",
    "waveman",
)
"""Kinds that the model learns; every other kind is kept out of training.

Chosen for bursts that stay recognisable 10 dB under fresh noise: a kind heard faintly would be learned by its
faintness, which is the receiver's and not its own.
"""
NOTHING = "nothing"
LICENCE = "the repository states no licence; no capture is shipped, only sweeps measured from it"
LIMIT_BYTES = 3_000_000
MAX_CAPTURES = 65_535

_HEADER_BYTES = 10_000
_ROW_BYTES = 10
_COLUMNS = ("file", "label", "sample_rate_hz", "sha256")
_HEAD = ("capture", "sha256", "label", "session", "split", "remix", "recorded", "quiet", "background")
SHIPPED = Path(__file__).resolve().parent / "recordings.scans"

Quota = dict[Split, tuple[int, int]]
# Sweeps of one kind in one split, shared by its captures: (per kind, at most per capture).
_REMIX: Quota = {
    Split.TRAIN: (1000, 200),
    Split.CALIBRATION: (160, 100),
    Split.TEST: (160, 100),
    Split.UNKNOWN: (120, 20),
}
# Never trained on; in calibration, so that the limits of the known hold on a real receiver too.
_RECORDED: Quota = {
    Split.TRAIN: (0, 0),
    Split.CALIBRATION: (60, 40),
    Split.TEST: (60, 40),
    Split.UNKNOWN: (40, 10),
}
# A kind that is kept out has none of these: the answer to "nothing" is not UNKNOWN.
_QUIET: Quota = {
    Split.TRAIN: (100, 20),
    Split.CALIBRATION: (20, 10),
    Split.TEST: (30, 15),
    Split.UNKNOWN: (0, 0),
}
_BACKGROUND: Quota = {
    Split.TRAIN: (80, 20),
    Split.CALIBRATION: (15, 10),
    Split.TEST: (20, 10),
    Split.UNKNOWN: (0, 0),
}


@dataclass(slots=True)
class Source:
    """One capture of the table, and what became of it."""

    capture: Capture
    path: Path
    source: str
    split: Split = Split.UNKNOWN
    counts: Counter[str] = field(default_factory=Counter)
    note: str = ""


def read_table(folder: Path) -> list[Source]:
    """The captures that `folder`/captures.csv names, by file name. Raises BadInput where it cannot be."""
    table = folder / "captures.csv"
    try:
        with table.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as e:
        reason = getattr(e, "strerror", None) or e
        raise BadInput(f"captures {table}: {reason}; name their folder with --captures") from e
    if not rows:
        raise BadInput(f"captures {table}: names no capture; its columns are {', '.join(_COLUMNS)}")
    if len(rows) > MAX_CAPTURES:
        raise BadInput(
            f"captures {table}: names {len(rows)} captures; split it, a recording holds {MAX_CAPTURES}"
        )
    sources = [_source(row, folder, table) for row in rows]
    return sorted(sources, key=lambda s: s.capture["name"])


def _source(row: dict[str, str], folder: Path, table: Path) -> Source:
    missing = [name for name in _COLUMNS if not row.get(name)]
    if missing:
        raise BadInput(
            f"captures {table}: a row lacks {', '.join(missing)}; its columns are {', '.join(_COLUMNS)}"
        )
    if row["sample_rate_hz"] != str(SAMPLE_RATE_HZ):
        raise BadInput(
            f"captures {table}: {row['file']} was sampled at {row['sample_rate_hz']} Hz; "
            f"resample it to {SAMPLE_RATE_HZ}"
        )
    if row["label"] == NOTHING:
        raise BadInput(
            f"captures {table}: {row['file']} is labelled {NOTHING!r}; that name is taken, give it another"
        )
    session = row.get("session") or row["label"]
    capture = Capture(name=row["file"], sha256=row["sha256"], label=row["label"], session=session)
    return Source(capture, folder / "captures" / row["file"], row.get("source") or "")


def assign_splits(sources: Sequence[Source]) -> None:
    """Give every capture of a class its split: about 60 % train, 15 % calibration, 25 % test, by kind.

    Within a kind, captures are dealt in the order of their SHA-256, so the choice is arbitrary but nobody's.
    A session of one capture goes to training: nothing about it could be learned otherwise.
    """
    sizes = Counter(s.capture["session"] for s in sources)
    for kind in CLASSES:
        members = sorted(
            (s for s in sources if s.capture["label"] == kind), key=lambda s: s.capture["sha256"]
        )
        alone = [s for s in members if sizes[s.capture["session"]] == 1 and len(members) > 1]
        for s in alone:
            s.split = Split.TRAIN
        dealt = [s for s in members if s not in alone]
        for s, split in zip(dealt, _deal(len(dealt)), strict=True):
            s.split = split


def _deal(count: int) -> list[Split]:
    """Splits for `count` captures; two give training and test, one is trained on."""
    test = max(1, round(count / 4)) if count > 1 else 0
    calibration = max(1, round(count * 0.15)) if count > 2 else 0
    train = count - test - calibration
    return [Split.TRAIN] * train + [Split.CALIBRATION] * calibration + [Split.TEST] * test


def quota(table: Quota, split: Split, sharers: int, share: float = 1.0) -> int:
    """How many sweeps one of `sharers` captures contributes; `share` thins a set that would be too large."""
    per_kind, per_capture = table[split]
    return int(share * min(per_capture, -(-per_kind // max(1, sharers))))


def share_that_fits(sources: Sequence[Source], sharers: Counter[tuple[str, Split]]) -> float:
    """The share of the quotas that keeps the recording under LIMIT_BYTES, whatever the captures hold.

    Raises BadInput where the list of captures alone fills it.
    """
    kinds = [(s.split, sharers[s.capture["label"], s.split]) for s in sources]
    sweeps = sum(quota(table, *kind) for kind in kinds for table in (_REMIX, _RECORDED, _QUIET, _BACKGROUND))
    room = LIMIT_BYTES - _HEADER_BYTES - sum(len(json.dumps(s.capture)) + 1 for s in sources)
    if room <= 0:
        raise BadInput(
            f"captures: {len(sources)} fill a recording with their names alone; split captures.csv"
        )
    return min(1.0, room / max(1, sweeps * (POINTS + _ROW_BYTES)))


def load(source: Source) -> Iq:
    """A capture's samples. Raises BadInput where the file is missing or not the one in the table."""
    try:
        data = source.path.read_bytes()
    except OSError as e:
        raise BadInput(f"capture {source.path}: {e.strerror}; fetch it or take it out of captures.csv") from e
    if hashlib.sha256(data).hexdigest() != source.capture["sha256"].lower():
        raise BadInput(f"capture {source.path}: its SHA-256 is not the one in captures.csv; fetch it again")
    return read_iq(data)


def _stream(source: Source, purpose: str) -> np.random.Generator:
    digest = hashlib.sha256(f"{source.capture['sha256'].lower()} {purpose}".encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:16], "little"))


class Derived(NamedTuple):
    """One sweep of a capture: the name of its label, how it was made, and its codes."""

    label: str
    origin: Origin
    codes: bytes


Maker = Callable[[Iq, Stretches, np.random.Generator], bytes]


def _recorded(iq: Iq, found: Stretches, rng: np.random.Generator) -> bytes:
    return sweep(cut(iq, found.active, rng))


def _background(iq: Iq, found: Stretches, rng: np.random.Generator) -> bytes:
    return sweep(cut(iq, found.silent, rng))


def derive(source: Source, iq: Iq, sharers: int, share: float) -> Iterator[Derived]:
    """Each sweep that a capture gives; what it lacks is noted in `source`."""
    found = find_stretches(iq)
    kind = source.capture["label"]
    plan: list[tuple[str, str, Origin, tuple[int, ...], Quota, Maker]] = [
        ("remix", kind, Origin.REMIX, found.active, _REMIX, remix_burst),
        ("recorded", kind, Origin.RECORDED, found.active, _RECORDED, _recorded),
        ("quiet", NOTHING, Origin.QUIET, found.quiet, _QUIET, remix_quiet),
        ("background", NOTHING, Origin.RECORDED, found.silent, _BACKGROUND, _background),
    ]
    source.note = _note(iq, found)
    given: set[bytes] = set()
    for purpose, label, origin, starts, table, make in plan:
        rng = _stream(source, purpose)
        for _ in range(quota(table, source.split, sharers, share) if starts else 0):
            swept = make(iq, found, rng)
            if swept not in given:  # a short capture has few stretches, and unmodified ones can fall together
                given.add(swept)
                source.counts[purpose] += 1
                yield Derived(label, origin, swept)


def _note(iq: Iq, found: Stretches) -> str:
    if len(iq) < SWEEP_SAMPLES:
        return f"shorter than one sweep ({len(iq)} of {SWEEP_SAMPLES} samples)"
    lacks = [name for name, starts in (("active", found.active), ("quiet", found.quiet)) if not starts]
    return f"no {' and no '.join(lacks)} sweep" if lacks else ""


def record(sources: Sequence[Source], progress: Callable[[str], None]) -> Recording:
    """Sweeps of all captures, in the order of their names. Raises BadInput for a capture it cannot read."""
    others = sorted({s.capture["label"] for s in sources} - {*CLASSES, NOTHING})
    labels = [*CLASSES, NOTHING, *others]
    sharers = Counter((s.capture["label"], s.split) for s in sources)
    share = share_that_fits(sources, sharers)
    rows = []
    first: dict[str, str] = {}
    for index, s in enumerate(sources):
        iq = load(s)
        name = first.setdefault(s.capture["sha256"].lower(), s.capture["name"])
        if name != s.capture["name"]:  # one recording under two names would be in two splits
            s.note = f"the same as {name}"
        sweeps = [] if s.note else derive(s, iq, sharers[s.capture["label"], s.split], share)
        for made in sweeps:
            rows.append(Row(labels.index(made.label), index, s.split, made.origin, SWEEP_US, made.codes))
        progress(f"{s.capture['name']}: {sum(s.counts.values())} sweeps{', ' * bool(s.note)}{s.note}")
    return Recording(AXIS, labels, [s.capture for s in sources], rows)


def table_text(sources: Iterable[Source]) -> str:
    """The table of sources, CSV."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow([*_HEAD, "note", "source", "licence"])
    for s in sources:
        c = s.capture
        counts = [s.counts[name] for name in _HEAD[5:]]
        row = [c["name"], c["sha256"], c["label"], c["session"], s.split.name.lower(), *counts]
        writer.writerow([*row, s.note, s.source, LICENCE])
    return out.getvalue()


def _parser() -> argparse.ArgumentParser:
    parser = console.Parser(
        prog="derive_scans",
        description="IQ captures to recorded sweeps (.scans) and their table of sources (.csv).",
    )
    parser.add_argument(
        "--captures",
        type=Path,
        default=default_captures(),
        metavar="DIR",
        help="holds captures.csv and the folder captures/; else $EDGE_CAPTURES (%(default)s)",
    )
    parser.add_argument(
        "-o",
        type=Path,
        default=SHIPPED,
        metavar="FILE",
        dest="out",
        help="the recording; the table is written beside it (%(default)s)",
    )
    parser.add_argument(
        "--test", action="store_true", help="put every capture of a class into the test split"
    )
    parser.set_defaults(run=_run)
    return parser


def default_captures() -> Path:
    """Where captures are looked for: $EDGE_CAPTURES, or a folder beside this project."""
    return Path(os.environ.get("EDGE_CAPTURES") or SHIPPED.parents[3] / "shared" / "data")


def _run(args: argparse.Namespace) -> None:
    sources = read_table(args.captures)
    assign_splits(sources)
    for s in sources if args.test else ():
        s.split = Split.UNKNOWN if s.split is Split.UNKNOWN else Split.TEST
    recording = record(sources, lambda line: print(line, file=sys.stderr))
    data = recording.to_bytes()
    write_whole(args.out, data, "output", "-o")
    write_whole(args.out.with_suffix(".csv"), table_text(sources).encode(), "output", "-o")
    summary = f"{len(recording.rows)} sweeps of {len(sources)} captures, {len(data)} bytes"
    print(f"{args.out}: {summary}", file=sys.stderr)


def main(argv: Sequence[str] | None = None) -> int:
    """The command. Exit code 0, or 2 with one line on standard error."""
    return console.main(_parser(), argv)
