"""Counts one Python function, or one whole program, on aarch64."""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

from edge_runtime.energy_ci.counting import plugin, read_counts
from edge_runtime.energy_ci.guest import Guest
from edge_runtime.errors import BadInput, HardwareUnavailable

WARM_UP, SETTLE, REPEATS = 24, 6, 15
"""Calls that warm up (the interpreter specialises its code), settle after a garbage collection, are counted."""
LAYOUTS = 5
"""Memory layouts that are tried before a count is called changed, or kept.

The same process repeats exactly. Another one, with another path or another module imported, lays out its memory
differently, so that other names collide in the interpreter's caches: worth up to 2.4 %, as seen here. So every
layout is drawn by lot (its number is the seed), and the least of a few is the code's own cost, to about 0.3 %.
"""

_GUEST_PROGRAM = """\
import gc, importlib, json, random, sys
from edge_runtime.energy_ci.marks import mark
function, setup, arguments, warm_up, settle, repeats, layout = json.loads(sys.argv[1])
scatter = random.Random(layout)  # whatever is imported from here on lands in holes between these
between = [bytes(scatter.randrange(1, 110)) for _ in range(30000)]
scatter.shuffle(between)
del between[15000:]
def find(name):
    module, _, path = name.partition(":")
    found = importlib.import_module(module)
    for part in path.split("."):
        found = getattr(found, part)
    return found
function = find(function)
if setup:
    arguments = find(setup)(*arguments)
for _ in range(warm_up):
    told = function(*arguments)
gc.collect()
gc.disable()
for _ in range(settle):
    told = function(*arguments)
mark(0)
mark(1)
for k in range(repeats):
    mark(2 * k + 2)
    told = function(*arguments)
    mark(2 * k + 3)
print(json.dumps(told if isinstance(told, dict) else {}))
"""


def count_function(
    guest: Guest,
    function: str,
    arguments: Sequence[Any] = (),
    setup: str | None = None,
    *,
    layouts: Sequence[int] = range(1),
) -> tuple[int, dict[str, Any]]:
    """Instructions of one call (the median of warm ones, without the counting's own), and what it told.

    function, setup: "module:name", importable in the guest. setup(*arguments) gives the function's arguments,
    uncounted. layouts: the least of these counts; see LAYOUTS. What the function returns last, if it is a dict,
    is handed on. Raises BadInput with the guest's last line where it fails.
    """
    counts = [_count_once(guest, function, arguments, setup, layout) for layout in layouts]
    return min(counts, key=lambda count: count[0])


def _count_once(
    guest: Guest, function: str, arguments: Sequence[Any], setup: str | None, layout: int
) -> tuple[int, dict[str, Any]]:
    task = json.dumps([function, setup, list(arguments), WARM_UP, SETTLE, REPEATS, layout])
    done = guest.run(["-c", _GUEST_PROGRAM, task], count=True)
    if done.status or done.counts is None:
        last = (done.stderr.strip().splitlines() or ["no word"])[-1]
        raise BadInput(f"counting {function}: failed on aarch64: {last}")
    between = done.counts.between
    calls = [between(2 * k + 2, 2 * k + 3) for k in range(REPEATS)]
    told: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return round(median(calls)) - between(0, 1), told


def count_program(command: Sequence[str], *, libraries: Path | None = None) -> int:
    """All instructions of an aarch64 program. libraries: the root its shared libraries are under.

    Raises BadInput where it fails, HardwareUnavailable where QEMU is missing.
    """
    emulator = shutil.which("qemu-aarch64")
    if emulator is None:
        raise HardwareUnavailable("counting: no qemu-aarch64; apt-get install qemu-user")
    root = ["-L", str(libraries)] if libraries else []
    with tempfile.TemporaryDirectory(prefix="edge-counts-") as folder:
        out = Path(folder, "counts")
        run = [emulator, "-seed", "1", "-plugin", f"{plugin()},out={out}", *root, *command]
        done = subprocess.run(run, capture_output=True, text=True, check=False)
        if done.returncode:
            raise BadInput(f"counting {command[0]}: exit {done.returncode}: {done.stderr.strip()[-200:]!r}")
        return read_counts(out).exit.instructions
