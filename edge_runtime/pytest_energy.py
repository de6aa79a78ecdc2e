"""A pytest plugin: tests that fail when code costs more energy than it did.

    def test_answering_a_scan(energy):
        energy.count("my_device:answer", setup="my_device:make")

counts the function's instructions on aarch64 (under QEMU, the same every time), turns them into microjoules and
mission mAh with a board's profile, and compares them with the baseline file.

    pytest --energy-baseline FILE [--energy-tolerance 1%] [--energy-update] [--energy-profile NAME]
           [--energy-report REPORT.md]

The emulated machine sees the standard library and this package. For more, override the fixture `energy_guest`.

With a meter (`--energy-meter NAME`, on the device), `energy.compare(old, new)` measures instead, with three
answers: pass, fail, inconclusive (the test is skipped, saying so).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from time import monotonic
from typing import Any

import pytest

import hw_profiles
from edge_runtime.energy_ci import gate
from edge_runtime.energy_ci.call import LAYOUTS, count_function, count_program
from edge_runtime.energy_ci.gate import Answer, Row, Work
from edge_runtime.energy_ci.guest import Guest
from edge_runtime.errors import BadInput, EdgeError, HardwareUnavailable
from edge_runtime.power.base import Meter

PACKAGES = Path(__file__).resolve().parent.parent


def pytest_addoption(parser: pytest.Parser) -> None:
    """The options above."""
    group = parser.getgroup("energy", "energy regressions")
    group.addoption("--energy-baseline", type=Path, metavar="FILE", help="what work cost before")
    group.addoption("--energy-tolerance", default="1%", metavar="P%", help="rise that passes (%(default)s)")
    group.addoption("--energy-update", action="store_true", help="write what it costs now to the baseline")
    group.addoption("--energy-profile", default="zero2w", metavar="NAME", help="board (%(default)s)")
    group.addoption("--energy-report", type=Path, metavar="FILE", help="write the table as Markdown")
    group.addoption("--energy-meter", metavar="NAME", help="measure with this meter; see edge-runtime meters")


def pytest_configure(config: pytest.Config) -> None:
    """Read the options; a bad one ends pytest with one line."""
    try:
        config.stash[_GATE] = Gate(config)
    except EdgeError as e:
        raise pytest.UsageError(str(e)) from e


def tolerance_of(text: str) -> float:
    """ "1%" or "0.01" as 0.01. Raises BadInput for anything else."""
    try:
        value = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    except ValueError:
        value = -1.0
    if not 0 <= value < 1:
        raise BadInput(f"energy tolerance {text!r}: not a share; give one like 1%")
    return value


class Gate:
    """The run's options and rows."""

    def __init__(self, config: pytest.Config) -> None:
        option = config.getoption
        self.path: Path | None = option("--energy-baseline")
        self.update: bool = option("--energy-update")
        self.tolerance = tolerance_of(option("--energy-tolerance"))
        self.mission = hw_profiles.mission(option("--energy-profile"))
        self.report: Path | None = option("--energy-report")
        self.meter: str | None = option("--energy-meter")
        self.rows: list[Row] = []
        self.measured: list[str] = []
        self.baseline: Mapping[str, Work] = {}
        if self.update and self.path is None:
            raise BadInput("--energy-update: which file? give --energy-baseline FILE")
        if self.path is not None and (self.path.exists() or not self.update):
            self.baseline = gate.load_baseline(self.path)

    def row(self, name: str, work: Work) -> Row:
        """Work beside its baseline."""
        return Row(name, work, self.baseline.get(name), self.tolerance)


_GATE = pytest.StashKey[Gate]()


