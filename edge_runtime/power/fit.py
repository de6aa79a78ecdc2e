"""`edge-runtime fit`: from a lab session on a board to coefficients in its profile, with their error.

    energy = idle x time + busy x busy time + sum over classes of (energy an instruction x instructions)

Non-negative least squares (Lawson and Hanson 1974, scipy's `nnls`) over the session's windows; every fifth
window is held out and tells the error; a bootstrap over windows gives each coefficient's 95 % interval.
"""

from __future__ import annotations

import json
import math
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import hw_profiles
from edge_runtime import console
from edge_runtime.errors import BadInput, CheckFailed
from edge_runtime.power.interval import Interval
from edge_runtime.power.lab_session import CHAIN
from edge_runtime.power.linear import student_t
from hw_profiles.schema import Board, Quantity

CLASSES = ("integer", "load_store", "branch", "floating")
_HOLD_OUT, _RESAMPLES, _SEED = 5, 400, 20261124
LEAST_WINDOWS = 30


@dataclass(frozen=True, slots=True)
class Window:
    """One window of a session: seconds, joules, seconds a core was busy, instructions by class.

    kernel: what ran in it, where the session's work is of several kinds.
    """

    seconds: float
    energy_j: float
    busy_s: float
    integer: float = 0.0
    load_store: float = 0.0
    branch: float = 0.0
    floating: float = 0.0
    kernel: str = ""

    def row(self) -> list[float]:
        """What energy is linear in: seconds, busy seconds, billions of instructions by class."""
        return [self.seconds, self.busy_s, *(getattr(self, c) * 1e-9 for c in CLASSES)]


@dataclass(frozen=True, slots=True)
class Fit:
    """Coefficients with 95 % intervals. holdout_error: relative, root mean square, over the held-out windows.

    instruction_pj: all that an instruction costs beyond idle, its time included: of the session's mix, or where it
        ran several kernels, from the cheapest kernel's to the dearest's; None where the session counted none.
    """

    idle_mw: Interval
    busy_core_mw: Interval
    class_pj: dict[str, Interval]
    instruction_pj: Interval | None
    holdout_error: float
    windows: int


@dataclass(frozen=True, slots=True)
class About:
    """What a session says of itself in its first line; one of one's own making may leave it out.

    source: "measured", or "emulated" where no board was there. conditions: in words. meter_error: of all its
    joules, relative, 95 %.
    """

    source: str = "measured"
    conditions: str = ""
    meter_error: float = 0.0


def read_session(path: Path) -> tuple[list[Window], About]:
    """A session file: a JSON object a line, each with the fields of Window; before them, it may be, what it is.

    Raises BadInput where it is not one.
    """
    names = {f.name for f in fields(Window)}
    windows, about = [], About()
    try:
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            if not line.strip():
                continue
            data = json.loads(line)
            if number == 1 and isinstance(data, dict) and "about" in data:
                about = _about(data["about"])
            else:
                windows.append(_window(data, names, number))
    except OSError as e:
        raise BadInput(
            f"session {path}: {e.strerror}; give the file that scripts/bench_pi --session-windows wrote"
        ) from e
    except ValueError as e:
        raise BadInput(f"session {path}: {e}; each line holds {', '.join(sorted(names))}") from e
    if len(windows) < LEAST_WINDOWS:
        raise BadInput(f"session {path}: {len(windows)} windows are too few; record {LEAST_WINDOWS} or more")
    return windows, about


def _about(data: Any) -> About:
    try:
        told = [str(data[k]) for k in ("board", "meter", "date", "conditions")]
        error = data["meter_error"]
        if data["source"] not in ("measured", "emulated") or not (error is None or 0 <= error < 1):
            raise ValueError("line 1: source or meter_error is out of all reason")
        told += [f"doubt: {d}" for d in data["doubts"]]
        return About(data["source"], "; ".join(told), math.inf if error is None else float(error))
    except (KeyError, TypeError) as e:
        raise ValueError(f"line 1 is not what a session says of itself ({e})") from e


def _window(data: Any, names: set[str], number: int) -> Window:
    if not isinstance(data, dict) or not {"seconds", "energy_j", "busy_s"} <= set(data) <= names:
        raise ValueError(f"line {number} is no window")
    values = {name: _quantity(value, number) for name, value in data.items() if name != "kernel"}
    if values["seconds"] == 0:
        raise ValueError(f"line {number}: no time")
    return Window(**values, kernel=str(data.get("kernel", "")))


