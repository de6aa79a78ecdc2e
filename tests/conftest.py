"""Fixtures that several tests share."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge_runtime.energy_ci import userland
from edge_runtime.energy_ci.guest import Guest
from edge_runtime.errors import HardwareUnavailable

ROOT = Path(__file__).resolve().parent.parent
CONSTRAINTS = ROOT / "scripts/constraints.txt"


def guest(arch: userland.Arch, requirements: list[str]) -> Guest:
    """A guest with the checkout and the pinned wheels on its path; skips, with the reason, where it cannot be."""
    try:
        return Guest([ROOT, userland.wheels(requirements, arch, CONSTRAINTS)], arch)
    except HardwareUnavailable as e:
        pytest.skip(str(e))


@pytest.fixture(scope="session")
def energy_guest(arm64: Guest) -> Guest:
    """What the energy gate counts on."""
    return arm64


@pytest.fixture(scope="session")
def arm64() -> Guest:
    """An aarch64 guest with what the device needs, and nothing else."""
    return guest(userland.ARM64, ["pyserial"])
