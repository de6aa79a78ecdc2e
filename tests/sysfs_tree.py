"""A /sys of files: a board's switches, its clock's alarm, and a battery that a charger comes and goes from."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from edge_runtime.rig.sysfs import write
from tests.kibam import Kibam

AS_FOUND = {
    **{f"devices/system/cpu/cpu{n}/cpufreq/scaling_governor": "ondemand" for n in range(4)},
    **{f"devices/system/cpu/cpu{n}/online": "1" for n in (1, 2, 3)},
    "class/leds/ACT/brightness": "255",
    "class/rfkill/rfkill0/soft": "0",
}
"""Switches that read as they were written."""
TUNED = {
    **{f"devices/system/cpu/cpu{n}/cpufreq/scaling_governor": "powersave" for n in range(4)},
    **{f"devices/system/cpu/cpu{n}/online": "0" for n in (1, 2, 3)},
    "class/leds/ACT/brightness": "0",
    "class/rfkill/rfkill0/soft": "1",
}


def make_board(root: Path) -> Path:
    """Four cores of which core 0 stays on-line, a lamp, a display, a radio, a clock with an alarm."""
    for name, value in AS_FOUND.items():
        write((root / name).parent, {Path(name).name: value})
    for n in range(4):
        write(
            root / f"devices/system/cpu/cpu{n}/cpufreq",
            {"scaling_available_governors": "ondemand powersave performance"},
        )
    write(root / "class/leds/ACT", {"trigger": "none [mmc0] timer"})
    write(root / "class/drm/card1-HDMI-A-1", {"status": "connected"})
    write(root / "class/rtc/rtc0", {"wakealarm": ""})
    return root


def state(root: Path) -> dict[str, str]:
    """What those switches hold."""
    return {name: (root / name).read_text().strip() for name in AS_FOUND}


class BatteryTree:
    """A kinetic battery in /sys/class/power_supply, emptied or charged at a current that may be switched."""

    def __init__(self, root: Path, capacity_mah: float, share: float, load_ma: float) -> None:
        self._folder = root / "class/power_supply/BAT0"
        self.battery = Kibam(capacity_mah)
        self.battery.available_mah *= share
        self.battery.bound_mah *= share
        self._lock = threading.Lock()
        self.draw(load_ma)

    def draw(self, load_ma: float) -> None:
        """Out of the battery from now on, negative into it."""
        with self._lock:
            self.load_ma = load_ma
            write(
                self._folder,
                {
                    "type": "Battery",
                    "present": 1,
                    "status": "Charging" if load_ma < 0 else "Discharging",
                    "current_now": round(1e3 * abs(load_ma)),
                    "voltage_now": self._microvolts(),
                },
            )

    def _microvolts(self) -> int:
        return round(1e6 * (3.2 + 0.9 * self.battery.share + 0.2 * (self.load_ma < 0)))

    def pass_time(self, seconds: float) -> None:
        """So much later."""
        with self._lock:
            self.battery.draw(self.load_ma, seconds / 3600)
            write(self._folder, {"voltage_now": self._microvolts()})

    @contextmanager
    def running(self, speed: float) -> Iterator[None]:
        """Time passes, so many times as fast as the clock on the wall, until the block ends."""
        stopping = threading.Event()

        def tick() -> None:
            last = time.monotonic()
            while not stopping.wait(0.005):
                now = time.monotonic()
                self.pass_time(speed * (now - last))
                last = now

        thread = threading.Thread(target=tick)
        thread.start()
        try:
            yield
        finally:
            stopping.set()
            thread.join()
