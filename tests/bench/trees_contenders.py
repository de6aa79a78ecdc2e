"""The peers of bench_trees: their C, compiled as ours is, counted and timed as ours is."""

from __future__ import annotations

import ctypes
import hashlib
import json
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from treelite import gtil

from compile import elf, frontends
from compile.emulate import Machine, Out
from compile.frontends.treelite import deserialize
from compile.targets import target
from compile.toolchain import image
from tests.bench import trees_c, trees_models

ROOT = Path(__file__).parents[2]
SCRIPT = Path(__file__).with_name("trees_peers.py")
CACHE = ROOT / ".cache/bench_trees"
PEERS = ("tl2cgen", "tl2cgen-quantize", "m2cgen", "lleaves", "emlearn")
REQUIREMENTS = (
    "tl2cgen==1.0.0", "m2cgen==0.10.0", "lleaves==1.3.0", "llvmlite<0.45", "lightgbm", "scikit-learn", "setuptools",
    "emlearn==0.23.2",
)  # fmt: skip
TARGETS = ("aarch64", "cortex-m4", "x86_64")
COUNTED_ROWS = 64
NOTES = {"emlearn": "votes by majority on thresholds of 6 decimals: not scikit-learn's answer"}


@dataclass
class Row:
    """One contender on one model and target. instructions: the mean; worst_: the most seen; bound: of any row."""

    model: str
    contender: str
    target: str
    instructions: float | None = None
    worst_instructions: int | None = None
    bound: int | None = None
    mispredicted: float | None = None
    bytes: int | None = None
    nanoseconds: float | None = None
    build_s: float | None = None
    note: str = ""


def peers_environment() -> Path:
    """The Python of an environment with the peers; they need other versions than this project."""
    named = hashlib.sha256("\n".join(REQUIREMENTS).encode()).hexdigest()[
        :8
    ]  # others make another environment
    folder = CACHE / f"peers-{named}"
    python = folder / "bin/python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
        subprocess.run([str(python), "-m", "pip", "install", "-q", *REQUIREMENTS], check=True)
    return python


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


def peers(model: trees_models.Model, python: Path) -> Iterator[Row]:
    """Every peer on every target it is for; GTIL through Python, the only way it has."""
    outputs = model.outputs
    x, _, _ = trees_models.data(4096, 7)
    for peer in PEERS:
        folder = CACHE / f"{model.name}-{peer}"
        note, export_s = _export(
            peer, python, model.estimator if peer in {"m2cgen", "emlearn"} else model.path, folder
        )
        if note:
            yield Row(model.name, peer, "-", note=note)
            continue
        for name in ("x86_64",) if peer == "lleaves" else TARGETS:
            artifact, compile_s = compiled(sources(peer, folder, outputs), name, folder)
            row = Row(model.name, peer, name, build_s=export_s + compile_s, note=NOTES.get(peer, ""))
            if name == "x86_64":
                row.nanoseconds = nanoseconds(artifact, x)
            else:
                count(row, artifact, name, x[:COUNTED_ROWS], outputs)
            yield row
    loaded = deserialize(frontends.load(model.source).checkpoint)
    rows = x[:200].astype(loaded.input_type)
    seconds = []
    for i in range(len(rows)):
        started = time.perf_counter()
        gtil.predict(loaded, rows[i : i + 1], nthread=1, pred_margin=True)
        seconds.append(time.perf_counter() - started)
    yield Row(model.name, "gtil (Python)", "x86_64", nanoseconds=float(np.median(seconds)) * 1e9)


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
    if peer == "emlearn":
        return {"rf.h": texts["rf.h"], "entry.c": trees_c.EMLEARN.replace("OUTPUTS", str(outputs))}
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
