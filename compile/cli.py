"""`edge-compile`: models to bundles, and proof that a bundle is right."""

from __future__ import annotations

import sys
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path

from edge_runtime import console

# Each command imports what it needs when it runs: `inspect` should not pay for treelite.
# ruff: noqa: PLC0415


def _build(args: Namespace) -> None:
    from compile.build import build
    from compile.dump import of_model
    from compile.targets import target
    from edge_runtime.errors import BadInput

    if args.dump:
        name = args.targets.split(",")[0]
        print("\n".join(of_model(args.dump, args.model, target(name), args.mode, args.data)))
    if args.output is None:
        if not args.dump:
            raise BadInput("build: nowhere to write to; give -o B.edge")
        return
    bundle = build(
        args.model,
        pipeline=args.pipeline,
        data=args.data,
        targets=args.targets.split(","),
        mode=args.mode,
        network=args.network,
        agreement=args.agreement,
        progress=lambda line: print(line, file=sys.stderr),
    )
    bundle.save(args.output)
    print(f"{args.output}: {len(bundle.data):,} bytes, {bundle.sha256[:16]}", file=sys.stderr)


def _features(args: Namespace) -> None:
    from compile.features import features_to_npz
    from compile.pipeline import Pipeline
    from edge_runtime.recording import Recording

    features_to_npz(Recording.open(args.scans), Pipeline.load(args.pipeline), args.output)


def _inspect(args: Namespace) -> None:
    from compile.dump import of_bundle
    from compile.inspect import describe
    from compile.targets import target
    from edge_runtime.bundle import Bundle

    bundle = Bundle.open(args.bundle)
    if args.dump:
        name = target(args.target).name if args.target else next(iter(bundle.manifest["artifacts"]))
        print("\n".join(of_bundle(args.dump, bundle, name)))
    elif args.json:
        console.print_json(bundle.manifest)
    else:
        print("\n".join(describe(bundle)))


def _verify(args: Namespace) -> None:
    from compile.check import verify_bundle
    from compile.matrix import Matrix
    from compile.neural import bundle as network_bundle
    from edge_runtime.bundle import Bundle

    bundle = Bundle.open(args.bundle)
    if bundle.manifest["model"]["trees"] or args.data is None:
        matrix = Matrix.load(args.data) if args.data else None
        parities = verify_bundle(bundle, matrix, args.rows)
    else:  # a network alone takes any rows of its input
        parities = network_bundle.verify_bundle(bundle, network_bundle.load_rows(args.data), args.rows)
    for p in parities:
        print(f"{p.target}: {p.calls:,} calls equal to the bit, {p.oracle_rows:,} against the model")
        if p.decisions:
            kept = p.decisions - p.otherwise
            print(f"{p.target}: in fixed point, {kept:,} of {p.decisions:,} decisions are the model's")


def _extract(args: Namespace) -> None:
    from compile.extract import extract
    from edge_runtime.bundle import Bundle

    for path in extract(Bundle.open(args.bundle), args.target, args.output):
        print(path)


def parser() -> console.Parser:
    """The command line."""
    top = console.Parser(prog="edge-compile", description=__doc__)
    commands = top.add_subparsers(required=True, metavar="COMMAND", parser_class=console.Parser)

    def add(name: str, about: str) -> console.Parser:
        return commands.add_parser(name, help=about, description=about)

    build = add("build", "a model to a bundle")
    build.add_argument(
        "model",
        type=Path,
        metavar="MODEL",
        help="LightGBM .txt, XGBoost .json/.ubj, Treelite .tl, or a network: .tflite, .keras, .onnx, .pt2",
    )
    build.add_argument(
        "--pipeline", type=Path, help="the pipeline's TOML; without it, features in, scores out"
    )
    build.add_argument("--data", type=Path, help="the .npz that `features` wrote: calibration and proof")
    build.add_argument(
        "--network",
        type=Path,
        help="a second model, asked where the trees are unsure: .keras, .onnx, .pt2; sees the sweep in dBm",
    )
    build.add_argument(
        "--agreement",
        type=float,
        default=0.99,
        metavar="SHARE",
        help="refuse a quantised network that decides as the float one on fewer held-out rows (%(default)s)",
    )
    build.add_argument("--targets", default="host,aarch64,armv7", help="comma-separated (%(default)s)")
    modes = "exact raw scores, leaves in fixed point, or the least flash; by default chosen for each target"
    build.add_argument("--mode", choices=["exact", "fixed", "compact"], help=modes)
    dumps = "print the trees, their thresholds' ranks, or the code"
    build.add_argument("--dump", choices=["forest", "ranks", "asm"], help=f"{dumps} of the first target")
    build.add_argument("-o", "--output", type=Path, metavar="B.edge", help="may be left out with --dump")
    build.set_defaults(run=_build)

    features = add("features", "scans to the training matrix")
    features.add_argument("scans", type=Path, metavar="SCANS", help="a .scans recording")
    features.add_argument("--pipeline", type=Path, required=True, help="the pipeline's TOML")
    features.add_argument("-o", "--output", type=Path, required=True, metavar="D.npz", help="the matrix")
    features.set_defaults(run=_features)

    inspect = add("inspect", "what is in a bundle: pipeline, cost, accuracy, sources")
    inspect.add_argument("--json", action="store_true", help="the whole manifest as one JSON document")
    inspect.add_argument("--dump", choices=["forest", "ranks", "asm"], help=f"{dumps}, instead")
    inspect.add_argument("--target", help="whose; the first of the bundle by default")
    inspect.set_defaults(run=_inspect)
    verify = add("verify", "parity on every target; exit 1 on any difference")
    verify.add_argument("--data", type=Path, help="the .npz that `features` wrote; a model alone needs none")
    verify.add_argument(
        "--rows", type=console.count, default=2000, help="at most this many of its rows (%(default)s)"
    )
    verify.set_defaults(run=_verify)
    extract = add("extract", "one target's artifact and header, for a build system")
    extract.add_argument("--target", required=True, help="one of the bundle's, as `inspect` lists them")
    extract.add_argument("-o", "--output", type=Path, required=True, metavar="DIR", help="the folder")
    extract.set_defaults(run=_extract)
    for command in (inspect, verify, extract):
        command.add_argument("bundle", type=Path, metavar="B.edge")
    return top


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; the exit code: 0 done, 1 check failed, 2 bad input, 3 no hardware."""
    return console.main(parser(), arguments)


if __name__ == "__main__":
    sys.exit(main())
