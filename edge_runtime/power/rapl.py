"""RAPL, the energy counters of x86 processors, through pyRAPL; with what pyRAPL leaves out.

pyRAPL 0.2.3.1 hands out raw counters in microjoules: it knows nothing of their wrap-around, is not safe to
call from two threads, and fails with bare exceptions. Here the range of every counter is read beside it,
counters are unwrapped on a monotonic clock under a lock, and every failure is told as "unavailable, because".
(Linux: Documentation/power/powercap/powercap.rst; Documentation/ABI/testing/sysfs-class-powercap.)
"""

from __future__ import annotations

import importlib
import logging
import threading
import warnings
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from edge_runtime.power.base import Meter, Reading, Source
from edge_runtime.power.clock import ClockUs, monotonic_us

MAX_PACKAGE_W = 1000.0
"""More than any socket draws: sets how long a counter may be left alone, and what is a jump and not work."""

UPDATE_US = 1000
"""RAPL's counters move about once a millisecond (Intel SDM, volume 3B, 15.10.1)."""


class Zone(NamedTuple):
    """One counter: `package` and `dram` zones only; the others (core, uncore, psys) overlap with them."""

    socket: int
    dram: bool
    folder: Path
    range_uj: int


class Counter:
    """Turns a counter that wraps at `range_uj` into a total that does not.

    A fall is a wrap where the energy it implies could have been spent since the last sample, else the counter
    was reset (suspend, reload of the driver) and the stretch is unknown. After a stretch in which it could
    have wrapped unseen, `doubt_uj` holds what may be missing.
    """

    def __init__(self, range_uj: int, raw_uj: float, before_us: int) -> None:
        self.total_uj = 0.0
        self.doubt_uj = 0.0
        self._range_uj, self._last_uj, self._before_us = range_uj, raw_uj, before_us

    def update(self, raw_uj: float, before_us: int, after_us: int) -> None:
        """Take one sample, read between two looks at the clock (a thread may lose the core in between)."""
        most_uj = (after_us - self._before_us + UPDATE_US) * MAX_PACKAGE_W
        delta = raw_uj - self._last_uj
        self._last_uj, self._before_us = raw_uj, before_us
        if delta < 0:
            delta += self._range_uj
            if delta > most_uj:
                self.doubt_uj += most_uj
                return
        self.total_uj += delta
        self.doubt_uj += (most_uj - delta) // self._range_uj * self._range_uj if most_uj > delta else 0.0


class _Sensor(Protocol):
    """Raw counters in microjoules, in the order of the zones."""

    def read(self) -> list[float]: ...

    def close(self) -> None: ...


class _PyRapl:
    """The zones' counters as pyRAPL reads them."""

    def __init__(self, sensor: Any, zones: list[Zone]) -> None:
        self._sensor = sensor
        self._at = [2 * zone.socket + zone.dram for zone in zones]

    def read(self) -> list[float]:
        values = self._sensor.energy()
        return [float(values[at]) for at in self._at]

    def close(self) -> None:
        for api in self._sensor._device_api.values():  # pyRAPL has no way to close its files
            for file in api._sys_files:
                file.close()


class _Direct:
    """The zones' counters from their files: for names that pyRAPL cannot read (`package-0-die-1`)."""

    def __init__(self, zones: list[Zone]) -> None:
        self._files = [(zone.folder / "energy_uj").open("rb", buffering=0) for zone in zones]

    def read(self) -> list[float]:
        values = []
        for file in self._files:
            file.seek(0)
            values.append(float(file.read(32)))
        return values

    def close(self) -> None:
        for file in self._files:
            file.close()


