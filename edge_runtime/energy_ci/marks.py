"""Marks that the counting plugin sees. Imports next to nothing: it runs inside the guest that is counted."""

from __future__ import annotations

import os

BASE = 0x5CA0_0000


def mark(number: int) -> None:
    """Set a mark, 0 .. 0xFFFFF: one system call that fails and does nothing else."""
    try:
        os.getpriority(os.PRIO_PROCESS, BASE | number)
    except (
        ProcessLookupError
    ):  # what the plugin's numbers are chosen for; contextlib would have to be imported
        return
