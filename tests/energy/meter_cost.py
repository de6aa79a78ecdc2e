"""What the INA219 meter costs the device itself, for its test and for scripts/bench_meters."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import hw_profiles
from edge_runtime.energy_ci import userland
from edge_runtime.energy_ci.call import count_function
from edge_runtime.energy_ci.guest import Guest

ROOT = Path(__file__).parents[2]
COST_GOAL = 0.005


def meter_second() -> tuple[int, dict[str, Any]]:
    """Instructions of a second of sampling at the default rate, and what it told.

    Raises HardwareUnavailable where nothing can be counted here.
    """
    wheels = userland.wheels(["smbus2"], userland.ARM64, ROOT / "scripts/constraints.txt")
    work = "tests.energy.meter_work"
    return count_function(Guest([ROOT, wheels]), f"{work}:second", setup=f"{work}:make_meter")


def slowest_core_hz() -> float:
    """Instructions a second of the slowest Zero 2 W that the profile allows: 1 GHz at half an instruction a cycle."""
    board = hw_profiles.board("zero2w")
    return board.clock_mhz.range.low * 1e6 * board.instructions_per_cycle.range.low
