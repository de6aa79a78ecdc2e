"""Trees beside the peers that compile them: instructions, bytes, nanoseconds and build time, in one run.

Every contender is compiled by the same cross compiler at -O2 and called one row at a time, floats in, doubles
out. Instructions are counted on emulated CPUs (no board); bytes are .text and .rodata; nanoseconds are medians
on this machine. TL2cgen and m2cgen run soft doubles on a Cortex-M4F where the model's numbers are doubles.
m2cgen's probabilities are left out (exp is the identity), lleaves is for the host only, emlearn compiles no
boosted trees. "fixed" and "compact" keep every decision on the proof's rows; "exact" keeps every bit.
"""

from __future__ import annotations

import argparse
import ctypes
import hashlib
import json
import platform
import resource
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from treelite import gtil

from compile import elf, frontends
from compile.emit.trees import emit
from compile.emulate import Machine, Out
from compile.frontends.treelite import deserialize
from compile.quantise import decide, fixed
from compile.targets import target
from compile.toolchain import build, image
from compile.witness import witness_rows
from edge_runtime import console
from tests.bench import trees_c, trees_models
from tests.tree_mutations import mutants

ROOT = Path(__file__).parents[2]
SCRIPT = Path(__file__).with_name("trees_peers.py")
CACHE = ROOT / ".cache/bench_trees"
PEERS = ("tl2cgen", "tl2cgen-quantize", "m2cgen", "lleaves")
REQUIREMENTS = (
    "tl2cgen==1.0.0", "m2cgen==0.10.0", "lleaves==1.3.0", "llvmlite<0.45", "lightgbm", "scikit-learn", "setuptools",
)  # fmt: skip
TARGETS = ("aarch64", "cortex-m4", "x86_64")
COUNTED_ROWS = 64
HEADER = """\
#include <stdint.h>
#define EDGE_API __attribute__((visibility("default")))
EDGE_API int edge_model_scores(const float *features, double *raw_scores);
"""


@dataclass
class Row:
    """One contender on one model and target."""

    model: str
    contender: str
    target: str
    instructions: float | None = None
    worst_instructions: int | None = None
    bytes: int | None = None
    nanoseconds: float | None = None
    build_s: float | None = None
    note: str = ""


