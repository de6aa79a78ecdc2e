"""Pipelines, scans and a stand-in model that several tests share."""

from __future__ import annotations

import itertools
from functools import cache
from typing import Any

import numpy as np

from compile.features import Int16
from compile.kernels.catalogue import KERNELS, Param
from compile.pipeline import Pipeline

NUMBERS = {
    "permille": (0, 500, 900, 1000),
    "offset_cdb": (-600, 0, 600),
    "below_cdb": (0, 300, 600, 2000),
    "radius": (1, 16, 128),
    "gate_cdb": (0, 600),
    "guard": (1, 3, 10),
    "offset": (1, 12, 130),
    "from": (1, 9, 65),
    "to": (127,),
    "lag": (1, 5),
}


def values(name: str, spec: Param) -> tuple[Any, ...]:
    return spec.choices or NUMBERS[name]


@cache
def everything(points: int) -> Pipeline:
    """Every kernel with every choice, and a few of the numbers: at most 256 features, spread over the products."""
    rows: list[dict[str, Any]] = []
    for kernel, spec in KERNELS.items():
        combos = list(itertools.product(*(values(k, p) for k, p in spec.params.items())))
        step = 7 if len(combos) > 40 else 1  # 7 is coprime to every count of choices: all of them come up
        for combo in combos[::step]:
            rows.append(
                {"name": f"f{len(rows)}", "kernel": kernel, **dict(zip(spec.params, combo, strict=True))}
            )
    return _over_all_powers(points, 430, rows)


def two_ranks(points: int, permille: int) -> Pipeline:
    """The floor and one percentile, so few that they are searched for where there are vectors."""
    rows = [
        {"name": "top", "kernel": "peak", "reference": "floor"},
        {"name": "ninth", "kernel": "percentile", "permille": 900, "reference": "floor"},
    ]
    return _over_all_powers(points, permille, rows)


def _over_all_powers(points: int, permille: int, features: list[dict[str, Any]]) -> Pipeline:
    contract = {
        "points": points,
        "start_hz": 0,
        "step_hz": 1,
        "power_min_cdbm": -32768,
        "power_max_cdbm": 32767,
        "power_step_cdbm": 33 + points % 5,
        "max_age_ms": 1,
    }
    return Pipeline.from_dict({"contract": contract, "floor": {"permille": permille}, "features": features})


def rows(points: int, count: int) -> Int16:
    """Noise with bursts, and the extremes of int16."""
    rng = np.random.default_rng(7)
    power = rng.normal(-10_000, 300, (count, points))
    for row in power:
        at, half = rng.integers(0, points), rng.integers(0, 20)
        row[max(at - half, 0) : at + half + 1] += rng.uniform(0, 5000)
    power[0] = rng.integers(-32768, 32768, points)
    power[1] = np.where(np.arange(points) % 2, -32768, 32767)
    power[2] = np.where(np.arange(points) == points - 1, 32767, -32768)
    power[3] = np.where(np.arange(points) == 0, 32767, -32768)
    return np.clip(np.rint(power), -32768, 32767).astype(np.int16)


UNDEFINED = (
    "signed-integer-overflow,shift-base,shift-exponent,integer-divide-by-zero,array-bounds,alignment,"
    "pointer-overflow,bool,unreachable"
)
TRAP = ("-Xclang", f"-fsanitize={UNDEFINED}", "-Xclang", f"-fsanitize-trap={UNDEFINED}")
"""Undefined behaviour becomes an instruction that no CPU has; past the driver, which switches sanitizers off."""
