"""Counting under QEMU: exact for machine code, repeatable for Python, and clear about what is missing."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from compile.emulate import Machine
from compile.targets import TARGETS, Target
from compile.toolchain import build
from edge_runtime.energy_ci import counting, userland
from edge_runtime.energy_ci.guest import Guest
from edge_runtime.energy_ci.marks import BASE
from edge_runtime.errors import HardwareUnavailable

QEMU = {"aarch64": "qemu-aarch64", "armv7": "qemu-arm"}
WORK = r"""
.globl edge_work
.type edge_work, %function
.text
edge_work:
{body}
"""
BODIES = {  # two to begin, 900 times three, a store, two loads, the return
    "aarch64": """
    mov x0, #0
    mov x1, #900
1:  add x0, x0, x1
    subs x1, x1, #1
    b.ne 1b
    str x0, [sp, #-16]!
    ldr x1, [sp]
    ldr x0, [sp], #16
    ret
""",
    "armv7": """
    .syntax unified
    mov r0, #0
    mov r1, #900
1:  add r0, r0, r1
    subs r1, r1, #1
    bne 1b
    str r0, [sp, #-8]!
    ldr r1, [sp]
    ldr r0, [sp], #8
    bx lr
""",
}
EXPECTED = 2 + 900 * 3 + 3 + 1
DRIVERS = {  # marks 1 and 2 around a call: the call and two moves to set mark 2 up are counted with it
    "aarch64": """
.globl _start
_start: ldr x19, =MARK
    add x1, x19, #1
    mov x0, #0
    mov x8, #141
    svc #0
    bl edge_work
    add x1, x19, #2
    mov x0, #0
    svc #0
    mov x0, #0
    mov x8, #93
    svc #0
""",
    "armv7": """
.syntax unified
.globl _start
_start: ldr r5, =MARK
    add r1, r5, #1
    mov r0, #0
    mov r7, #96
    svc #0
    bl edge_work
    add r1, r5, #2
    mov r0, #0
    svc #0
    mov r0, #0
    mov r7, #1
    svc #0
""",
}
AROUND = 4  # bl, add, mov, svc


def _static_program(target: Target, folder: Path) -> Path:
    source = WORK.format(body=BODIES[target.name]) + DRIVERS[target.name].replace("MARK", hex(BASE))
    (folder / "main.S").write_text(source)
    command = [sys.executable, "-m", "ziglang", "cc", "-target", target.triple.split(".")[0]]
    command += [f"-mcpu={target.cpu}", "-nostdlib", "-static", "-o", "main", "main.S"]
    subprocess.run(command, cwd=folder, check=True, env=counting.build_environment())
    return folder / "main"


@pytest.mark.parametrize("name", sorted(QEMU))
def test_machine_code_is_counted_exactly_by_qemu_and_by_unicorn(name: str, tmp_path: Path) -> None:
    emulator = shutil.which(QEMU[name])
    if emulator is None:
        pytest.skip("needs qemu-user: apt-get install qemu-user")
    program = _static_program(TARGETS[name], tmp_path)
    out = tmp_path / "counts"
    command = [emulator, "-plugin", f"{counting.plugin()},out={out},memory=on", str(program)]
    subprocess.run(command, check=True)
    counts = counting.read_counts(out)
    assert counts.between(1, 2) == EXPECTED + AROUND
    before, after = counts.marks
    assert (after.stores - before.stores, after.loads - before.loads) == (1, 2)
    machine = Machine(
        TARGETS[name], build({"w.S": WORK.format(body=BODIES[name])}, TARGETS[name]), count=True
    )
    assert machine.call("edge_work").instructions == EXPECTED


MARKED = """
from edge_runtime.energy_ci.marks import mark
import platform, serial
for number in range(4):
    mark(number)
    total = sum(range(1000 if number != 2 else 2000))
mark(9)
print(platform.machine(), serial.VERSION)
"""


def test_python_on_arm_is_counted_the_same_each_time(arm64: Guest) -> None:
    arm64.run(["-c", MARKED])  # compiles what it imports
    first, second = (arm64.run(["-c", MARKED], count=True) for _ in range(2))
    assert first.stdout == "aarch64 3.5\n", first.stderr
    assert first.counts is not None
    assert second.counts is not None
    assert abs(first.counts.exit.instructions / second.counts.exit.instructions - 1) < 0.001
    once, twice = first.counts.between(1, 2), first.counts.between(2, 3)
    assert once == pytest.approx(second.counts.between(1, 2), rel=0.001)
    assert 1.7 * once < twice < 2.6 * once


def test_what_is_missing_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("EDGE_CACHE", str(tmp_path))
    monkeypatch.setenv("PATH", "")
    with pytest.raises(HardwareUnavailable, match="no qemu-aarch64; apt-get install qemu-user"):
        Guest([])
    monkeypatch.setattr(userland, "_PATH", "")
    with pytest.raises(HardwareUnavailable, match="no debootstrap; apt-get install debootstrap"):
        userland.root()
    assert not [path for path in (tmp_path / "arm64").iterdir() if path.is_dir()]


def test_a_guest_that_wrote_no_end_is_no_count(tmp_path: Path) -> None:
    (tmp_path / "counts").write_text("mark 1 10 0 0\n")
    with pytest.raises(HardwareUnavailable, match="never reached its end"):
        counting.read_counts(tmp_path / "counts")
    with pytest.raises(HardwareUnavailable, match="wrote no counts"):
        counting.read_counts(tmp_path / "nothing")
