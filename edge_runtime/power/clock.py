"""The one monotonic clock, and how a thread waits on it. Both are passed in, so that tests own time."""

from __future__ import annotations

import time
from collections.abc import Callable

ClockUs = Callable[[], int]
Sleep = Callable[[float], None]


def monotonic_us() -> int:
    """Microseconds on the host's monotonic clock."""
    return time.monotonic_ns() // 1000