def main(arguments: Sequence[str]) -> int:
    """Run the bench."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--rows", type=int, default=100_000, help="rows of the proof on the host")
    parser.add_argument("--model", action="append", help="only these")
    parser.add_argument("--skip-peers", action="store_true")
    options = parser.parse_args(arguments)
    python = None if options.skip_peers else peers_environment()
    table: list[Row] = []
    goals: list[dict[str, Any]] = []
    for model in trees_models.train(CACHE):
        if options.model and model.name not in options.model:
            continue
        mine = list(ours(model, options.rows, goals))
        theirs = [] if python is None else list(peers(model, python, mine))
        table += mine + theirs
        goals += compare(model.name, mine, theirs)
        goals += builds(model)
    if not options.model:
        goals += large(CACHE / "lightgbm-mc.txt")
        goals.append(mutation_check(CACHE / "lightgbm-mc.txt"))
    document = {
        "goals": goals,
        "rows": [{k: v for k, v in vars(r).items() if v not in (None, "")} for r in table],
        "machine": f"{platform.machine()}, {platform.processor() or 'unknown'}, Python {platform.python_version()}",
    }
    if options.json:
        console.print_json(document)
    else:
        show(document)
    return 0


def peers_environment() -> Path:
    """The Python of an environment with the peers; they need other versions than this project."""
    python = CACHE / "peers/bin/python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", str(CACHE / "peers")], check=True)
        subprocess.run([str(python), "-m", "pip", "install", "-q", *REQUIREMENTS], check=True)
    return python


def ours(model: trees_models.Model, rows: int, goals: list[dict[str, Any]]) -> Iterator[Row]:
    """Our code in every mode that a target is for, proven on the way."""
    x, _, _ = trees_models.data(rows, 7)
    raw = np.asarray(model.raw(x), np.float64).reshape(rows, -1)
    forest = frontends.load(model.source).forest
    few = x[:COUNTED_ROWS]
    modes = (("x86_64", "exact"), ("aarch64", "exact"), ("armv7", "exact"), ("cortex-m4", "exact"),
             ("cortex-m4", "fixed"), ("cortex-m4", "compact"), ("x86_64", "compact"))  # fmt: skip
    kept = fixed(forest, x, raw)
    different = {"exact": 0, "compact": 0}
    for name, mode in modes:
        started = time.perf_counter()
        code = emit(frontends.load(model.source).forest, target(name), mode=mode, integer=False,
                    quantised=None if mode == "exact" else kept)  # fmt: skip
        artifact = build({"m.c": HEADER + code.c, **code.files}, target(name))
        row = Row(model.name, mode, name, build_s=time.perf_counter() - started, note=code.style)
        if name == "x86_64":
            got = run_native(artifact, x, raw.shape[1])
            if mode == "exact":
                different["exact"] += int((got != raw).any(1).sum())
                row.nanoseconds = nanoseconds(artifact, x)
            else:
                different["compact"] += int((decide(got) != decide(raw)).sum())
        else:
            emulated = count(
                row,
                artifact,
                name,
                few if name == "cortex-m4" and mode == "exact" else x[:2000],
                raw.shape[1],
            )
            want = raw if mode == "exact" else code.forest.raw_scores(x[:2000])
            different["exact" if mode == "exact" else "compact"] += int(
                (emulated != want[: len(emulated)]).any(1).sum()
            )
        yield row
    for mode, name in (("exact", "rows with another bit"), ("compact", "rows with another decision")):
        goals.append(goal(f"{model.name}: {mode}, {name}", different[mode], "rows", 0, less=True))


def run_native(artifact: bytes, x: NDArray[np.float32], outputs: int) -> NDArray[np.float64]:
    """Raw scores of all rows, on this machine."""
    scores = _load(artifact).edge_model_scores
    out = np.empty((len(x), outputs))
    row_at, out_at = x.ctypes.data, out.ctypes.data
    for i in range(len(x)):
        scores(ctypes.c_void_p(row_at + i * x.strides[0]), ctypes.c_void_p(out_at + i * out.strides[0]))
    return out


def _load(artifact: bytes) -> ctypes.CDLL:
    path = CACHE / f"native-{time.monotonic_ns()}.so"
    path.write_bytes(artifact)
    library = ctypes.CDLL(str(path))
    path.unlink()
    return library


def nanoseconds(artifact: bytes, x: NDArray[np.float32]) -> float:
    """Median nanoseconds of one row through C."""
    timer = _load(compiled({"timer.c": trees_c.TIMER}, "x86_64", CACHE / "timer")[0])
    timer.measure.restype = ctypes.c_double
    library = _load(artifact)
    rows = np.ascontiguousarray(x[:4096])
    return min(
        timer.measure(library.edge_model_scores, rows.ctypes.data_as(ctypes.c_void_p), ctypes.c_long(len(rows)),
                      ctypes.c_long(rows.shape[1]), ctypes.c_long(50_000))
        for _ in range(3)
    )  # fmt: skip


def count(row: Row, artifact: bytes, name: str, x: NDArray[np.float32], outputs: int) -> NDArray[np.float64]:
    """Fill in instructions and bytes; raw scores."""
    machine = Machine(target(name), artifact, count=True)
    calls = [machine.call("edge_model_scores", r.tobytes(), Out(8 * max(outputs, 8))) for r in x]
    row.instructions = float(np.mean([c.instructions for c in calls[:COUNTED_ROWS]]))
    row.worst_instructions = max(c.instructions for c in calls)
    linked = elf.parse(image(artifact, target(name)) if name.startswith("cortex") else artifact, what=name)
    row.bytes = linked.text_bytes + linked.rodata_bytes
    return np.array([np.frombuffer(c.outputs[0])[:outputs] for c in calls])


def peers(model: trees_models.Model, python: Path, mine: list[Row]) -> Iterator[Row]:
    """Every peer on every target it is for; GTIL through Python, the only way it has."""
    outputs = 4 if "mc" in model.name else 1
    x, _, _ = trees_models.data(4096, 7)
    del mine
    for peer in PEERS:
        folder = CACHE / f"{model.name}-{peer}"
        note, export_s = _export(peer, python, model.path, folder)
        if note:
            yield Row(model.name, peer, "-", note=note)
            continue
        for name in ("x86_64",) if peer == "lleaves" else TARGETS:
            artifact, compile_s = compiled(sources(peer, folder, outputs), name, folder)
            row = Row(model.name, peer, name, build_s=export_s + compile_s)
            if name == "x86_64":
                row.nanoseconds = nanoseconds(artifact, x)
            else:
                count(row, artifact, name, x[:COUNTED_ROWS], outputs)
            yield row
    loaded = deserialize(frontends.load(model.source).checkpoint)
    rows = x[:200].astype(loaded.input_type)
    taken = []
    for i in range(len(rows)):
        started = time.perf_counter()
        gtil.predict(loaded, rows[i : i + 1], nthread=1, pred_margin=True)
        taken.append(time.perf_counter() - started)
    yield Row(model.name, "gtil (Python)", "x86_64", nanoseconds=float(np.median(taken)) * 1e9)


def _export(peer: str, python: Path, model: Path, folder: Path) -> tuple[str, float]:
    """Have a peer write its C: why it could not, or "", and the CPU seconds it took. Kept from run to run."""
    stamp = folder / f"{hashlib.sha256(model.read_bytes()).hexdigest()[:16]}.json"
    if not stamp.exists():
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        done = subprocess.run(
            [str(python), "-W", "ignore", str(SCRIPT), peer, str(model), str(folder)],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        note = (done.stderr.strip().splitlines() or ["failed"])[-1][:100] if done.returncode else ""
        folder.mkdir(parents=True, exist_ok=True)
        stamp.write_text(json.dumps([note, after.ru_utime - before.ru_utime]))
    note, seconds = json.loads(stamp.read_text())
    return note, seconds


def sources(peer: str, folder: Path, outputs: int) -> dict[str, str]:
    """A peer's C with an entry point like ours; lleaves' object is linked as it is."""
    texts = {p.name: p.read_text() for p in folder.glob("*.[ch]") if p.name not in {"entry.c", "main.h"}}
    if peer == "lleaves":
        return {"entry.c": trees_c.LLEAVES}
    if peer == "m2cgen":
        return {"main.h": texts["main.c"], "entry.c": trees_c.M2CGEN}
    single = "float* result" in texts["header.h"]
    wrapper = trees_c.TL2CGEN.replace("RESULT", "float" if single else "double").replace(
        "OUTPUTS", str(outputs)
    )
    return texts | {"entry.c": wrapper}


_FLAGS = {
    "x86_64": ["-shared", "-fPIC"],
    "aarch64": ["-target", "aarch64-linux-gnu.2.17", "-mcpu=cortex_a53", "-shared", "-fPIC"],
    "cortex-m4": ["-target", "thumb-freestanding-eabihf", "-mcpu=cortex_m4+vfp4d16sp", "-ffreestanding", "-r",
                  "-ffunction-sections", "-fno-unwind-tables", "-fno-asynchronous-unwind-tables"],
}  # fmt: skip


def compiled(texts: dict[str, str], name: str, folder: Path) -> tuple[bytes, float]:
    """C that no house rule holds for (it may use libc): the same compiler, the same -O2; and CPU seconds."""
    work = folder / name
    work.mkdir(parents=True, exist_ok=True)
    stamp = work / f"{hashlib.sha256(repr((texts, trees_c.STUBS)).encode()).hexdigest()[:16]}.json"
    if stamp.exists():
        return (work / "out").read_bytes(), json.loads(stamp.read_text())
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    for file, text in texts.items():
        (work / file).write_text(text)
    stubs = (
        trees_c.STUBS
        if name == "cortex-m4"
        else {"math.h": trees_c.STUBS["math.h"]}
        if "main.h" in texts
        else {}
    )
    for file, text in stubs.items():
        (work / file).write_text(text)
    units = [str(work / f) for f in texts if f.endswith(".c")]
    extra = [str(folder / "model.o")] if (folder / "model.o").exists() else []
    done = subprocess.run(
        [sys.executable, "-m", "ziglang", "cc", "-O2", "-w", "-fno-sanitize=all", "-fvisibility=hidden",
         *_FLAGS[name],
         f"-I{work}", *([] if name == "cortex-m4" else ["-lm"]), *units, *extra,
         "-o", str(work / "out")],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        raise SystemExit(f"bench_trees: {folder.name} for {name}: {done.stderr[:500]}")
    seconds = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - before.ru_utime
    stamp.write_text(json.dumps(seconds))
    return (work / "out").read_bytes(), seconds


def _built(model: Path, name: str, copies: int) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-m", "tests.bench.trees_build", str(model), name, str(copies)],
        capture_output=True, text=True, check=True, cwd=ROOT,
    )  # fmt: skip
    document: dict[str, Any] = json.loads(done.stdout)
    return document


def builds(model: trees_models.Model) -> Iterator[dict[str, Any]]:
    """Build time, all of a process but its imports, in CPU seconds: the wall's depend on who else is there."""
    for name in (*TARGETS, "armv7") if model.path == model.source else ():
        built = _built(model.path, name, 1)
        yield goal(f"{model.name}: build for {name}, CPU", built["cpu_s"], "s", 1, less=True)
        yield goal(f"{model.name}: build for {name}, memory", built["peak_mb"], "MB", 300, less=True)


