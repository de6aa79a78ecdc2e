"""An emulated lab bench on the real clock: every current meter, behind a known load. Nothing of it is hardware."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from edge_runtime.rig import ina
from edge_runtime.rig.i2c_bus import EmulatedBus
from edge_runtime.rig.load import Load, pulses
from edge_runtime.rig.powercap import PowercapTree
from edge_runtime.rig.sysfs import SysfsRig

ADDRESSES = {"ina219": 0x40, "ina226": 0x41, "ina228": 0x44, "ina3221": 0x45}
HOST_W = 12.0
"""What the emulated x86 package draws, beside the board whose rail the chips see."""
OFFSET_UV, GAIN = 60.0, 1.008
"""The front ends' errors, for a calibration to find."""
VCGENCMD = """\
#!/bin/sh
echo ' 3V3_SYS_A current(1)=0.20000000A'
echo ' VDD_CORE_A current(7)=1.00000000A'
echo ' 3V3_SYS_V volt(9)=3.30000000V'
echo ' VDD_CORE_V volt(15)=0.75000000V'
echo ' EXT5V_V volt(24)=5.10000000V'
"""


class EmulatedBench:
    """An I2C bus with one of each chip, a /sys with drivers, a battery and RAPL's counters, and a vcgencmd.

    bus, sysfs, path: where to look for them. now: seconds since it was switched on, as its loads count them.
    """

    def __init__(self, load: Load | None = None, now: Callable[[], float] = time.monotonic) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="edge-bench-")
        begun = now()
        self.now: Callable[[], float] = lambda: now() - begun
        load = load or pulses(0.05)
        self._chips = [
            chip(load, self.now, offset_uv=OFFSET_UV, gain=GAIN)
            for chip in (ina.Ina219, ina.Ina226, ina.Ina228, ina.Ina3221)
        ]
        self.bus = EmulatedBus(dict(zip(ADDRESSES.values(), self._chips, strict=True)))
        root = Path(self._folder.name)
        self.sysfs = root / "sys"
        self._rig = SysfsRig(self.sysfs, load, self.now)
        self._host, self._spent_uj = PowercapTree(self.sysfs), 0
        self.path = root / "bin"
        self.path.mkdir()
        vcgencmd = self.path / "vcgencmd"
        vcgencmd.write_text(VCGENCMD)
        vcgencmd.chmod(0o755)

    def connect(self, load: Load) -> None:
        """Another load for every chip on the bus."""
        for chip in self._chips:
            chip.connect(load)

    def update(self) -> None:
        """Have the files of /sys show this moment."""
        self._rig.update()
        total_uj = int(self.now() * HOST_W * 1e6)
        self._host.spend(total_uj - self._spent_uj)
        self._spent_uj = total_uj

    def close(self) -> None:
        """Remove the files."""
        self._host.close()
        self._folder.cleanup()
