"""A powercap tree that stands in for RAPL: real files with counters that wrap, for unmodified programs.

`PowercapTree` makes `class/powercap` and the CPU topology under a folder. `redirected` has this process's pyRAPL
look there; `in_namespace` gives the command that runs another one with that tree mounted over /sys, in a mount
namespace of its own (needs root).
"""

from __future__ import annotations

import os
import types
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

RANGE_UJ = 262_143_328_850
"""`max_energy_range_uj` of a common package: 32 bits of 61 uJ, 67 minutes at 65 W."""
DRAM_RANGE_UJ = 65_712_999_613

_WIDTH = 20

_MOUNT = """\
set -e
tree=$1; shift
mount --make-rprivate /
real=$(mktemp -d)
mount --bind /sys/class "$real"
mount -t tmpfs tmpfs /sys/class
for c in "$real"/*; do
  n=/sys/class/${c##*/}
  [ "$n" = /sys/class/powercap ] || { mkdir "$n"; mount --bind "$c" "$n"; }
done
mkdir /sys/class/powercap
mount --bind "$tree/class/powercap" /sys/class/powercap
mount -t tmpfs tmpfs /sys/devices/system/cpu
cp -r "$tree/devices/system/cpu/." /sys/devices/system/cpu/
exec "$@"
"""


def in_namespace(tree: Path, command: list[str]) -> list[str]:
    """`command` with the tree in place of /sys/class/powercap and the CPU topology. Needs root."""
    return ["unshare", "--mount", "sh", "-c", _MOUNT, "sh", str(tree), *command]


@contextmanager
def redirected(pyrapl: Any, root: Path) -> Iterator[Any]:
    """pyRAPL unmodified, its `open` and `os` looking under `root` instead of /sys. None (not installed) passes."""
    if pyrapl is None:
        yield None
        return
    api: Any = import_module(f"{pyrapl.__name__}.device_api")

    def under(path: str) -> str:
        return str(root) + path.removeprefix("/sys")

    api.open = lambda path, *mode: open(under(path), *mode)  # noqa: SIM115
    real_os = api.os
    api.os = types.SimpleNamespace(
        path=types.SimpleNamespace(exists=lambda path: os.path.exists(under(path)))
    )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ResourceWarning)
            yield pyrapl
    finally:
        del api.open
        api.os = real_os


class PowercapTree:
    """Counters of `sockets` packages, each of `dies` dies (0: not told apart) and with or without DRAM.

    start_uj: where package counters stand at first; near `range_uj` so that they soon wrap.
    """

    def __init__(
        self,
        root: Path,
        *,
        sockets: int = 1,
        dies: int = 0,
        dram: bool = False,
        start_uj: int = 0,
        range_uj: int = RANGE_UJ,
    ) -> None:
        self.root = root
        self.sockets = sockets
        self._counters: dict[tuple[int, int, bool], tuple[int, int, int]] = {}
        base = root / "class/powercap/intel-rapl"
        for at in range(sockets * max(dies, 1)):
            socket, die = at // max(dies, 1), at % max(dies, 1)
            package = base / f"intel-rapl:{at}"
            name = f"package-{socket}" + (f"-die-{die}" if dies else "")
            self._zone(package, name, start_uj, range_uj, (socket, die, False))
            self._zone(package / f"intel-rapl:{at}:0", "core", 0, range_uj, None)
            if dram:
                self._zone(package / f"intel-rapl:{at}:1", "dram", 0, DRAM_RANGE_UJ, (socket, die, True))
        self._topology()

    def _zone(
        self, folder: Path, name: str, uj: int, range_uj: int, key: tuple[int, int, bool] | None
    ) -> None:
        folder.mkdir(parents=True)
        (folder / "name").write_text(f"{name}\n")
        (folder / "max_energy_range_uj").write_text(f"{range_uj}\n")
        counter = folder / "energy_uj"
        counter.write_bytes(_digits(uj))
        if key is not None:
            self._counters[key] = (os.open(counter, os.O_WRONLY), uj, range_uj)

    def _topology(self) -> None:
        cpus = self.root / "devices/system/cpu"
        for cpu in range(2 * self.sockets):
            folder = cpus / f"cpu{cpu}/topology"
            folder.mkdir(parents=True)
            (folder / "physical_package_id").write_text(f"{cpu // 2}\n")
        (cpus / "present").write_text(f"0-{2 * self.sockets - 1}\n")

    def spend(self, uj: int, *, socket: int = 0, die: int = 0, dram: bool = False) -> None:
        """Advance a counter, with its wrap. One fixed-width write, so that no reader sees a half."""
        descriptor, raw, range_uj = self._counters[socket, die, dram]
        raw = (raw + uj) % range_uj
        self._counters[socket, die, dram] = (descriptor, raw, range_uj)
        os.pwrite(descriptor, _digits(raw), 0)

    def forbid(self) -> None:
        """Counters as kernels since 5.10 make them: readable by root only (CVE-2020-8694)."""
        for path in self.root.rglob("energy_uj"):
            path.chmod(0o400)

    def close(self) -> None:
        """Close the counters' files."""
        for descriptor, _, _ in self._counters.values():
            os.close(descriptor)
        self._counters.clear()


def _digits(uj: int) -> bytes:
    return b"%0*d\n" % (_WIDTH, uj)