def large(model: Path) -> Iterator[dict[str, Any]]:
    """10,000 trees: the benchmark's 400, 25 times."""
    for name in TARGETS:
        built = _built(model, name, 25)
        yield goal(f"10,000 trees: build for {name}, CPU", built["cpu_s"], "s", 30, less=True)


def mutation_check(model: Path) -> dict[str, Any]:
    """100 codes with one wrong threshold, leaf or child each: how many show on the witness rows."""
    forest = frontends.load(model).forest
    rows = witness_rows(forest, 100_000)
    expected = forest.raw_scores(rows)
    code = emit(forest, target("aarch64"), integer=False)
    caught = 0
    for what, mutant in mutants(code, 100):
        machine = Machine(
            target("aarch64"), build({"m.c": HEADER + mutant.c, **mutant.files}, target("aarch64"))
        )
        out = Out(8 * forest.n_outputs)
        for row, want in zip(rows, expected, strict=True):
            if machine.call("edge_model_scores", row.tobytes(), out).outputs[0] != want.tobytes():
                caught += 1
                break
        else:
            print(f"not caught: {what}", file=sys.stderr)
    return goal("mutants caught, of 100", caught, "mutants", 100, less=False)


def goal(name: str, value: float, unit: str, limit: float, *, less: bool) -> dict[str, Any]:
    """One line of the document."""
    met = value <= limit if less else value >= limit
    return {"name": name, "value": round(value, 3), "unit": unit, "goal": limit, "met": bool(met)}


