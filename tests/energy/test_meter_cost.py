"""What measuring costs the device itself: instructions a second at the default rate, on aarch64."""

from __future__ import annotations

import pytest

from edge_runtime.energy_ci.gate import Work
from edge_runtime.errors import HardwareUnavailable
from edge_runtime.pytest_energy import Energy
from tests.energy.meter_cost import COST_GOAL, meter_second, slowest_core_hz


def test_below_half_a_percent_of_a_zero_2_w(energy: Energy) -> None:
    try:
        instructions, told = meter_second()
    except HardwareUnavailable as e:
        pytest.skip(str(e))
    assert told["conversions"] in (13, 14, 15)
    assert told["joules"] > 20  # it did measure: 0.744 W over the warm-up's seconds
    assert instructions / slowest_core_hz() < COST_GOAL
    energy.record(Work(instructions), "meter_second")
