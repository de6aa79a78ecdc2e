"""Builds one model for one target in a process of its own: prints seconds and peak memory, as JSON.

python -m tests.bench.trees_build MODEL TARGET COPIES       COPIES: the model's trees this many times
"""

from __future__ import annotations

import json
import resource
import sys
import time
from pathlib import Path

from treelite import Model

from compile import frontends
from compile.emit.trees import emit
from compile.frontends.treelite import deserialize
from compile.modes import alone
from compile.targets import target
from compile.toolchain import build


def main(model: str, name: str, copies: int) -> None:
    """Build and report."""
    source: object = Path(model)
    if copies > 1:
        checkpoint = frontends.load(Path(model)).checkpoint
        source = Model.concatenate([deserialize(checkpoint) for _ in range(copies)])
    started = time.perf_counter()
    forest = frontends.load(source).forest
    code = emit(forest, target(name), integer=False)
    artifact = build(alone(forest, code), target(name))
    wall = time.perf_counter() - started
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    # Not this process's ru_maxrss: that begins with what its parent had at the fork.
    status = Path("/proc/self/status").read_text()
    own = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM"))
    peak = max(own, used[1].ru_maxrss) / 1024
    print(json.dumps({"wall_s": wall, "cpu_s": sum(u.ru_utime + u.ru_stime for u in used), "peak_mb": peak,
                      "bytes": len(artifact), "style": code.style}))  # fmt: skip


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
