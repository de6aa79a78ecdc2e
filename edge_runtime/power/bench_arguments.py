"""Where a command looks for meters: apart, so that a loop that uses none need not load them."""

from __future__ import annotations

import math
from argparse import ArgumentParser, ArgumentTypeError
from pathlib import Path


def positive(text: str) -> float:
    """A finite number above zero, for an option. Raises ArgumentTypeError."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise ArgumentTypeError(f"{text!r} is no number above zero")
    return value


def i2c_address(text: str) -> int:
    """An address that a device on the bus may have (I2C specification, 3.1.12). Raises ArgumentTypeError."""
    try:
        value = int(text, 0)
    except ValueError:
        value = 0
    if not 0x08 <= value <= 0x77:
        raise ArgumentTypeError(f"{text!r} is no address from 0x08 to 0x77")
    return value


def add_bench_arguments(parser: ArgumentParser, *, profile: bool = True) -> None:
    """Where the meters are: shared by the commands that use one. profile: not where the parser has it."""
    parser.add_argument("--i2c", type=int, default=1, metavar="N", help="bus /dev/i2c-N (%(default)s)")
    parser.add_argument("--address", type=i2c_address, metavar="A", help="the chip's address (0x40)")
    parser.add_argument(
        "--channel", type=int, default=1, choices=[1, 2, 3], help="of an INA3221 (%(default)s)"
    )
    parser.add_argument("--shunt", type=positive, metavar="OHM", help="the shunt that is really fitted")
    parser.add_argument(
        "--max-amps", type=positive, default=3.2, metavar="A", help="highest peak (%(default)s)"
    )
    parser.add_argument("--calibration", type=Path, metavar="FILE", help="as edge-runtime calibrate wrote it")
    if profile:
        parser.add_argument("--profile", default="zero2w", help="the board's profile (%(default)s)")
    parser.add_argument("--emulated", action="store_true", help="an emulated bench instead of hardware")
