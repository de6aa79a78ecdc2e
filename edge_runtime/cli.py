"""`edge-runtime`: run the loop, stand in for a scanner, read the log, look at the meters."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module

from edge_runtime import console

COMMANDS = {
    "run": ("edge_runtime.mission", "the loop: scans in, verdicts and their energy out"),
    "rig": ("edge_runtime.rig.command", "a scanner's stand-in on a pseudo-terminal; prints its port"),
    "journal": ("edge_runtime.journal_command", "the log: show, export, verify"),
    "meters": ("edge_runtime.power.meters", "the meters of this machine, each with a reading or why not"),
    "plan": ("edge_runtime.planning.plan", "what a mission will cost before it starts"),
    "replay": ("edge_runtime.planning.replay", "what another policy would have cost on a log, and missed"),
    "calibrate": ("edge_runtime.power.calibrate", "a bench session that calibrates a current meter"),
    "fit": ("edge_runtime.power.fit", "a lab session to a board profile with fitted coefficients"),
}
"""Each command's module has `add_arguments(parser)` and `run(args)`."""


def parser(arguments: Sequence[str]) -> console.Parser:
    """The parser for these arguments.

    Only the chosen command's module is imported: the loop on a device should not pay for the rig.
    """
    top = console.Parser(prog="edge-runtime", description=__doc__)
    commands = top.add_subparsers(required=True, metavar="COMMAND", parser_class=console.Parser)
    chosen = next((word for word in arguments if not word.startswith("-")), None)
    for name, (module_name, about) in COMMANDS.items():
        command = commands.add_parser(name, help=about, description=about)
        if name == chosen:
            module = import_module(module_name)
            module.add_arguments(command)
            command.set_defaults(run=module.run)
    return top


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; the exit code: 0 done, 1 check failed, 2 bad input, 3 no hardware."""
    words = sys.argv[1:] if arguments is None else arguments
    return console.main(parser(words), words)


if __name__ == "__main__":
    sys.exit(main())
