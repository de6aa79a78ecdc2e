"""Coverage-guided fuzzing of every decoder (atheris, libFuzzer): [--inputs N] [--only NAME] [--json]

Each input is fed after the protocol's opening, whole and in two pieces. Nothing may be raised, the events must be
the same, and what the decoder holds stays bounded. Inputs grow from whole frames and the protocol's tokens.
A million inputs a decoder take some minutes; a finding is kept as crash-* in the working folder.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]
SEEDS = 4
MAX_HELD = 1_000_000


def fuzz(name: str, inputs: int, corpus: str) -> None:
    """Fuzz one decoder in this process, which libFuzzer ends."""
    import atheris  # noqa: PLC0415

    with atheris.instrument_imports(include=["edge_runtime.scanners"], enable_loader_override=False):
        from tests.scanner_streams import STREAMS, Stream  # noqa: PLC0415
    from edge_runtime.scanners.base import Damage  # noqa: PLC0415
    from tests.test_scanner_proofs import held  # noqa: PLC0415

    stream: Stream = next(s for s in STREAMS if s.name == name)
    for k in range(SEEDS):
        Path(corpus, f"frames{k}").write_bytes(b"".join(f for f, _ in stream.frames(k + 1)))
    words = Path(corpus).with_suffix(".dict")
    words.write_text("".join('"' + "".join(f"\\x{b:02x}" for b in token) + '"\n' for token in stream.tokens))

    def one(data: bytes) -> None:
        cut = data[0] * len(data) // 256 if data else 0
        whole, parts = stream.make(), stream.make()
        expected = [*whole.feed(stream.opening + data, 0), *whole.end(0)]
        heard = [*parts.feed(stream.opening + data[:cut], 0), *parts.feed(data[cut:], 0)]
        if held(parts) > MAX_HELD:
            raise RuntimeError("the decoder keeps too much")
        if [*heard, *parts.end(0)] != expected:
            raise RuntimeError("pieces of another size gave other events")
        if any(type(event) is Damage and event.size <= 0 for event in expected):
            raise RuntimeError("damage of no bytes")

    options = [
        f"-runs={inputs}",
        "-max_len=2048",
        "-seed=1",
        "-verbosity=0",
        f"-dict={words}",
        "-print_final_stats=0",
    ]
    atheris.Setup([sys.argv[0], *options, corpus], one)
    atheris.Fuzz()


def in_a_process(name: str, inputs: int) -> str:
    """Fuzz one decoder; the end of what libFuzzer says where it has a finding."""
    with tempfile.TemporaryDirectory(prefix="edge-fuzz-") as folder:
        corpus = Path(folder, "corpus")
        corpus.mkdir()
        command = [sys.executable, "-m", "tests.bench.fuzz_scanners", "--inputs", str(inputs)]
        command += ["--child", name, str(corpus)]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    return done.stderr[-2000:] if done.returncode else ""


def main() -> int:
    """Fuzz all decoders, each in a process; 1 where one has a finding."""
    parser = argparse.ArgumentParser(description="Coverage-guided fuzzing of every decoder.")
    parser.add_argument("--inputs", type=int, default=1_000_000, help="a decoder (%(default)s)")
    parser.add_argument("--only", help="this decoder's stream, as in tests/scanner_streams.py")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--child", nargs=2, metavar=("NAME", "CORPUS"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        fuzz(args.child[0], args.inputs, args.child[1])
        return 0
    from tests.scanner_streams import STREAMS  # noqa: PLC0415

    rows = []
    for stream in STREAMS:
        if args.only not in (None, stream.name):
            continue
        began = time.monotonic()
        finding = in_a_process(stream.name, args.inputs)
        row = {"decoder": stream.name, "inputs": args.inputs, "seconds": time.monotonic() - began}
        rows.append(row | {"sound": not finding})
        if not args.json:
            print(f"{stream.name:<16}{args.inputs:>10,} inputs {row['seconds']:>7.1f} s", flush=True)
        if finding:
            print(finding, file=sys.stderr)
    if args.json:
        print(json.dumps({"rows": rows}, indent=2))
    return 0 if all(row["sound"] for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
