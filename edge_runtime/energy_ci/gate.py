"""The gate: what work cost, against what it cost before; as integers, as energy, as a table for people."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import Enum
from pathlib import Path

import hw_profiles
from edge_runtime.errors import BadInput
from edge_runtime.power.attribution import median_interval
from edge_runtime.power.figures import mah
from edge_runtime.power.interval import Interval, exactly
from edge_runtime.power.modelled import instruction_pj, wake_uj

_FORMAT = 1
MISSION_H = 24
NOTICEABLE = 300
"""Instructions: a smaller rise is no rise. It is a tenth of a microjoule, and system calls vary by as much."""
LAYOUT_NOISE = 0.03
"""Python's counts differ so much at most between memory layouts, as seen here; see call.LAYOUTS."""


class Answer(Enum):
    """What the gate says. Only measurements can be inconclusive."""

    PASS = "pass"
    FAIL = "fail"
    INCONCLUSIVE = "inconclusive"


@dataclass(frozen=True, slots=True)
class Work:
    """What one unit of work took: all exact, all the same in every run.

    instructions: user-space, on aarch64. inferences: models run. wakeups: times the core left idle.
    """

    instructions: int
    inferences: float = 0
    wakeups: float = 0

    def uj(self, board: hw_profiles.Board) -> Interval:
        """Modelled energy at the board's rail."""
        instructions = exactly(self.instructions) * instruction_pj(board).scaled(1e-6)
        return instructions + exactly(self.wakeups) * wake_uj(board)


@dataclass(frozen=True, slots=True)
class Row:
    """One named work of this run beside its baseline (None where it has none)."""

    name: str
    now: Work
    before: Work | None
    tolerance: float

    @property
    def risen(self) -> tuple[str, ...]:
        """Which counts rose beyond the tolerance."""
        if self.before is None:
            return ()
        slack = {"instructions": NOTICEABLE, "inferences": 0, "wakeups": 0}
        return tuple(
            count
            for count, least in slack.items()
            if getattr(self.now, count) > getattr(self.before, count) * (1 + self.tolerance)
            and getattr(self.now, count) >= getattr(self.before, count) + least
        )

    @property
    def answer(self) -> Answer:
        """FAIL where a count rose, or where there is nothing to compare with."""
        return Answer.FAIL if self.risen or self.before is None else Answer.PASS

    @property
    def to_be_sure(self) -> bool:
        """Whether to count again: it rose (the first run after an edit also compiles), or fell a little."""
        if self.before is None:
            return False
        moved = self.now.instructions / self.before.instructions - 1
        return moved > self.tolerance or -self.tolerance - LAYOUT_NOISE < moved < -self.tolerance

    @property
    def why(self) -> str:
        """For people: what rose and by how much, or what to do."""
        if self.before is None:
            return "not in the baseline; run pytest --energy-update and commit the file"
        if self.risen:
            return "; ".join(_change(c, getattr(self.before, c), getattr(self.now, c)) for c in self.risen)
        if self.now.instructions < self.before.instructions * (1 - self.tolerance):
            fell = _change("instructions", self.before.instructions, self.now.instructions)
            return f"{fell}; run pytest --energy-update to keep the gain"
        return ""


def _change(count: str, before: float, now: float) -> str:
    share = f" ({100 * (now / before - 1):+.1f} %)" if before else ""
    return f"{count} {before:,.10g} to {now:,.10g}{share}"


def load_baseline(path: Path) -> dict[str, Work]:
    """A baseline file. Raises BadInput where it is missing or not one."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        if document["format"] != _FORMAT:
            raise ValueError(f"format {document['format']} is not {_FORMAT}")
        return {name: Work(**work) for name, work in document["work"].items()}
    except FileNotFoundError as e:
        raise BadInput(f"energy baseline {path}: missing; make it with pytest --energy-update") from e
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as e:
        raise BadInput(f"energy baseline {path}: not a baseline ({e}); see pytest --energy-update") from e


def save_baseline(path: Path, work: Mapping[str, Work]) -> None:
    """Write a baseline file; equal work gives equal bytes."""
    document = {"format": _FORMAT, "work": {name: asdict(work[name]) for name in sorted(work)}}
    path.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")


def table(rows: Sequence[Row], mission: hw_profiles.Mission) -> list[list[str]]:
    """Head and rows, for people: every work with its energy, and what rose and why."""
    head = ["work", "instructions", "before", "uJ (modelled)", f"mAh in {MISSION_H} h", "answer", "why"]
    return [head, *(_cells(row, mission) for row in rows)]


def _cells(row: Row, mission: hw_profiles.Mission) -> list[str]:
    uj = row.now.uj(mission.board)
    scans = mission.scan_hz.scaled(MISSION_H * 3600)
    before = "-" if row.before is None else f"{row.before.instructions:,}"
    counts = [row.name, f"{row.now.instructions:,}", before]
    return [*counts, str(uj), str(mah(uj * scans, mission.battery)), row.answer.value, row.why]


def as_text(cells: Sequence[Sequence[str]]) -> str:
    """Columns for a terminal."""
    widths = [max(len(row[k]) for row in cells) for k in range(len(cells[0]))]
    lines = ("  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip() for row in cells)
    return "\n".join(lines)


def as_markdown(cells: Sequence[Sequence[str]]) -> str:
    """A table for a pull request; what failed stands out."""
    lines = [f"| {' | '.join(cells[0])} |", "|---" * len(cells[0]) + "|"]
    for row in cells[1:]:
        mark = "**" if Answer.FAIL.value in row else ""
        lines.append("| " + " | ".join(f"{mark}{c}{mark}" if c else "" for c in row) + " |")
    return "\n".join(lines) + "\n"


def judge(ratios: Sequence[float], tolerance: float) -> tuple[Answer, Interval]:
    """Three answers from measured ratios new / old, one a pair of interleaved windows.

    The 95 % bootstrap interval of the median decides: wholly within the tolerance, wholly beyond it, or
    neither. Raises ValueError for fewer than five pairs.
    """
    if len(ratios) < 5:
        raise ValueError("at least five pairs of windows are needed")
    interval = Interval(*median_interval(ratios))
    if interval.high <= 1 + tolerance:
        return Answer.PASS, interval
    return (Answer.FAIL if interval.low > 1 + tolerance else Answer.INCONCLUSIVE), interval
