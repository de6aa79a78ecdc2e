"""ARM guests for tests: the checkout and the pinned wheels in an emulated user-space."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge_runtime.energy_ci import userland
from edge_runtime.energy_ci.guest import Guest
from edge_runtime.errors import HardwareUnavailable

ROOT = Path(__file__).parents[1]
CONSTRAINTS = ROOT / "scripts/constraints.txt"


def guest(*requirements: str, arch: userland.Arch = userland.ARM64) -> Guest:
    """A guest with `requirements` and the checkout; skips, with the reason, where there can be none."""
    try:
        return Guest([ROOT, userland.wheels(requirements, arch, CONSTRAINTS)], arch)
    except HardwareUnavailable as e:
        pytest.skip(str(e))


@pytest.fixture(scope="session")
def arm64() -> Guest:
    """An aarch64 guest with what the device needs, and nothing else."""
    return guest("pyserial")