def _quantity(value: Any, number: int) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not value >= 0:
        raise ValueError(f"line {number}: {value!r} is no quantity of zero or more")
    return float(value)


def fit(windows: Sequence[Window], meter_error: float = 0.0) -> Fit:
    """Fit a session. meter_error: of all its joules, relative; every interval holds it.

    Raises BadInput where scipy is missing, CheckFailed where the windows are all alike.
    """
    try:
        import numpy as np  # noqa: PLC0415 (the lab's computer has it, the device need not)
        from scipy.optimize import nnls  # noqa: PLC0415
    except ImportError as e:
        raise BadInput("fit: needs scipy; pip install 'edge-runtime[compile]'") from e
    x = np.array([w.row() for w in windows])
    y = np.array([w.energy_j for w in windows])
    used = x.any(axis=0)
    if not used[1] or np.linalg.matrix_rank(x[:, used] / x[:, used].max(axis=0)) < used.sum():
        raise CheckFailed(
            "fit: the windows do not tell idle, busy and instructions apart; vary the work more"
        )
    # Relative weights: a window counts the same whether it is long or short.
    x, y = x[:, used] / y[:, None], y / y
    held_out = np.arange(len(y)) % _HOLD_OUT == 0
    trained, _ = nnls(x[~held_out], y[~held_out])
    error = float(np.sqrt(np.mean((x[held_out] @ trained - 1) ** 2)))
    rng = np.random.default_rng(_SEED)
    draws = rng.integers(0, len(y), (_RESAMPLES, len(y)))
    samples = np.zeros((_RESAMPLES, x.shape[1]))
    for k, draw in enumerate(draws):
        samples[k], _ = nnls(x[draw], y[draw])
    full = np.zeros((_RESAMPLES, len(used)))
    full[:, used] = samples

    # Resampled residuals are too small by the coefficients that were fitted to them, and the normal's tails too thin.
    freedom = len(y) - int(used.sum())
    wider = math.sqrt(len(y) / freedom) * student_t(0.975, freedom) / 1.96

    def interval(values: Any) -> Interval:
        middle = float(np.median(values))
        low, high = (middle + wider * (float(np.quantile(values, q)) - middle) for q in (0.025, 0.975))
        return Interval(max(low * (1 - meter_error), 0.0), high * (1 + meter_error))

    mixes = []
    for kernel in sorted({w.kernel for w in windows} - {CHAIN}):
        totals = np.array([w.row() for w in windows if w.kernel == kernel]).sum(axis=0)
        if counted := totals[2:].sum():
            mixes.append(interval(full[:, 1:] @ totals[1:] / counted * 1e3))
    return Fit(
        idle_mw=interval(full[:, 0] * 1e3),
        busy_core_mw=interval(full[:, 1] * 1e3),
        class_pj={c: interval(full[:, 2 + k] * 1e3) for k, c in enumerate(CLASSES) if used[2 + k]},
        instruction_pj=Interval(min(m.low for m in mixes), max(m.high for m in mixes)) if mixes else None,
        holdout_error=error,
        windows=len(windows),
    )


def fitted_board(
    board: Board, name: str, found: Fit, conditions: str, date: str, *, emulated: bool = False
) -> Board:
    """The board's profile with what was fitted in it, said so. emulated: there was no board, and that is said."""
    source = (
        f"fitted here on {date} over {found.windows} windows, hold-out error "
        f"{100 * found.holdout_error:.2g} %; {conditions}"
    )
    if emulated:
        source = f"EMULATED, not a board: {source}"

    def quantity(interval: Interval) -> Quantity:
        return Quantity(interval, "assumed" if emulated else "fitted", source)

    classes: dict[str, Any] = {f"{c}_pj": quantity(i) for c, i in found.class_pj.items()}
    return replace(
        board,
        name=name,
        title=f"{board.title} ({name})",
        aliases=(),
        idle_mw=quantity(found.idle_mw),
        busy_core_mw=quantity(found.busy_core_mw),
        instruction_pj=quantity(found.instruction_pj) if found.instruction_pj else board.instruction_pj,
        **classes,
    )


