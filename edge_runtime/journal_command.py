"""`edge-runtime journal show|export|verify DIR`: the log."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from edge_runtime import console, journal, render


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `edge-runtime journal`."""
    actions = parser.add_subparsers(required=True, metavar="ACTION", parser_class=console.Parser)
    show = actions.add_parser("show", help="every record, for people")
    show.set_defaults(action=_show)
    export = actions.add_parser("export", help="every verdict, for programs")
    export.add_argument("--format", choices=["jsonl", "csv"], default="jsonl")
    export.set_defaults(action=_export)
    verify = actions.add_parser("verify", help="check every byte; exit 1 on damage")
    verify.set_defaults(action=_verify)
    for action in (show, export, verify):
        action.add_argument("directory", type=Path, metavar="DIR")
    for action in (show, verify):
        action.add_argument("--json", action="store_true", help="print one JSON document")


def run(args: argparse.Namespace) -> int:
    """Run the chosen action; its exit code."""
    code: int = args.action(args)
    return code


def _show(args: argparse.Namespace) -> int:
    rows = render.journal_rows(args.directory)
    if args.json:
        console.print_json(list(rows))
    else:
        for row in rows:
            print(render.journal_line(row))
    return 0


def _export(args: argparse.Namespace) -> int:
    render.export(args.directory, args.format, sys.stdout)
    return 0


def _verify(args: argparse.Namespace) -> int:
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
