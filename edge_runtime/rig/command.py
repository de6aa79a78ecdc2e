"""`edge-runtime rig SCANNER`: a scanner emulator on a pty, until its list ends or it is stopped."""

from __future__ import annotations

import argparse
import json
import signal
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import TextIO

from edge_runtime.errors import BadInput
from edge_runtime.rig.emulator import Emulator
from edge_runtime.rig.framed import FramedEmulator
from edge_runtime.rig.mishaps import KINDS, Mishaps
from edge_runtime.rig.playlist import Playlist, open_playlist
from edge_runtime.rig.rf_explorer import RFExplorerEmulator
from edge_runtime.rig.tinysa import TinySAEmulator

EMULATORS: dict[str, type[Emulator]] = {
    e.name: e for e in (RFExplorerEmulator, TinySAEmulator, FramedEmulator)
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `edge-runtime rig`."""
    parser.add_argument("scanner", help=f"which one: {', '.join(EMULATORS)}")
    parser.add_argument("--recording", type=Path, required=True, help="the .scans file to play")
    parser.add_argument("--rate", type=float, default=5.0, metavar="HZ", help="sweeps a second")
    parser.add_argument("--splits", default="", help="only these, as in test,unknown")
    parser.add_argument("--loop", action="store_true", help="begin again at the end")
    parser.add_argument(
        "--misbehave", default="", metavar="KIND[=EVERY],...", help=f"KIND of {', '.join(KINDS)}"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the misbehaviour")
    parser.add_argument("--log", type=Path, help="a line for every whole sweep: when it left, which it was")
    parser.add_argument("--json", action="store_true", help="print the port as one JSON document")


def run(args: argparse.Namespace) -> int:
    """Run the emulator; its port is the first line of standard output. Ends at SIGINT or SIGTERM."""
    if args.scanner not in EMULATORS:
        raise BadInput(f"rig {args.scanner}: unknown; choose of {', '.join(EMULATORS)}")
    if not 0 < args.rate <= 1000:
        raise BadInput(f"--rate {args.rate:g}: give sweeps a second, above 0 and up to 1000")
    playlist = open_playlist(args.recording, args.splits, args.loop)
    mishaps = Mishaps(args.misbehave, args.seed)
    with ExitStack() as stack:
        log: TextIO | None = None
        if args.log:
            try:
                log = stack.enter_context(args.log.open("w"))
            except OSError as e:
                raise BadInput(f"--log {args.log}: {e.strerror}; choose another file") from e
        return _play(args, playlist, mishaps, log)


def _play(args: argparse.Namespace, playlist: Playlist, mishaps: Mishaps, log: TextIO | None) -> int:
    stopping = False

    def stop(*_: object) -> None:
        nonlocal stopping
        stopping = True

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)
    emulator = EMULATORS[args.scanner](playlist, args.rate, mishaps, log, lambda: stopping)
    try:
        port = str(emulator.port.path)
        print(json.dumps({"port": port, "sweeps": len(playlist)}) if args.json else port, flush=True)
        emulator.run()
    finally:
        emulator.port.close()
    print(f"played {emulator.played} sweeps", file=sys.stderr)
    return 0
