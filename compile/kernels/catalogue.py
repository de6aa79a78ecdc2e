"""The feature kernels that a pipeline file may name: their parameters, what they share, their C expression.

A kernel's expression reads `w->s` (struct edge_sweep) and the shared results that it names as needs; the
emitter (emit/pipeline.py) computes each need once a scan, whichever features ask for it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

Value = int | str
Params = Mapping[str, Value]


class Param(NamedTuple):
    """A parameter: a whole number `low` .. `high`, or one of `choices`; required where it has no default."""

    low: int = 0
    high: int = 0
    choices: tuple[str, ...] = ()
    default: Value | None = None


class Need(NamedTuple):
    """A result that features share: `percentile` (permille), `floor`, `mean`, `square`, `skirt` (drop, cdB),
    `lobe` (radius, gate above the floor in cdB), `second` (guard)."""

    stage: str
    key: tuple[int, ...] = ()


class Term(NamedTuple):
    """One feature in C: what has to be there first, and the expression."""

    needs: tuple[Need, ...]
    value: str


class Kernel(NamedTuple):
    """A kernel: what it measures (for people), its parameters, and its C."""

    text: str
    params: Mapping[str, Param]
    term: Callable[[Params], Term]


FLOOR = Need("floor")
MEAN = Need("mean")
SQUARE = Need("square")
_POINTS = 4095
_CDB = 30000
_REFERENCE = Param(choices=("none", "floor", "mean", "peak"), default="none")
_ABOVE = {"reference": Param(choices=("floor", "peak", "none")), "offset_cdb": Param(-_CDB, _CDB)}
_GATE = Param(0, _CDB, default=0)
_RADIUS = Param(1, 128)
_SIGN = Param(choices=("signed", "absolute"), default="signed")
_LAG = Param(1, _POINTS, default=1)


def _level(p: Params) -> tuple[tuple[Need, ...], str]:
    """A level `offset_cdb` over the floor or the peak (so below it where negative), or just so many cdBm."""
    base = {"floor": "w->s.floor + ", "peak": "w->s.peak + ", "none": ""}[str(p["reference"])]
    return ((FLOOR,) if p["reference"] == "floor" else (), f"{base}({p['offset_cdb']})")


def _relative(needs: tuple[Need, ...], value: str, reference: Value) -> Term:
    """`value`, an absolute power, less the reference."""
    extra = {"floor": (FLOOR,), "mean": (MEAN,)}.get(str(reference), ())
    return Term((*needs, *extra), value if reference == "none" else f"{value} - w->s.{reference}")


def _over_floor(value: str, reference: Value) -> Term:
    """`value`, a power over the floor, relative to the floor or the peak."""
    return Term((FLOOR,), value if reference == "floor" else f"{value} + w->s.floor - w->s.peak")


def _two_sides(side: Value, left: str, right: str) -> str:
    """Both sides of the peak as one number; means are rounded towards zero."""
    return {
        "left": left,
        "right": right,
        "min": f"edge_min({left}, {right})",
        "max": f"edge_max({left}, {right})",
        "mean": f"({left} + {right}) / 2",
        "difference": f"edge_abs({left} - {right})",
    }[str(side)]


_SIDE = Param(choices=("left", "right", "min", "max", "mean", "difference"), default="mean")


def _profile(p: Params) -> Term:
    left, right = (f"edge_{side}(&w->s, {p['offset']})" for side in ("left", "right"))
    value = _two_sides(p["side"], left, right)
    if p["side"] == "difference":
        return Term((FLOOR,), value)
    return Term((FLOOR,), f"{value} - w->s.{p['reference']}")


def _band(p: Params) -> Term:
    left, right = (f"edge_{p['of']}_{side}(&w->s, {p['from']}, {p['to']})" for side in ("left", "right"))
    value = _two_sides(p["side"], left, right)
    return Term((FLOOR,), value) if p["side"] == "difference" else _over_floor(value, p["reference"])


def _width(p: Params) -> Term:
    need = Need("skirt", (int(p["below_cdb"]),))
    left, right = (f"w->{side}_{p['below_cdb']}" for side in ("left", "right"))
    value = {
        "total": f"{left} + {right} + 1",
        "left": left,
        "right": right,
        "difference": f"edge_abs({left} - {right})",
    }[str(p["side"])]
    return Term((need,), f"(int32_t)({value})" if p["side"] == "total" else value)


def _lobe(p: Params) -> tuple[Need, str]:
    radius, gate = int(p["radius"]), int(p["gate_cdb"])
    return Need("lobe", (radius, gate)), f"&w->lobe_{radius}_{gate}"


def _signed(p: Params, value: str) -> str:
    return f"edge_abs({value})" if p["sign"] == "absolute" else value


def _lobe_kernel(function: str) -> Callable[[Params], Term]:
    def term(p: Params) -> Term:
        need, lobe = _lobe(p)
        return Term((FLOOR, need), _signed(p, f"{function}({lobe})"))

    return term


def _spread(p: Params) -> Term:
    need, lobe = _lobe(p)
    return Term((FLOOR, need), f"edge_spread_q4({lobe})")


def _area(p: Params) -> Term:
    need, lobe = _lobe(p)
    return Term((FLOOR, need), f"edge_area({lobe}, {p['radius']})")


def _level_kernel(function: str) -> Callable[[Params], Term]:
    def term(p: Params) -> Term:
        needs, level = _level(p)
        return Term(needs, f"{function}(&w->s, {level})")

    return term


def _base(p: Params) -> tuple[tuple[Need, ...], str]:
    """The level that roughness looks from: `gate_cdb` over the floor, or everything where it is not given."""
    return ((), "INT16_MIN") if p["gate_cdb"] == 0 else ((FLOOR,), f"w->s.floor + {p['gate_cdb']}")


def _roughness(p: Params) -> Term:
    needs, base = _base(p)
    return Term(needs, f"edge_roughness_q4(&w->s, {p['lag']}, {base})")


def _ripple(p: Params) -> Term:
    needs, base = _base(p)
    return Term(needs, f"edge_ripple_q4(&w->s, {p['radius']}, {p['lag']}, {base})")


def _second(p: Params) -> Term:
    need = Need("second", (int(p["guard"]),))
    return Term((FLOOR, need), f"edge_second_{p['of']}(&w->s, w->second_{p['guard']})")


def _percentile(p: Params) -> Term:
    return _relative(
        (Need("percentile", (int(p["permille"]),)),), f"w->percentile_{p['permille']}", p["reference"]
    )


_BAND = {
    "from": Param(1, _POINTS),
    "to": Param(1, _POINTS),
    "of": Param(choices=("mean", "max")),
    "side": _SIDE,
    "reference": Param(choices=("floor", "peak"), default="floor"),
}
_WINDOW = {"radius": _RADIUS, "gate_cdb": _GATE}


def _power(text: str, value: str, *needs: Need) -> Kernel:
    """A kernel that is one shared power, less a reference."""
    return Kernel(text, {"reference": _REFERENCE}, lambda p: _relative(needs, value, p["reference"]))


KERNELS: Mapping[str, Kernel] = {
    "minimum": Kernel(
        "lowest power", {"reference": _REFERENCE}, lambda p: _relative((), "w->s.minimum", p["reference"])
    ),
    "peak": Kernel(
        "highest power", {"reference": _REFERENCE}, lambda p: _relative((), "w->s.peak", p["reference"])
    ),
    "peak_index": Kernel(
        "first point that has the highest power", {}, lambda _: Term((), "(int32_t)w->s.peak_at")
    ),
    "floor": Kernel(
        "the noise floor",
        {"reference": _REFERENCE},
        lambda p: _relative((FLOOR,), "w->s.floor", p["reference"]),
    ),
    "percentile": Kernel(
        "power that so many permille of the points do not exceed",
        {"permille": Param(0, 1000), "reference": _REFERENCE},
        _percentile,
    ),
    "mean": Kernel(
        "mean power", {"reference": _REFERENCE}, lambda p: _relative((MEAN,), "w->s.mean", p["reference"])
    ),
    "std": Kernel("standard deviation", {}, lambda _: Term((MEAN, SQUARE), "edge_std(&w->s)")),
    "skew": Kernel("skewness, 8 fraction bits", {}, lambda _: Term((MEAN,), "edge_skew_q8(&w->s)")),
    "kurtosis": Kernel("kurtosis, 8 fraction bits", {}, lambda _: Term((MEAN,), "edge_kurtosis_q8(&w->s)")),
    "roughness": Kernel(
        "mean step between points `lag` apart, 4 fraction bits", {"lag": _LAG, "gate_cdb": _GATE}, _roughness
    ),
    "ripple": Kernel(
        "roughness within `radius` of the peak",
        {"radius": Param(1, _POINTS), "lag": _LAG, "gate_cdb": _GATE},
        _ripple,
    ),
    "occupancy": Kernel("points at a level or above", _ABOVE, _level_kernel("edge_occupancy")),
    "runs": Kernel("unbroken runs of points at a level or above", _ABOVE, _level_kernel("edge_runs")),
    "local_maxima": Kernel("local maxima at a level or above", _ABOVE, _level_kernel("edge_local_maxima")),
    "extent": Kernel(
        "points from the first to the last at a level or above", _ABOVE, _level_kernel("edge_extent")
    ),
    "width": Kernel(
        "points around the peak, without a gap, less than so far below it",
        {
            "below_cdb": Param(0, _CDB),
            "side": Param(choices=("total", "left", "right", "difference"), default="total"),
        },
        _width,
    ),
    "profile": Kernel(
        "power at a distance from the peak",
        {
            "offset": Param(1, _POINTS),
            "side": _SIDE,
            "reference": Param(choices=("floor", "peak"), default="peak"),
        },
        _profile,
    ),
    "band": Kernel("mean or highest power at a range of distances from the peak", _BAND, _band),
    "symmetry": Kernel(
        "mean difference of the two sides of the peak",
        {"radius": Param(1, _POINTS)},
        lambda p: Term((FLOOR,), f"edge_symmetry(&w->s, {p['radius']})"),
    ),
    "centroid": Kernel(
        "centre of the power over the floor, points from the peak, 4 fraction bits",
        {**_WINDOW, "sign": _SIGN},
        _lobe_kernel("edge_centroid_q4"),
    ),
    "asymmetry": Kernel(
        "share of the power over the floor that is right of the peak, less that left of it, 10 fraction bits",
        {**_WINDOW, "sign": _SIGN},
        _lobe_kernel("edge_asymmetry_q10"),
    ),
    "spread": Kernel(
        "mean distance of the power over the floor from the peak, 4 fraction bits", _WINDOW, _spread
    ),
    "area": Kernel("mean power over the floor within `radius` of the peak", _WINDOW, _area),
    "second_peak": Kernel(
        "highest local maximum at least `guard` points from the peak",
        {"guard": Param(1, _POINTS), "of": Param(choices=("offset", "drop", "valley"))},
        _second,
    ),
}
