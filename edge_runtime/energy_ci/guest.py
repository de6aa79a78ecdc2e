"""Runs Python programs on an emulated ARM CPU, in the user-space of `userland`, with or without counting.

Runs repeat: one seed for QEMU, one for Python's hashes, no randomised addresses, no threads in numpy.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

from edge_runtime.cache import cache_dir
from edge_runtime.energy_ci import userland
from edge_runtime.energy_ci.counting import Counts, plugin, read_counts
from edge_runtime.errors import HardwareUnavailable


class Finished(NamedTuple):
    """A guest program that ran to its end. `counts` is None where none were asked for."""

    status: int
    stdout: str
    stderr: str
    counts: Counts | None


class Guest:
    """An ARM Python with `paths` on its PYTHONPATH."""

    def __init__(self, paths: Sequence[Path], arch: userland.Arch = userland.ARM64) -> None:
        """Build or find the user-space. Raises HardwareUnavailable, saying what to install."""
        emulator = shutil.which(arch.qemu)
        if emulator is None:
            raise HardwareUnavailable(f"{arch.name} guest: no {arch.qemu}; apt-get install qemu-user")
        self._root = userland.root(arch)
        self._command = [*_without_randomised_addresses(), emulator, "-seed", "1"]
        search = [str(path) for path in paths]
        if arch is userland.ARMHF:
            search.append(str(self._root / "usr/lib/python3/dist-packages"))
            libraries = self._root / "usr/lib/arm-linux-gnueabihf"
            # Debian's numpy finds its BLAS through absolute links that only hold inside the root.
            self._command += ["-E", f"LD_LIBRARY_PATH={libraries}/blas:{libraries}/lapack"]
        self._environment = {
            "PATH": "/usr/bin:/bin",
            "HOME": "/tmp",
            "LANG": "C.UTF-8",
            "PYTHONHASHSEED": "0",
            "PYTHONPYCACHEPREFIX": str(cache_dir(f"{arch.name}/bytecode")),
            "PYTHONHOME": str(self._root / "usr"),
            "PYTHONPATH": os.pathsep.join(search),
            "OPENBLAS_NUM_THREADS": "1",
            "OMP_NUM_THREADS": "1",
        }

    def popen(
        self,
        args: Sequence[str],
        *,
        counts: Path | None = None,
        memory: bool = False,
        writes: bool = False,
        environment: Mapping[str, str] | None = None,
    ) -> subprocess.Popen[str]:
        """Start `python3 args...` in the guest, its output on pipes.

        counts: where the plugin appends what it counts (counting.read_counts reads it). memory: count loads
        and stores too. writes: tell of each write(2).
        """
        command = list(self._command)
        if counts is not None:
            option = (
                f"{plugin()},out={counts}"
                + (",memory=on" if memory else "")
                + (",writes=on" if writes else "")
            )
            command += ["-plugin", option]
        command += ["-L", str(self._root), str(self._root / f"usr/bin/python{userland.PYTHON}"), *args]
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=self._environment | dict(environment or {}),
        )

    def run(
        self,
        args: Sequence[str],
        *,
        count: bool = False,
        memory: bool = False,
        writes: bool = False,
        environment: Mapping[str, str] | None = None,
        timeout_s: float = 120,
    ) -> Finished:
        """Run `python3 args...` in the guest to its end. Raises HardwareUnavailable where that takes too long."""
        with tempfile.TemporaryDirectory(prefix="edge-counts-") as folder:
            path = Path(folder, "counts") if count else None
            with self.popen(
                args, counts=path, memory=memory, writes=writes, environment=environment
            ) as process:
                try:
                    out, err = process.communicate(timeout=timeout_s)
                except subprocess.TimeoutExpired:
                    process.kill()
                    raise HardwareUnavailable(f"guest: {args[0]} did not end in {timeout_s:.0f} s") from None
            return Finished(process.returncode, out, err, read_counts(path) if path else None)


@cache
def _without_randomised_addresses() -> list[str]:
    """`setarch -R` where the machine allows it; in some containers it does not, and counts vary a little."""
    command = ["setarch", "-R"]
    try:
        subprocess.run([*command, "true"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        return []
    return command
