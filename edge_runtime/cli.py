"""`edge-runtime`: run the loop, stand in for a scanner, read the log, show the meters."""

from __future__ import annotations

import sys
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path

from edge_runtime import console

# Each command imports what it needs when it runs: the loop on a device should not pay for the rig.
# ruff: noqa: PLC0415


def _run(args: Namespace) -> int:
    from edge_runtime.mission import run

    return run(args)


def _rig(args: Namespace) -> int:
    from edge_runtime.rig.command import run

    return run(args)


def _journal_show(args: Namespace) -> None:
    from edge_runtime import render

    rows = render.journal_rows(args.directory)
    if args.json:
        console.print_json(list(rows))
    else:
        for row in rows:
            print(render.journal_line(row))


def _journal_export(args: Namespace) -> None:
    from edge_runtime import render

    render.export(args.directory, args.format, sys.stdout)


def _journal_verify(args: Namespace) -> int:
    from edge_runtime import journal

    audit = journal.verify(args.directory)
    if args.json:
        console.print_json(audit._asdict())
    else:
        for row in audit.damage:
            print(f"{args.directory}/{row}", file=sys.stderr)
        print(
            f"{audit.segments} segments, {audit.records} records, {audit.verdicts} verdicts, "
            f"{audit.torn_bytes} torn bytes, {len(audit.damage)} damaged places"
        )
    return 1 if audit.damage else 0


def parser() -> console.Parser:
    """The command line, as DESIGN.md fixes it."""
    top = console.Parser(prog="edge-runtime", description=__doc__)
    commands = top.add_subparsers(required=True, metavar="COMMAND", parser_class=console.Parser)

    run = commands.add_parser("run", help="the loop: scans in, verdicts and their energy out")
    run.add_argument("--bundle", type=Path, required=True, help="the .edge file")
    run.add_argument("--port", required=True, help="device or pyserial URL of the scanner")
    run.add_argument("--scanner", default="rf-explorer", help="the scanner's protocol (%(default)s)")
    run.add_argument("--profile", default="zero2w", help="the board's profile (%(default)s)")
    run.add_argument("--battery", default="li-ion-18650", help="the battery's profile (%(default)s)")
    run.add_argument("--journal", type=Path, default=Path("journal"), help="the log's folder (%(default)s)")
    run.add_argument("--scans", type=int, help="end after this many scans")
    run.add_argument("--verdicts", type=Path, help="also write each verdict as a JSON line to this file")
    run.add_argument("--quiet", action="store_true", help="print no verdicts, only the summary")
    run.add_argument("--json", action="store_true", help="print the summary as one JSON document")
    run.set_defaults(run=_run)

    rig = commands.add_parser("rig", help="a scanner's stand-in on a pseudo-terminal; prints its port")
    _add_rig_arguments(rig)
    rig.set_defaults(run=_rig)

    journal = commands.add_parser("journal", help="the log")
    actions = journal.add_subparsers(required=True, metavar="ACTION", parser_class=console.Parser)
    show = actions.add_parser("show", help="every record, for people")
    show.set_defaults(run=_journal_show)
    export = actions.add_parser("export", help="every verdict, for programs")
    export.add_argument("--format", choices=["jsonl", "csv"], default="jsonl")
    export.set_defaults(run=_journal_export)
    verify = actions.add_parser("verify", help="check every byte; exit 1 on damage")
    verify.set_defaults(run=_journal_verify)
    for action in (show, export, verify):
        action.add_argument("directory", type=Path, metavar="DIR")
    for action in (show, verify):
        action.add_argument("--json", action="store_true", help="print one JSON document")
    return top


def _add_rig_arguments(rig: console.Parser) -> None:
    from edge_runtime.rig.command import add_arguments

    add_arguments(rig)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; the exit code of DESIGN.md: 0 done, 1 check failed, 2 bad input, 3 no hardware."""
    return console.main(parser(), arguments)


if __name__ == "__main__":
    sys.exit(main())