class RaplMeter(Meter):
    """The host's packages and, where the processor counts it, its DRAM.

    keep_up: run a thread that samples often enough that no wrap is missed (twice in the time that
        MAX_PACKAGE_W needs for the smallest range). Without it, `read` at least that often.
    sysfs: where the zones' names and ranges are read; pyRAPL itself always reads /sys.
    """

    name = "rapl"
    source = Source.MEASURED
    domain = "x86 packages of this host"

    def __init__(
        self, clock_us: ClockUs = monotonic_us, *, sysfs: Path = Path("/sys"), keep_up: bool = True
    ) -> None:
        self._clock_us = clock_us
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._sensor: _Sensor | None = None
        self._started_us = clock_us()
        zones = find_zones(sysfs)
        try:
            self._open(zones)
        except PermissionError as e:
            self.unavailable = f"{e.filename} is not readable; run as root, or: chmod a+r {e.filename}"
        except (OSError, ValueError, IndexError) as e:
            self.unavailable = f"its counters cannot be read ({e})"
        if self.unavailable is None and keep_up:
            self.keep_up_s = min(z.range_uj for z in zones) * 1e-6 / MAX_PACKAGE_W / 2
            self._thread = threading.Thread(target=self._keep_up, name="rapl", daemon=True)
            self._thread.start()

    def _open(self, zones: list[Zone]) -> None:
        if not zones:
            self.unavailable = (
                "there is no /sys/class/powercap/intel-rapl (not an x86 host with RAPL, or a virtual machine)"
            )
            return
        multi_die = len({(z.socket, z.dram) for z in zones}) < len(zones)
        sensor = _Direct(zones) if multi_die else _open_pyrapl(zones)
        if isinstance(sensor, str):
            self.unavailable = sensor
            return
        self._sensor = sensor
        self.domain = _domain(zones, multi_die)
        now = self._clock_us()
        self._counters = [Counter(z.range_uj, raw, now) for z, raw in zip(zones, sensor.read(), strict=True)]

    def _keep_up(self) -> None:
        while not self._stop.wait(self.keep_up_s):
            with self._lock:
                self._sample()

    def _sample(self) -> int:
        assert self._sensor is not None
        before, raw, after = self._clock_us(), self._sensor.read(), self._clock_us()
        for counter, value in zip(self._counters, raw, strict=True):
            counter.update(value, before, after)
        return after

    def read(self) -> Reading:
        """All zones together. Uncertain by one update of the counters at either end; no rail voltage."""
        self.require()
        with self._lock:
            now = self._sample()
            joules = sum(c.total_uj for c in self._counters) * 1e-6
            doubt = sum(c.doubt_uj for c in self._counters) * 1e-6
        elapsed_us = max(now - self._started_us, 1)
        return Reading(joules, doubt + 2 * UPDATE_US * joules / elapsed_us, float("nan"), now)

    def close(self) -> None:
        """Stop the thread and close the counters."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
        if self._sensor is not None:
            self._sensor.close()
            self._sensor = None
            self.unavailable = "it was closed"


def find_zones(sysfs: Path) -> list[Zone]:
    """The package and DRAM zones under `sysfs`, in the order of the tree; empty where there are none."""
    zones = []
    for package in sorted((sysfs / "class/powercap/intel-rapl").glob("intel-rapl:*")):
        name = _text(package / "name")
        if not name.startswith("package-"):
            continue
        socket = int(name.split("-")[1])
        zones.append(Zone(socket, False, package, int(_text(package / "max_energy_range_uj"))))
        for sub in sorted(package.glob("intel-rapl:*:*")):
            if _text(sub / "name") == "dram":
                zones.append(Zone(socket, True, sub, int(_text(sub / "max_energy_range_uj"))))
    return zones


def _text(path: Path) -> str:
    return path.read_text().strip()


def _domain(zones: list[Zone], multi_die: bool) -> str:
    packages = sum(not z.dram for z in zones)
    dram = "with DRAM" if any(z.dram for z in zones) else "DRAM not counted here"
    how = ", read without pyRAPL, which cannot read multi-die names" if multi_die else ""
    return (
        f"{packages} x86 package{'s' * (packages > 1)} of this host, {dram}{how}; "
        "sees no disk, network, screen or power supply; never a Pi's energy"
    )


def _open_pyrapl(zones: list[Zone]) -> _PyRapl | str:
    """pyRAPL over these zones, or why not. PermissionError passes through."""
    pyrapl = import_pyrapl()
    if pyrapl is None:
        return "pyRAPL is not installed; pip install 'edge-runtime[rapl]'"
    devices = [pyrapl.Device.PKG, *([pyrapl.Device.DRAM] if any(z.dram for z in zones) else [])]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # it leaves the name files to the collector
        try:
            return _PyRapl(pyrapl.Sensor(devices=devices), zones)
        except pyrapl.PyRAPLException as e:
            return f"pyRAPL finds no counter for every socket ({type(e).__name__})"


def import_pyrapl() -> Any:
    """pyRAPL, or None. Its import logs on the root logger and would leave a handler there: undone."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # invalid escapes in its source
            return importlib.import_module("pyRAPL")
    except ImportError:
        return None
    finally:
        logging.disable(level)
        root.handlers[:] = handlers
