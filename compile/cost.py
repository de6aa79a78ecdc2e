"""What an artifact costs on a target: instructions per inference, flash, stack, and branches guessed wrong.

Instructions are counted exactly, on the emulated CPU, over given inputs. Mispredictions are those of a
simulated predictor (Valgrind's cachegrind) on the host's artifact: no board counts them for us, so they are a
guide to the code's predictability and never a figure of a board.
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from compile import elf, worst_case
from compile.emit import turns
from compile.emit.trees import TreeCode
from compile.emulate import ENDLESS, Call, Machine, Out
from compile.machine_code import Unreadable, decoder, functions
from compile.targets import Form, Target
from compile.targets import target as host_target
from compile.toolchain import LIBRARY, image, program
from compile.verify import MODEL_ENTRY_POINT, Inputs
from edge_runtime.errors import CheckFailed
from edge_runtime.verdict import VERDICT_STRUCT, Rung, Verdict


class Count(NamedTuple):
    """Instructions of one entry point over `calls` inputs."""

    mean: float
    maximum: int
    calls: int


@dataclass(frozen=True, slots=True)
class Cost:
    """One artifact on one target.

    infer: instructions of edge_infer over all scans; by_rung: over the scans that a rung answered.
    screen, model: instructions of edge_screen and edge_model_scores. None where the artifact has no such
    entry point, or there was no input for it.
    text_bytes, rodata_bytes: flash, on a Cortex-M with the compiler's runtime linked in.
    stack_bytes: the deepest that any of these calls wrote.
    """

    infer: Count | None
    by_rung: dict[str, Count]
    screen: Count | None
    model: Count | None
    text_bytes: int
    rodata_bytes: int
    stack_bytes: int

    def document(self) -> dict[str, Any]:
        """For a manifest: plain JSON values; `instructions_by_rung` holds the means, for the energy's sake."""

        def plain(count: Count | None) -> dict[str, Any] | None:
            return None if count is None else count._asdict()

        return {
            "infer": plain(self.infer),
            "instructions_by_rung": {name: count.mean for name, count in self.by_rung.items()},
            "screen": plain(self.screen),
            "model": plain(self.model),
            "text_bytes": self.text_bytes,
            "rodata_bytes": self.rodata_bytes,
            "stack_bytes": self.stack_bytes,
        }


