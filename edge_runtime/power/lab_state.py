"""What could spoil a measurement on the board: governor, throttling, temperature; before, during and after."""

from __future__ import annotations

import platform
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from edge_runtime.power.kernel import text

HOT_C = 80.0
"""From here on a Raspberry Pi slows down; a window above it is not comparable."""
NOW, SINCE_BOOT = 0xF, 0xF0000
"""Bits of get_throttled: short of voltage, clock capped, throttled, soft temperature limit; and once since boot.
(Raspberry Pi documentation, "vcgencmd", get_throttled.)"""


def throttled_bits(root: Path = Path("/")) -> int | None:
    """The firmware's word of what holds the board back, from /sys or by vcgencmd; None where neither tells."""
    told = text(root / "sys/devices/platform/soc/soc:firmware/get_throttled")
    if not told and (command := shutil.which("vcgencmd")):
        try:
            done = subprocess.run(
                [command, "get_throttled"], capture_output=True, text=True, check=False, timeout=5
            )
        except (OSError, subprocess.TimeoutExpired):
            return None
        told = done.stdout.strip().removeprefix("throttled=")
    try:
        return int(told, 16)  # both write hexadecimal, /sys without the 0x
    except ValueError:
        return None


def state(root: Path = Path("/")) -> dict[str, Any]:
    """All of it now; None where the board does not say."""
    cpu, thermal = root / "sys/devices/system/cpu", root / "sys/class/thermal"
    millicelsius = text(thermal / "thermal_zone0/temp")
    bits = throttled_bits(root)
    return {
        "board": text(root / "proc/device-tree/model").rstrip("\0") or platform.machine(),
        "governor": text(cpu / "cpu0/cpufreq/scaling_governor") or None,
        "clock_khz": text(cpu / "cpu0/cpufreq/scaling_cur_freq") or None,
        "throttled": None if bits is None else hex(bits),
        "celsius": float(millicelsius) / 1000 if millicelsius.lstrip("-").isdigit() else None,
    }


class Throttling:
    """Whether the board was held back since it was asked the last time: now, or by a bit that newly stands."""

    def __init__(self, root: Path = Path("/")) -> None:
        self._root = root
        self._before = throttled_bits(root) or 0

    def __call__(self) -> bool:
        """Ask, and begin anew. A board that does not tell was not throttled; `doubts` says so once."""
        bits = throttled_bits(self._root) or 0
        held_back = bool(bits & NOW or bits & ~self._before & SINCE_BOOT)
        self._before = bits
        return held_back


def doubts(before: dict[str, Any], after: dict[str, Any], throttled_windows: Sequence[int] = ()) -> list[str]:
    """Why the figures may not be the board's best; empty where nothing speaks against them.

    throttled_windows: numbers of those during which it was held back.
    """
    found = []
    if before["governor"] not in (None, "performance"):
        found.append(f"the governor is {before['governor']}; set performance")
    if throttled_windows:
        found.append(f"throttled or short of voltage during windows {', '.join(map(str, throttled_windows))}")
    for when, seen in (("before", before), ("after", after)):
        if seen["throttled"] not in (None, "0x0"):
            found.append(f"throttled or short of voltage ({seen['throttled']}) {when} the windows")
        if seen["celsius"] is not None and seen["celsius"] >= HOT_C:
            found.append(f"{seen['celsius']:.0f} C {when} the windows")
    unknown = [key for key in ("governor", "throttled", "celsius") if before[key] is None]
    if unknown:
        found.append(f"the board does not tell its {', '.join(unknown)}")
    return found