def to_toml(board: Board) -> str:
    """The board as a profile file that hw_profiles reads."""
    quantities = {f.name: v for f in fields(board) if isinstance(v := getattr(board, f.name), Quantity)}
    citations = sorted({q.source for q in quantities.values() if q.basis != "unknown"})
    keys = {text: f"s{number}" for number, text in enumerate(citations, 1)}
    lines = ['kind = "board"']
    lines += [f"{name} = {_string(getattr(board, name))}" for name in ("name", "title", "target")]
    lines += ["", *(_toml_row(name, q, keys) for name, q in quantities.items()), "", "[sources]"]
    lines += [f"{key} = {_string(text)}" for text, key in keys.items()]
    return "\n".join(lines) + "\n"


def _toml_row(name: str, q: Quantity, keys: dict[str, str]) -> str:
    if q.basis == "unknown":
        return f'{name} = "unknown"'
    ends = f"[{q.range.low:.6g}, {q.range.high:.6g}]"
    return f'{name} = {{ range = {ends}, basis = "{q.basis}", source = "{keys[q.source]}" }}'


def _string(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)  # a JSON string is a TOML basic string


def add_arguments(parser: ArgumentParser) -> None:
    """`edge-runtime fit`."""
    parser.add_argument(
        "session",
        type=Path,
        metavar="SESSION.jsonl",
        help="windows of a lab session, as scripts/bench_pi writes them",
    )
    parser.add_argument("--profile", default="zero2w", help="the board's profile to start from (%(default)s)")
    parser.add_argument("--name", required=True, help="the new profile's name")
    parser.add_argument(
        "--conditions",
        help="temperature, governor, supply, meter: in words; a session of scripts/bench_pi has its own",
    )
    parser.add_argument("--output", type=Path, metavar="FILE", help="default: your own profiles' folder")
    parser.add_argument("--json", action="store_true", help="print the coefficients as one JSON document")


def run(args: Namespace) -> int:
    """Fit, write the profile, print the coefficients."""
    board = hw_profiles.board(args.profile)
    if not args.name.replace("-", "").replace("_", "").isalnum():
        raise BadInput(f"profile name {args.name!r}: take letters, digits, - and _")
    windows, about = read_session(args.session)
    conditions = "; ".join(filter(None, (args.conditions, about.conditions)))
    if not conditions:
        raise BadInput(f"session {args.session}: says nothing of itself; give --conditions")
    if math.isinf(about.meter_error):
        raise BadInput(
            f"session {args.session}: its meter clipped, nothing is known; record it at a higher --max-amps"
        )
    found = fit(windows, about.meter_error)
    emulated = about.source == "emulated"
    date = time.strftime("%Y-%m-%d")
    text = to_toml(fitted_board(board, args.name, found, conditions, date, emulated=emulated))
    path = args.output or hw_profiles.user_folder() / "board" / f"{args.name}.toml"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    except OSError as e:
        raise BadInput(f"profile {path}: {e.strerror}; choose a writable --output") from e
    if args.json:
        console.print_json({**_document(found, path), "source": "emulated" if emulated else "fitted"})
    else:
        print("\n".join(_lines(found, path)))
        if emulated:
            print("of an EMULATED board: the profile says so, and its figures count as modelled")
        print(f"next: edge-runtime run --profile {args.name} ...")
    return 0


def _document(found: Fit, path: Path) -> dict[str, Any]:
    return {
        "idle_mw": found.idle_mw.to_json(),
        "busy_core_mw": found.busy_core_mw.to_json(),
        **{f"{c}_pj": i.to_json() for c, i in found.class_pj.items()},
        "instruction_pj": found.instruction_pj.to_json() if found.instruction_pj else None,
        "holdout_error": found.holdout_error,
        "windows": found.windows,
        "profile": str(path),
    }


def _lines(found: Fit, path: Path) -> Iterable[str]:
    yield f"idle            {found.idle_mw} mW"
    yield f"a busy core     {found.busy_core_mw} mW"
    for name, interval in found.class_pj.items():
        yield f"{name:<15} {interval} pJ"
    if found.instruction_pj is not None:
        yield f"an instruction  {found.instruction_pj} pJ, its time included"
    yield f"hold-out error  {100 * found.holdout_error:.2g} % over {found.windows} windows; written to {path}"