class Energy:
    """The fixture: counts work, compares it, and fails the test where it rose."""

    def __init__(self, of: Gate, node: str, guest: Callable[[], Guest], meter: Callable[[], Meter]) -> None:
        self._gate, self._node, self._guest, self._meter = of, node, guest, meter

    def count(
        self,
        function: str,
        *arguments: Any,
        setup: str | None = None,
        name: str | None = None,
        inferences: float = 0,
        wakeups: float = 0,
    ) -> Work:
        """One call of a Python function, "module:name", on aarch64.

        setup: a function whose result, a sequence, becomes the arguments; uncounted. A dict that the function
        returns may tell its own `inferences` and `wakeups`. name: in the baseline; the test's own by default.
        """

        def counted(layouts: Sequence[int]) -> Work:
            instructions, told = self._or_skip(
                lambda: count_function(self._guest(), function, arguments, setup, layouts=layouts)
            )
            return Work(instructions, told.get("inferences", inferences), told.get("wakeups", wakeups))

        work, row_name = counted(range(1)), name or self._node
        if self._gate.update or self._gate.row(row_name, work).to_be_sure:
            other = counted(range(1, LAYOUTS))
            work = min(work, other, key=lambda w: w.instructions)
        return self.record(work, row_name)

    def count_command(self, *command: str, name: str | None = None, libraries: Path | None = None) -> Work:
        """One run of a whole aarch64 program (a static ELF, or with the root of its `libraries`)."""
        return self.record(Work(self._or_skip(lambda: count_program(command, libraries=libraries))), name)

    def count_python(self, *arguments: str, name: str | None = None) -> Work:
        """One run of `python3 arguments...` on aarch64, start-up and all."""

        def counted() -> int:
            guest = self._guest()
            guest.run(list(arguments))  # once for the bytecode of what it imports
            done = guest.run(list(arguments), count=True)
            if done.status or done.counts is None:
                raise BadInput(f"python3 {arguments[0]}: exit {done.status}: {done.stderr.strip()[-200:]!r}")
            return done.counts.exit.instructions

        return self.record(Work(self._or_skip(counted)), name)

    def record(self, work: Work, name: str | None = None) -> Work:
        """Compare work counted elsewhere (a replayed trace, another emulator)."""
        of = self._gate
        row = of.row(name or self._node, work)
        of.rows.append(row)
        if of.path is not None and not of.update and row.answer is Answer.FAIL:
            cells = gate.table([row], of.mission)
            pytest.fail(f"energy rose: {row.name}: {row.why}\n\n{gate.as_text(cells)}", pytrace=False)
        return work

    def compare(
        self,
        old: Callable[[], object],
        new: Callable[[], object],
        *,
        windows: int = 5,
        seconds: float = 10.0,
        clock: Callable[[], float] = monotonic,
    ) -> tuple[Answer, Any]:
        """Measure two ways of one work, in interleaved windows; joules a call, idle power and all.

        Fails the test where the new way costs more than the tolerance, skips it where that cannot be told.
        """
        meter = self._meter()
        ratios = []
        for _ in range(windows):
            before, after = (_joules_a_call(meter, work, seconds, clock) for work in (old, new))
            ratios.append(after / before)
        answer, interval = gate.judge(ratios, self._gate.tolerance)
        told = f"{self._node}: {answer.value}: new / old = {interval} (95 %), {meter.name}"
        self._gate.measured.append(told)
        if answer is Answer.FAIL:
            pytest.fail(f"energy rose: {told}", pytrace=False)
        if answer is Answer.INCONCLUSIVE:
            pytest.skip(told)
        return answer, interval

    def _or_skip(self, count: Callable[[], Any]) -> Any:
        try:
            return count()
        except HardwareUnavailable as e:
            pytest.skip(str(e))


def _joules_a_call(
    meter: Meter, work: Callable[[], object], seconds: float, clock: Callable[[], float]
) -> float:
    calls, end, begun_j = 0, clock() + seconds, meter.read().energy_j
    while clock() < end:
        work()
        calls += 1
    return (meter.read().energy_j - begun_j) / calls


@pytest.fixture(scope="session")
def energy_meter(request: pytest.FixtureRequest) -> Iterator[Callable[[], Meter]]:
    """Opens the meter of --energy-meter; override it to supply one of your own."""
    opened: list[Meter] = []

    def meter() -> Meter:
        from edge_runtime.power.meters import open_meter  # noqa: PLC0415 (only where there is one)

        name = request.config.stash[_GATE].meter
        if name is None:
            pytest.skip("measuring needs --energy-meter NAME")
        if not opened:
            opened.append(open_meter(name))
            if opened[0].unavailable:
                pytest.skip(f"meter {name}: unavailable, because {opened[0].unavailable}")
        return opened[0]

    yield meter
    for one in opened:
        one.close()


@pytest.fixture(scope="session")
def energy_guest() -> Guest:
    """The emulated machine; override it to put more on its path."""
    try:
        return Guest([PACKAGES])
    except HardwareUnavailable as e:
        pytest.skip(str(e))


@pytest.fixture
def energy(request: pytest.FixtureRequest, energy_meter: Callable[[], Meter]) -> Energy:
    """Counts and compares; see the module."""

    def guest() -> Guest:  # built only for tests that count on it
        found: Guest = request.getfixturevalue("energy_guest")
        return found

    return Energy(request.config.stash[_GATE], request.node.name, guest, energy_meter)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """A worker of pytest-xdist hands its rows over; otherwise write baseline and report."""
    of = session.config.stash.get(_GATE, None)
    if of is None:
        return
    output = getattr(session.config, "workeroutput", None)
    if output is not None:
        output["energy"] = ([[row.name, asdict(row.now)] for row in of.rows], of.measured)
        return
    if of.update and of.path is not None and of.rows:
        gate.save_baseline(of.path, {**of.baseline, **{row.name: row.now for row in of.rows}})
    if of.report is not None:
        of.report.write_text(gate.as_markdown(gate.table(of.rows, of.mission)), encoding="utf-8")


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Take a worker's rows (pytest-xdist)."""
    of = node.config.stash[_GATE]
    rows, measured = getattr(node, "workeroutput", {}).get("energy", ([], []))
    of.rows += [of.row(name, Work(**now)) for name, now in rows]
    of.measured += measured


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """The table, where there is one."""
    of = config.stash.get(_GATE, None)
    if of is None or not (of.rows or of.measured):
        return
    terminalreporter.section(f"energy (modelled for {of.mission.board.title})")
    if of.rows:
        terminalreporter.write_line(gate.as_text(gate.table(_worst_first(of.rows), of.mission)))
    if of.update:
        terminalreporter.write_line(f"written to {of.path}")
    for line in of.measured:
        terminalreporter.write_line(line)


def _worst_first(rows: Sequence[Row]) -> list[Row]:
    return sorted(rows, key=lambda row: (row.answer is not Answer.FAIL, row.name))