def measure(artifact: bytes, target: Target, inputs: Inputs, endless: int = ENDLESS) -> Cost:
    """Count `artifact` over all of `inputs`, each call at most `endless` instructions.

    Raises EmulationFault where the code misbehaves.
    """
    machine = Machine(target, artifact, count=True, endless=endless)
    entry_points = elf.parse(artifact, what=target.name).exports
    verdict = Out(VERDICT_STRUCT.size)

    def scans(symbol: str) -> list[Call]:
        if symbol not in entry_points:
            return []
        return [machine.call(symbol, scan, len(scan) // 2, verdict) for scan in inputs.scans]

    infer, screen, model = scans("edge_infer"), scans("edge_screen"), []
    if MODEL_ENTRY_POINT in entry_points:
        scores = Out(8 * inputs.n_outputs)
        model = [machine.call(MODEL_ENTRY_POINT, row, scores) for row in inputs.rows]
    linked = elf.parse(image(artifact, target) if target.form is Form.FREESTANDING else artifact)
    return Cost(
        infer=_count(infer),
        by_rung=_by_rung(infer),
        screen=_count(screen),
        model=_count(model),
        text_bytes=linked.text_bytes,
        rodata_bytes=linked.rodata_bytes,
        stack_bytes=max((c.stack_bytes for c in [*infer, *screen, *model]), default=0),
    )


def bound(artifact: bytes, target: Target, code: TreeCode) -> dict[str, Any]:
    """For a manifest: the most instructions of the model's entry point on any row, or why that is not known.

    found: from the structure of what the emitter wrote, from the machine code and the marks of its loops, or both.
    """
    known = code.worst_instructions
    found = ["the emitted blocks"] if known is not None else []
    total = known or 0
    if known is None or code.turns:
        try:
            total += _from_machine_code(artifact, target, code)
        except Unreadable as e:
            return {"instructions": None, "because": str(e)}
        found.append("the machine code")
    return {"instructions": total, "found": f"from {' and '.join(found)}"}


def _from_machine_code(artifact: bytes, target: Target, code: TreeCode) -> int:
    """The most instructions of C and of small assembly: the model's entry point's, or its part's that is C."""
    data = image(artifact, target) if target.form is Form.FREESTANDING else artifact
    linked = elf.parse(data, what=target.name)
    marks = [m for s in linked.sections if s.name == turns.SECTION for m in turns.marks_of(s.content(data))]
    entry = linked.exports[MODEL_ENTRY_POINT]
    if code.worst_instructions is not None:
        (entry,) = (m.address for m in marks if m.kind == turns.Turn.ENTRY)
    graph = functions(decoder(target.machine, linked), entry)
    return worst_case.most_instructions(
        graph, entry, marks, {int(k): n for k, n in code.turns.items()}, thumb=linked.machine == elf.EM_ARM
    )


def check_bound(cost: dict[str, Any], name: str) -> None:
    """Raises CheckFailed where a counted call took more than the bound."""
    most, counted = cost["bound"]["instructions"], cost["model"]
    if most is not None and counted is not None and counted["maximum"] > most:
        raise CheckFailed(
            f"cost: {name}: a row took {counted['maximum']} instructions, of at most {most}; report this"
        )


def _count(calls: Iterable[Call]) -> Count | None:
    counts = [call.instructions for call in calls]
    return Count(sum(counts) / len(counts), max(counts), len(counts)) if counts else None


def _by_rung(calls: Iterable[Call]) -> dict[str, Count]:
    groups: dict[str, list[Call]] = defaultdict(list)
    for call in calls:
        if call.value == 0:
            verdict = Verdict._make(VERDICT_STRUCT.unpack(call.outputs[0]))
            groups[Rung(verdict.rung).name].append(call)
    counted = ((name, _count(group)) for name, group in sorted(groups.items()))
    return {name: count for name, count in counted if count is not None}


class Unavailable(NamedTuple):
    """A figure that could not be had, and why."""

    because: str


class Branches(NamedTuple):
    """Conditional and indirect branches of one call, mean, and those the simulated predictor got wrong."""

    executed: float
    mispredicted: float
    calls: int


_DRIVER = """\
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
int {symbol}(const void *in, {parameter}void *out);
int main(int argc, char **argv)
{{
    static double out[65536];
    static uint64_t in[{bytes} / 8 + 1];
    FILE *rows = fopen(argv[1], "rb");
    long calls = argc > 2 ? atol(argv[2]) : 0;
    while (rows && fread(in, {bytes}, 1, rows) == 1)
        if (calls-- > 0)
            {symbol}(in, {argument}out);
    return rows == NULL;
}}
"""


def branches(artifact: bytes, target: Target, symbol: str, rows: Sequence[bytes]) -> Branches | Unavailable:
    """Mispredicted branches per call of a scan's or the model's entry point, on the host's artifact.

    The difference between a run that calls and one that only reads the same rows, so nothing but the calls is
    in it. Unavailable where the machine has no Valgrind, or the artifact is not for it.
    """
    valgrind = shutil.which("valgrind")
    if valgrind is None:
        return Unavailable("no valgrind on this machine; apt-get install valgrind")
    if target is not host_target("host") or target.form is not Form.SHARED:
        return Unavailable(f"an artifact for {target.name} does not run on this machine")
    if not rows:
        return Unavailable("no input to run on")
    size = len(rows[0])
    model = symbol == MODEL_ENTRY_POINT
    source = _DRIVER.format(
        symbol=symbol,
        bytes=size,
        parameter="" if model else "uint32_t points, ",
        argument="" if model else f"{size // 2}, ",
    )
    with tempfile.TemporaryDirectory(prefix="edge-branches-") as folder:
        Path(folder, LIBRARY).write_bytes(artifact)
        driver = Path(folder, "driver")
        driver.write_bytes(program(source, target, artifact))
        driver.chmod(0o700)
        Path(folder, "rows").write_bytes(b"".join(rows))
        try:
            none, all_rows = (_cachegrind(valgrind, folder, calls) for calls in (0, len(rows)))
        except (OSError, subprocess.CalledProcessError, KeyError, ValueError) as e:
            return Unavailable(f"valgrind: {e}")
    executed, wrong = (
        sum(all_rows[n] - none[n] for n in names) / len(rows) for names in (("Bc", "Bi"), ("Bcm", "Bim"))
    )
    return Branches(executed, wrong, len(rows))


def host_branches(artifact: bytes, target: Target, inputs: Inputs) -> dict[str, Any]:
    """For a manifest: branches of the model's entry point on the host, or why there are none."""
    found = branches(artifact, target, MODEL_ENTRY_POINT, inputs.rows)
    return found._asdict()


def _cachegrind(valgrind: str, folder: str, calls: int) -> dict[str, int]:
    """Totals of one run by event: Bc conditional branches, Bi indirect ones, with m the mispredicted."""
    command = [
        valgrind,
        "--tool=cachegrind",
        "--cache-sim=no",
        "--branch-sim=yes",
        "--cachegrind-out-file=counts",
        "./driver",
        "rows",
        str(calls),
    ]
    # The environment lies on the stack, and where it ends moves what a predictor's tables are indexed by.
    subprocess.run(command, cwd=folder, env={"LC_ALL": "C"}, capture_output=True, check=True)
    lines = Path(folder, "counts").read_text(encoding="utf-8").splitlines()
    events = next(line for line in lines if line.startswith("events:")).split()[1:]
    totals = next(line for line in lines if line.startswith("summary:")).split()[1:]
    return dict(zip(events, map(int, totals), strict=True))
