"""An ARM Debian user-space to run the device's code in: packages unpacked, nothing of it ever executed here.

No chroot, no binfmt_misc, no root: debootstrap downloads and checks the packages, dpkg-deb unpacks those that
Python needs, the host's pip fetches the wheels for the guest's machine. Built once, kept in the cache.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from subprocess import DEVNULL
from typing import IO

from edge_runtime.cache import cache_dir
from edge_runtime.errors import HardwareUnavailable

SUITE = "bookworm"
PYTHON = "3.11"
_UNPACKED = ("lib", "python3", "zlib1g", "media-types")
_LEFT_OUT = ("./usr/share/doc", "./usr/share/man", "./usr/share/locale", "./dev")
_BUILD = 1  # raise it when what is built changes


@dataclass(frozen=True, slots=True)
class Arch:
    """One guest machine.

    name: Debian's. qemu: the emulator. platforms: wheel tags its Debian accepts, newest first. packages: from
    Debian where the index has no wheels for this machine.
    """

    name: str
    qemu: str
    platforms: tuple[str, ...]
    packages: tuple[str, ...]


_GLIBC_2_36_DOWN = (36, 35, 34, 33, 32, 31, 28, 27, 24, 17)
ARM64 = Arch(
    "arm64",
    "qemu-aarch64",
    (*(f"manylinux_2_{minor}_aarch64" for minor in _GLIBC_2_36_DOWN), "manylinux2014_aarch64"),
    ("python3",),
)
ARMHF = Arch(
    "armhf",
    "qemu-arm",
    tuple(f"manylinux_2_{minor}_armv7l" for minor in _GLIBC_2_36_DOWN),
    ("python3", "python3-numpy"),
)


def root(arch: Arch = ARM64) -> Path:
    """The user-space's root folder; half a minute to build at first need.

    Raises HardwareUnavailable, with what to install, where it cannot be built.
    """
    with _built_once(arch, "root", [SUITE, *arch.packages]) as (path, part):
        if part is not None:
            _unpack(arch, part)
    return path


def wheels(requirements: Sequence[str], arch: Arch = ARM64, constraints: Path | None = None) -> Path:
    """A folder for the guest's PYTHONPATH that holds `requirements` and what they need, as wheels.

    constraints: a pip constraints file that pins their versions. Raises HardwareUnavailable where one has no
    wheel for this machine.
    """
    pinned = "" if constraints is None else constraints.read_text(encoding="utf-8")
    with _built_once(arch, "wheels", [*requirements, pinned, PYTHON]) as (path, part):
        if part is not None:
            _install(requirements, arch, constraints, part)
    return path


@contextmanager
def _built_once(arch: Arch, kind: str, inputs: Sequence[str]) -> Iterator[tuple[Path, Path | None]]:
    """The place of what is built from `inputs`, and where to build it (None where that is done already).

    A build that fails leaves nothing; of two processes one builds and the other waits.
    """
    folder = cache_dir(arch.name)
    stamp = hashlib.sha256("\0".join([str(_BUILD), *inputs]).encode()).hexdigest()[:16]
    done = folder / f"{kind}-{stamp}"
    with open(folder / f"{kind}-{stamp}.lock", "w", encoding="ascii") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if done.is_dir():
            yield done, None
            return
        part = Path(tempfile.mkdtemp(prefix=f"{kind}-part-", dir=folder))
        try:
            yield done, part
            part.rename(done)
        finally:
            shutil.rmtree(part, ignore_errors=True)


def _unpack(arch: Arch, folder: Path) -> None:
    for tool in ("debootstrap", "dpkg-deb"):
        if shutil.which(tool, path=_PATH) is None:
            raise HardwareUnavailable(f"{arch.name} user-space: no {tool}; apt-get install debootstrap")
    with tempfile.TemporaryDirectory(prefix="edge-debootstrap-") as downloads:
        _run(
            [
                "debootstrap",
                "--download-only",
                "--variant=minbase",
                f"--arch={arch.name}",
                f"--include={','.join(arch.packages)}",
                SUITE,
                downloads,
            ],
            f"{arch.name} user-space: debootstrap",
        )
        (folder / "usr" / "lib").mkdir(parents=True)
        (folder / "lib").symlink_to("usr/lib")
        for package in sorted(Path(downloads, "var/cache/apt/archives").glob("*.deb")):
            if package.name.startswith(_UNPACKED):
                _unpack_one(package, folder)


def _unpack_one(package: Path, folder: Path) -> None:
    with subprocess.Popen(
        ["dpkg-deb", "--fsys-tarfile", str(package)], stdout=subprocess.PIPE, env={"PATH": _PATH}
    ) as tar:
        excludes = [f"--exclude={path}" for path in _LEFT_OUT]
        _run(
            ["tar", "-x", "--keep-directory-symlink", "--no-same-owner", *excludes, "-C", str(folder)],
            f"unpacking {package.name}",
            stdin=tar.stdout,
        )


def _install(requirements: Sequence[str], arch: Arch, constraints: Path | None, folder: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--disable-pip-version-check",
        "--no-compile",
    ]
    command += ["--target", str(folder), "--only-binary=:all:", "--implementation=cp"]
    command += [f"--python-version={PYTHON}", *(f"--platform={tag}" for tag in arch.platforms)]
    if arch is ARMHF:
        command.append("--no-deps")  # numpy has no wheel for armv7; the root has Debian's
    if constraints is not None:
        command += ["--constraint", str(constraints)]
    _run([*command, *requirements], f"wheels for {arch.name}: pip", path=None)


_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"  # debootstrap lives in /usr/sbin


def _run(
    command: Sequence[str], what: str, stdin: IO[bytes] | int | None = DEVNULL, path: str | None = _PATH
) -> None:
    """Run to its end. Raises HardwareUnavailable with the last line it printed where it fails."""
    environment = dict(os.environ) if path is None else os.environ | {"PATH": path}
    done = subprocess.run(
        command,
        stdin=stdin,
        capture_output=True,
        text=True,
        errors="replace",
        env=environment,
        check=False,
    )
    if done.returncode:
        lines = (done.stdout + done.stderr).strip().splitlines() or ["it said nothing"]
        raise HardwareUnavailable(f"{what} failed: {lines[-1]}; is the network there?")
