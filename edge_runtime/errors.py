"""What can go wrong, as exceptions that become one line for people and an exit code for machines.

    EdgeError                 exit 2   bad usage or bad input
    |-- BadInput              exit 2   a file, name or value that the user can mend
    |-- CheckFailed           exit 1   a verification found a difference
    `-- HardwareUnavailable   exit 3   a port or meter that is not there

Every message says what is wrong, where, and what to do about it, in one line.
"""

from __future__ import annotations


class EdgeError(Exception):
    """Base of every error this product raises on purpose. `exit_code` is the process's exit code."""

    exit_code = 2


class BadInput(EdgeError):
    """A file, name or value that the user can mend."""


class CheckFailed(EdgeError):
    """A verification ran and found a difference."""

    exit_code = 1


class HardwareUnavailable(EdgeError):
    """A port, scanner or meter that is not there (or not any more)."""

    exit_code = 3
