"""The Raspberry Pi 5's power management chip, through the firmware: `vcgencmd pmic_read_adc`.

It sees twelve of the board's rails, not what USB devices take and not what the converters lose. One published
board's fit of the sum against a meter at the plug gives real W = 1.1451 x sum + 0.5879; other boards differ.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from typing import Any

from edge_runtime.errors import HardwareUnavailable
from edge_runtime.power.poll import PollMeter

FIT_SLOPE, FIT_W = 1.1451, 0.5879
_VALUE = re.compile(r"(\w+)_([AV]) (?:current|volt)\(\d+\)=([0-9.]+)[AV]")


def rails_w(report: str) -> tuple[float, float]:
    """Sum of volts x amperes over the rails that have both, watts; and the 5 V input, volts.

    Raises ValueError where the report has no such rail.
    """
    values = {(rail, unit): float(value) for rail, unit, value in _VALUE.findall(report)}
    watts = [
        amps * values[rail, "V"]
        for (rail, unit), amps in values.items()
        if unit == "A" and (rail, "V") in values
    ]
    if not watts:
        raise ValueError("no rail with a current and a voltage in it")
    return sum(watts), values.get(("EXT5V", "V"), float("nan"))


class PmicMeter(PollMeter):
    """Two looks a second: each starts a process, and the firmware gives at most ten."""

    name = "pmic"
    domain = "a Pi 5's own rails, scaled to the plug by one published board's fit; sees no USB devices"
    every_s = 0.5
    systematic = 0.10

    def __init__(self, **timing: Any) -> None:
        super().__init__(**timing)
        self._command = shutil.which("vcgencmd")
        if self._command is None:
            self.unavailable = "there is no vcgencmd (only a Raspberry Pi has it)"
            return
        try:
            self.sample()
        except HardwareUnavailable as e:
            self.unavailable = str(e)

    def sample(self) -> tuple[float, float]:
        """Watts at the plug, volts there."""
        assert self._command is not None
        try:
            done = subprocess.run(
                [self._command, "pmic_read_adc"], capture_output=True, text=True, check=False, timeout=5
            )
            watts, volts = rails_w(done.stdout)
        except (OSError, subprocess.TimeoutExpired, ValueError) as e:
            raise HardwareUnavailable(
                f"vcgencmd pmic_read_adc gives no rails; only a Pi 5 has them ({e})"
            ) from e
        return FIT_SLOPE * watts + FIT_W, volts