def compare(model: str, mine: list[Row], theirs: list[Row]) -> Iterator[dict[str, Any]]:
    """The goals' ratios."""

    def find(rows: list[Row], contender: str, name: str) -> Row | None:
        return next((r for r in rows if (r.contender, r.target) == (contender, name)), None)

    def ratio(what: str, ours: Row | None, peer: str, field: str, least: float) -> Iterator[dict[str, Any]]:
        other = find(theirs, peer, ours.target) if ours else None
        if ours and other and getattr(other, field) and getattr(ours, field):
            times = getattr(other, field) / getattr(ours, field)
            yield goal(f"{model}: {what} than {peer}", times, "times", least, less=False)

    exact, m4 = find(mine, "exact", "aarch64"), find(mine, "fixed", "cortex-m4")
    compact, host = find(mine, "compact", "cortex-m4"), find(mine, "exact", "x86_64")
    for peer, least in (("tl2cgen", 5), ("tl2cgen-quantize", 3), ("m2cgen", 3)):
        yield from ratio("aarch64, exact, fewer instructions", exact, peer, "instructions", least)
    yield from ratio("aarch64, exact, fewer bytes", exact, "tl2cgen", "bytes", 2)
    for peer, least in (("tl2cgen", 20), ("tl2cgen-quantize", 10)):
        yield from ratio("Cortex-M4F, fixed, fewer instructions", m4, peer, "instructions", least)
    yield from ratio("Cortex-M4F, compact, fewer bytes", compact, "tl2cgen", "bytes", 12)
    yield from ratio("Cortex-M4F, compact, fewer instructions", compact, "tl2cgen", "instructions", 3)
    for peer in PEERS:
        yield from ratio("x86-64, one row through C, faster", host, peer, "nanoseconds", 1)


def show(document: dict[str, Any]) -> None:
    """The table and the goals, for people."""
    for row in document["rows"]:
        cells = (f"{v:,.0f}" if isinstance(v := row.get(k), float | int) else "-" for k in
                 ("instructions", "worst_instructions", "bytes", "nanoseconds"))  # fmt: skip
        built = f"{row['build_s']:.2f} s" if "build_s" in row else "-"
        print(f"{row['model']:14} {row['contender']:17} {row['target']:10}", *(f"{c:>9}" for c in cells),
              f"{built:>9}  {row.get('note', '')}")  # fmt: skip
    for line in document["goals"]:
        mark = "met   " if line["met"] else "missed"
        print(f"{mark} {line['name']}: {line['value']} {line['unit']} (goal {line['goal']})")


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
