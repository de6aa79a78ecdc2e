"""`scripts/train_demo`: train the demo's model, or say what it is worth."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from compile.demo import report
from compile.demo.train import HERE, Sweeps, read, train
from compile.pipeline import Pipeline
from edge_runtime import console
from edge_runtime.errors import BadInput
from edge_runtime.files import write_whole


def _parser() -> argparse.ArgumentParser:
    parser = console.Parser(prog="train_demo", description="Train the demo's model, or say what it is worth.")
    for name, file in (
        ("recording", "recordings.scans"),
        ("pipeline", "pipeline.toml"),
        ("model", "trees.txt"),
    ):
        parser.add_argument(f"--{name}", type=Path, default=HERE / file, metavar="FILE", help="(%(default)s)")
    parser.add_argument(
        "--report", action="store_true", help="train nothing: figures of the model that is there"
    )
    parser.add_argument("--json", action="store_true", help="the figures as one JSON document")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw its confusion matrices")
    parser.add_argument(
        "--held-out", type=Path, metavar="FILE", help="judge it on the test split of another recording"
    )
    parser.set_defaults(run=_run)
    return parser


def _run(args: argparse.Namespace) -> None:
    sweeps = read(args.recording, args.pipeline)
    if args.report or args.json or args.plot or args.held_out:
        _report(args, sweeps)
        return
    text = train(sweeps)
    write_whole(args.model, text.encode("ascii"), "model", "--model")
    print(f"{args.model}: {text.count('Tree=')} trees, {len(text)} bytes", file=sys.stderr)


def _report(args: argparse.Namespace, sweeps: Sweeps) -> None:
    try:
        model = args.model.read_text(encoding="ascii")
    except (OSError, UnicodeDecodeError) as e:
        raise BadInput(f"model {args.model}: {e}; train it with scripts/train_demo") from e
    others = read(args.held_out, args.pipeline, sweeps.classes) if args.held_out else None
    figures = report.figures(sweeps, model, Pipeline.load(args.pipeline), others)
    if args.plot:
        report.plot(figures, args.plot)
    if args.json:
        console.print_json(figures)
    else:
        print("\n".join(report.lines(figures)))


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; its exit code."""
    return console.main(_parser(), arguments)
