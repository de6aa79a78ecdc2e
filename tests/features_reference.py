"""The feature kernels again, from their definitions, in plain Python integers: the oracle of test_kernels.py.

Nothing is shared with the C or its generator: percentiles by sorting, positions by searching, ratios by floor
division of exact integers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import isqrt

from compile.kernels.catalogue import Value
from compile.pipeline import Pipeline

HELD = (1 << 24) - 1


class Sweep:
    """One sweep as the definitions see it."""

    def __init__(self, pipeline: Pipeline, power: Sequence[int]) -> None:
        self.power = list(power)
        self.n = len(power)
        self.low_edge = pipeline.contract.power_min_cdbm
        self.step = pipeline.contract.power_step_cdbm
        self.peak = max(power)
        self.at = self.power.index(self.peak)
        self.floor = self.percentile(pipeline.floor_permille)
        self.mean = sum(power) // self.n

    def percentile(self, permille: int) -> int:
        exact = sorted(self.power)[permille * (self.n - 1) // 1000]
        return exact - (exact - self.low_edge) % self.step

    def beside(self, offset: int) -> int:
        """The power at an offset from the peak; beyond the ends it is the floor."""
        k = self.at + offset
        return self.power[k] if 0 <= k < self.n else self.floor

    def reference(self, name: Value) -> int:
        return {"none": 0, "floor": self.floor, "peak": self.peak, "mean": self.mean}[str(name)]

    def local_maxima(self) -> list[int]:
        p = self.power
        return [k for k in range(1, self.n - 1) if p[k - 1] < p[k] >= p[k + 1]]


def toward_zero(numerator: int, denominator: int) -> int:
    size = abs(numerator) // denominator
    return size if numerator >= 0 else -size


def sides(side: Value, left: int, right: int) -> int:
    if side == "mean":
        return toward_zero(left + right, 2)
    choice = {"left": left, "right": right, "min": min(left, right), "max": max(left, right)}
    return abs(left - right) if side == "difference" else choice[str(side)]


def units(s: Sweep) -> list[int]:
    return [max(-127, min(127, (p - s.mean + 32) // 64)) for p in s.power]


def skew(s: Sweep) -> int:
    u = units(s)
    sigma_q8 = isqrt((sum(x * x for x in u) << 16) // s.n)
    if sigma_q8 == 0:
        return 0
    cube = sum(x**3 for x in u)
    size = min(((((abs(cube) << 8) // s.n) << 24) // sigma_q8**3), HELD)
    return size if cube >= 0 else -size


def kurtosis(s: Sweep) -> int:
    u = units(s)
    m2_q8 = (sum(x * x for x in u) << 8) // s.n
    m4_q8 = (sum(x**4 for x in u) << 8) // s.n
    return min((m4_q8 << 16) // m2_q8**2, HELD) if m2_q8 else 0


def texture(power: Sequence[int], lag: int, base: int) -> int:
    held = [max(p, base) for p in power]
    steps = [abs(held[k + lag] - held[k]) for k in range(len(held) - lag)]
    return min(16 * sum(steps) // len(steps), HELD) if steps else 0


def window(s: Sweep, radius: int) -> Sequence[int]:
    return s.power[max(s.at - radius, 0) : s.at + radius + 1]


def lobe(s: Sweep, p: Mapping[str, Value]) -> dict[int, int]:
    """Excess over the gate by offset from the peak."""
    base = s.floor + int(p["gate_cdb"])
    reach = range(-int(p["radius"]), int(p["radius"]) + 1)
    return {d: max(s.power[s.at + d] - base, 0) for d in reach if 0 <= s.at + d < s.n}


def share(e: Mapping[int, int], numerator: int, bits: int, sign: Value = "signed") -> int:
    area = sum(e.values())
    size = min((abs(numerator) << bits) // area, HELD) if area else 0
    return -size if numerator < 0 and sign == "signed" else size


def band(s: Sweep, p: Mapping[str, Value]) -> int:
    first, last = int(p["from"]), int(p["to"])
    value = []
    for sign in (-1, 1):
        ring = [s.at + sign * d for d in range(first, last + 1)]
        over = [s.power[k] - s.floor for k in ring if 0 <= k < s.n]
        if p["of"] == "max":
            value.append(max(over) if over else 0)
        else:
            value.append(toward_zero(sum(over), last - first + 1))
    found = sides(p["side"], *value)
    if p["side"] == "difference" or p["reference"] == "floor":
        return found
    return found + s.floor - s.peak


def width(s: Sweep, p: Mapping[str, Value]) -> int:
    level = s.peak - int(p["below_cdb"])
    left = right = 0
    while s.at - left - 1 >= 0 and s.power[s.at - left - 1] >= level:
        left += 1
    while s.at + right + 1 < s.n and s.power[s.at + right + 1] >= level:
        right += 1
    return left + right + 1 if p["side"] == "total" else sides(p["side"], left, right)


def second_peak(s: Sweep, p: Mapping[str, Value]) -> int:
    far = [k for k in s.local_maxima() if abs(k - s.at) >= int(p["guard"])]
    if not far:
        return s.peak - s.floor if p["of"] == "drop" else 0
    at = max(far, key=lambda k: (s.power[k], -k))
    if p["of"] == "offset":
        return abs(at - s.at)
    if p["of"] == "drop":
        return s.peak - s.power[at]
    return s.power[at] - min(s.power[min(at, s.at) : max(at, s.at) + 1])


def runs(above: Sequence[bool]) -> int:
    return sum(now and not before for before, now in zip([False, *above], above, strict=False))


def extent(above: Sequence[bool]) -> int:
    return len(above) - list(above).index(True) - list(reversed(above)).index(True) if any(above) else 0


def level_count(s: Sweep, kernel: str, p: Mapping[str, Value]) -> int:
    level = s.reference(p["reference"]) + int(p["offset_cdb"])
    above = [x >= level for x in s.power]
    if kernel == "local_maxima":
        return sum(above[k] for k in s.local_maxima())
    return {"occupancy": sum(above), "runs": runs(above), "extent": extent(above)}[kernel]


def roughness(s: Sweep, p: Mapping[str, Value], power: Sequence[int]) -> int:
    return texture(power, int(p["lag"]), s.floor + int(p["gate_cdb"]) if p["gate_cdb"] else -(1 << 15))


def lobe_shape(s: Sweep, kernel: str, p: Mapping[str, Value]) -> int:
    e = lobe(s, p)
    if kernel == "area":
        return sum(e.values()) // (2 * int(p["radius"]) + 1)
    weight = {"centroid": lambda d: d, "spread": abs, "asymmetry": lambda d: (d > 0) - (d < 0)}[kernel]
    bits = 10 if kernel == "asymmetry" else 4
    return share(e, sum(weight(d) * x for d, x in e.items()), bits, p.get("sign", "signed"))


def profile(s: Sweep, p: Mapping[str, Value]) -> int:
    offset = int(p["offset"])
    value = sides(p["side"], s.beside(-offset), s.beside(offset))
    return value if p["side"] == "difference" else value - s.reference(p["reference"])


def symmetry(s: Sweep, radius: int) -> int:
    return sum(abs(s.beside(d) - s.beside(-d)) for d in range(1, radius + 1)) // radius


def feature(s: Sweep, kernel: str, p: Mapping[str, Value]) -> int:
    """One feature of one sweep, by its definition."""
    table: dict[str, Callable[[], int]] = {
        "minimum": lambda: min(s.power) - s.reference(p["reference"]),
        "peak": lambda: s.peak - s.reference(p["reference"]),
        "floor": lambda: s.floor - s.reference(p["reference"]),
        "mean": lambda: s.mean - s.reference(p["reference"]),
        "percentile": lambda: s.percentile(int(p["permille"])) - s.reference(p["reference"]),
        "peak_index": lambda: s.at,
        "std": lambda: isqrt(sum((x - s.mean) ** 2 for x in s.power) // s.n),
        "skew": lambda: skew(s),
        "kurtosis": lambda: kurtosis(s),
        "roughness": lambda: roughness(s, p, s.power),
        "ripple": lambda: roughness(s, p, window(s, int(p["radius"]))),
        "width": lambda: width(s, p),
        "profile": lambda: profile(s, p),
        "band": lambda: band(s, p),
        "symmetry": lambda: symmetry(s, int(p["radius"])),
        "second_peak": lambda: second_peak(s, p),
    }
    table |= {k: lambda: level_count(s, kernel, p) for k in ("occupancy", "runs", "local_maxima", "extent")}
    table |= {k: lambda: lobe_shape(s, kernel, p) for k in ("centroid", "spread", "asymmetry", "area")}
    return table[kernel]()


def features(pipeline: Pipeline, power: Sequence[int]) -> list[int]:
    """All features of one sweep."""
    s = Sweep(pipeline, power)
    return [feature(s, f.kernel, f.params) for f in pipeline.features]
