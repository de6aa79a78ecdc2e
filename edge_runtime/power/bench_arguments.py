"""Where a command looks for meters: apart, so that a loop that uses none need not load them."""

from __future__ import annotations

from argparse import ArgumentParser
from pathlib import Path


def add_bench_arguments(parser: ArgumentParser, *, profile: bool = True) -> None:
    """Where the meters are: shared by the commands that use one. profile: not where the parser has it."""
    parser.add_argument("--i2c", type=int, default=1, metavar="N", help="bus /dev/i2c-N (%(default)s)")
    parser.add_argument("--address", type=lambda t: int(t, 0), metavar="A", help="the chip's address (0x40)")
    parser.add_argument(
        "--channel", type=int, default=1, choices=[1, 2, 3], help="of an INA3221 (%(default)s)"
    )
    parser.add_argument("--shunt", type=float, metavar="OHM", help="the shunt that is really fitted")
    parser.add_argument("--max-amps", type=float, default=3.2, metavar="A", help="highest peak (%(default)s)")
    parser.add_argument("--calibration", type=Path, metavar="FILE", help="as edge-runtime calibrate wrote it")
    if profile:
        parser.add_argument("--profile", default="zero2w", help="the board's profile (%(default)s)")
    parser.add_argument("--emulated", action="store_true", help="an emulated bench instead of hardware")
