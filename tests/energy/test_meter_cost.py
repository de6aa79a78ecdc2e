"""What measuring costs the device itself: instructions a second at the default rate, on aarch64."""

from __future__ import annotations

from pathlib import Path

import pytest

import hw_profiles
from edge_runtime.energy_ci import userland
from edge_runtime.energy_ci.call import count_function
from edge_runtime.energy_ci.gate import Work
from edge_runtime.energy_ci.guest import Guest
from edge_runtime.errors import HardwareUnavailable
from edge_runtime.pytest_energy import Energy

ROOT = Path(__file__).parents[2]


def test_below_half_a_percent_of_a_zero_2_w(energy: Energy) -> None:
    """The slowest core that the profile allows: 1 GHz at half an instruction a cycle."""
    try:
        wheels = userland.wheels(["smbus2"], userland.ARM64, ROOT / "scripts/constraints.txt")
        guest = Guest([ROOT, wheels])
    except HardwareUnavailable as e:
        pytest.skip(str(e))
    work = "tests.energy.meter_work"
    instructions, told = count_function(guest, f"{work}:second", setup=f"{work}:make_meter")
    assert told["conversions"] in (13, 14, 15)
    assert told["joules"] > 20  # it did measure: 0.744 W over the warm-up's seconds
    board = hw_profiles.board("zero2w")
    core = board.clock_mhz.range.low * 1e6 * board.instructions_per_cycle.range.low
    assert instructions / core < 0.005
    energy.record(Work(instructions), "meter_second")
