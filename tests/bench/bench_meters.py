"""How far off a meter is, whatever the load's rhythm: naive polling beside ours, on the same emulated chips.

The load is the published trap: 3 ms of 600 mA over 120 mA, every so many milliseconds. --plot draws both side by
side. What the meter itself costs the device is counted beside it, on the emulated aarch64.
"""

from __future__ import annotations

import platform
import sys
from argparse import Namespace
from pathlib import Path
from typing import Any

from edge_runtime import console
from edge_runtime.errors import HardwareUnavailable
from edge_runtime.rig.load import pulses
from tests.energy.ina_bench import CHIPS, NASTY_MS, bench, error, naive_polling
from tests.energy.meter_cost import COST_GOAL, meter_second, slowest_core_hz

SECONDS = 20.0
POLLS_S = (0.010, 0.100)
GOAL = 0.01


def rows() -> list[dict[str, Any]]:
    """A row a period: relative error of the energy by each way of measuring."""
    table = []
    for period_ms in NASTY_MS:
        load = pulses(period_ms * 1e-3)
        row: dict[str, Any] = {"period_ms": period_ms}
        for poll_s in POLLS_S:
            row[f"naive every {poll_s * 1e3:g} ms"] = naive_polling(load, poll_s, SECONDS)
        for name in CHIPS:
            row[name] = error(bench(name, load)[0], load, SECONDS)
        table.append(row)
    return table


def own_cost() -> float | None:
    """The share of a Zero 2 W's slowest core that sampling takes; None where it cannot be counted here."""
    try:
        return meter_second()[0] / slowest_core_hz()
    except HardwareUnavailable:
        return None


def goals(table: list[dict[str, Any]], cost: float | None) -> list[dict[str, Any]]:
    """What the issue asks of meters."""
    found = []
    for name in CHIPS:
        worst = max(abs(row[name]) for row in table)
        found.append(
            {"name": f"{name} worst error", "value": worst, "unit": "", "goal": GOAL, "met": worst < GOAL}
        )
    met = cost is not None and cost < COST_GOAL
    found.append({"name": "own cost", "value": cost, "unit": "of a core", "goal": COST_GOAL, "met": met})
    return found


WIDTH, HEIGHT, LEFT, BOTTOM = 760, 320, 70, 60
_COLOURS = ("#c33", "#e90", "#36c", "#393", "#939")
_FULL = 400.0


def plot(table: list[dict[str, Any]]) -> str:
    """Errors by period as SVG: a group of bars a period, up to 400 %, the meters' own beside the naive ones."""
    ways = list(table[0])[1:]
    group = (WIDTH - LEFT) / len(table)
    base, scale, width = HEIGHT - BOTTOM, (HEIGHT - BOTTOM - 20) / _FULL, group / (len(ways) + 1)
    parts = [_text(LEFT, base + 30, "period of the load, ms; error of the energy, without its sign")]
    for k, row in enumerate(table):
        x, period = LEFT + k * group, f"{row['period_ms']:g}"
        parts.append(_text(x, base + 14, period))
        for j, way in enumerate(ways):
            tall = max(
                min(100 * abs(row[way]), _FULL) * scale, 0.8
            )  # the smallest ones, too, are seen to be there
            told = f"{period} ms, {way}: {100 * row[way]:+.2f} %"
            parts.append(_bar(x + j * width, base - tall, width, tall, j, told))
    parts += [_text(8, base - percent * scale + 4, f"{percent} %") for percent in (100, 200, 300, 400)]
    for j, way in enumerate(ways):
        parts += [
            _bar(LEFT + j * 135, HEIGHT - 20, 10, 10, j, way),
            _text(LEFT + j * 135 + 14, HEIGHT - 11, way),
        ]
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-size="11" '
        f'font-family="sans-serif">{"".join(parts)}</svg>\n'
    )


def _text(x: float, y: float, text: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}">{text}</text>'


def _bar(x: float, y: float, width: float, height: float, colour: int, title: str) -> str:
    place = f'x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}"'
    return f'<rect {place} fill="{_COLOURS[colour]}"><title>{title}</title></rect>'


def run(args: Namespace) -> int:
    """Print the table, or the document."""
    table, cost = rows(), own_cost()
    if args.plot is not None:
        with console.output(args.plot) as file:
            assert file is not None
            file.write(plot(table))
    if args.json:
        console.print_json({"goals": goals(table, cost), "rows": table, "machine": platform.machine()})
        return 0
    heads = list(table[0])
    print("  ".join(f"{head:>18}" for head in heads))
    for row in table:
        errors = "  ".join(f"{100 * row[head]:>+16.2f} %" for head in heads[1:])
        print(f"{row['period_ms']:>15g} ms  {errors}")
    shown = "not counted here" if cost is None else f"{100 * cost:.2f} % of a Zero 2 W's core"
    print(f"sampling costs {shown} (goal: below {100 * COST_GOAL:g} %)")
    return 0


if __name__ == "__main__":
    top = console.Parser(prog="scripts/bench_meters", description=__doc__)
    top.add_argument("--plot", type=Path, metavar="FILE.svg", help="also draw both side by side")
    top.add_argument("--json", action="store_true", help="print one JSON document")
    top.set_defaults(run=run)
    sys.exit(console.main(top))
