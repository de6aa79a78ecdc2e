"""What a target is: a triple for the cross compiler, a machine for the emulator, limits for the cost."""

from __future__ import annotations

import platform
from dataclasses import dataclass
from enum import Enum

from edge_runtime.errors import BadInput


class Form(Enum):
    """What is built: a shared library that ctypes loads, or one object for a firmware's linker."""

    SHARED = "shared"
    FREESTANDING = "freestanding"


@dataclass(frozen=True, slots=True)
class Target:
    """One machine to build for.

    triple, cpu: as `zig cc -target TRIPLE -mcpu=CPU` takes them.
    machine: the emulator's name for it (see emulate.py).
    """

    name: str
    triple: str
    cpu: str
    form: Form
    machine: str


TARGETS = {
    t.name: t
    for t in (
        Target("x86_64", "x86_64-linux-gnu.2.17", "x86_64", Form.SHARED, "x86_64"),
        Target("aarch64", "aarch64-linux-gnu.2.17", "cortex_a53", Form.SHARED, "aarch64"),
        Target("armv7", "arm-linux-gnueabihf.2.17", "cortex_a7", Form.SHARED, "armv7"),
        Target(
            "cortex-m4", "thumb-freestanding-eabihf", "cortex_m4+vfp4d16sp", Form.FREESTANDING, "cortex-m4"
        ),
        Target("cortex-m0", "thumb-freestanding-eabi", "cortex_m0plus", Form.FREESTANDING, "cortex-m0"),
    )
}

FLASH_BYTES = {"cortex-m4": 512 * 1024, "cortex-m0": 128 * 1024}
"""Flash of common parts (STM32F4, STM32G0 and their like), half of which is the firmware's own."""

HOST = {"x86_64": "x86_64", "amd64": "x86_64", "aarch64": "aarch64", "arm64": "aarch64", "armv7l": "armv7"}


def target(name: str) -> Target:
    """The target of that name; `host` is this machine's. Raises BadInput where there is none."""
    if name == "host":
        name = HOST.get(platform.machine().lower(), platform.machine())
    if name not in TARGETS:
        raise BadInput(f"target {name!r}: unknown; choose of host, {', '.join(TARGETS)}")
    return TARGETS[name]
