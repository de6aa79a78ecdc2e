"""How far off a meter is, whatever the load's rhythm: naive polling beside ours, on the same emulated chips.

The load is the published trap: 3 ms of 600 mA over 120 mA, every so many milliseconds.
"""

from __future__ import annotations

import platform
import sys
from argparse import Namespace
from typing import Any

from edge_runtime import console
from edge_runtime.rig.load import pulses
from tests.energy.ina_bench import CHIPS, NASTY_MS, bench, error, naive_polling

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


def run(args: Namespace) -> int:
    """Print the table, or the document."""
    table = rows()
    if args.json:
        worst = {name: max(abs(row[name]) for row in table) for name in CHIPS}
        goals = [
            {"name": f"{name} worst error", "value": w, "unit": "", "goal": GOAL, "met": w < GOAL}
            for name, w in worst.items()
        ]
        console.print_json({"goals": goals, "rows": table, "machine": platform.machine()})
        return 0
    heads = list(table[0])
    print("  ".join(f"{head:>18}" for head in heads))
    for row in table:
        errors = "  ".join(f"{100 * row[head]:>+16.2f} %" for head in heads[1:])
        print(f"{row['period_ms']:>15g} ms  {errors}")
    return 0


if __name__ == "__main__":
    top = console.Parser(prog="scripts/bench_meters", description=__doc__)
    top.add_argument("--json", action="store_true", help="print one JSON document")
    top.set_defaults(run=run)
    sys.exit(console.main(top))
