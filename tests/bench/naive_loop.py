"""The loop as it is usually written: pyserial, numpy, Treelite's GTIL, a JSON log. What bench_loop compares with.

Each feature is a function of the sweep that computes what it needs, once; arrays are used throughout; one JSON
line a scan is flushed. With `careful` as the last argument the same program is written with an eye on its cost:
what features share is computed once a sweep, and one that the screen answers never reaches the model.

It gives the verdicts of the bundle whose numbers it is given, and shares no code with it.

Usage: naive_loop.py MODEL.tl PIPELINE.json PORT SCANS LOG.jsonl [careful]
"""

from __future__ import annotations

import json
import sys
import time
import zlib

import numpy as np
import serial
import treelite

POINTS = 256
HEADER = b"$s\x10"  # 16 times 16 points follow
FRAME_BYTES = len(HEADER) + POINTS + 2


class Sweep:
    """One sweep in hundredths of a dBm, with what features are made of."""

    def __init__(self, codes: bytes, floor_permille: int) -> None:
        self.power = np.frombuffer(codes, np.uint8).astype(np.int32) * -50
        self.floor_permille = floor_permille

    def _peak_at(self) -> int:
        return int(np.argmax(self.power))

    def _peak(self) -> int:
        return int(np.max(self.power))

    def _floor(self) -> int:
        return int(np.percentile(self.power, self.floor_permille / 10, method="lower"))

    peak_at, peak, floor = property(_peak_at), property(_peak), property(_floor)

    def reference(self, name: str) -> int:
        """The power that others are given relative to."""
        return 0 if name == "none" else int(getattr(self, name))

    def at(self, index: int) -> int:
        """The power there; beyond the ends, the floor."""
        return int(self.power[index]) if 0 <= index < len(self.power) else self.floor


class CarefulSweep(Sweep):
    """The same, each computed once."""

    def __init__(self, codes: bytes, floor_permille: int) -> None:
        super().__init__(codes, floor_permille)
        self.peak_at, self.floor = self._peak_at(), self._floor()
        self.peak = int(self.power[self.peak_at])

    peak_at = peak = floor = 0


def peak(s: Sweep, reference: str) -> int:
    return s.peak - s.reference(reference)


def two_sides(left: int, right: int, side: str) -> int:
    both = {
        "min": min,
        "max": max,
        "mean": lambda a, b: int((a + b) / 2),
        "difference": lambda a, b: abs(a - b),
    }
    return int(both[side](left, right))


def band(s: Sweep, of: str, side: str, reference: str, **span: int) -> int:
    near, far = span["from"], span["to"]
    middle, floor = s.peak_at, s.floor
    sides = []
    for part in (
        s.power[max(0, middle - far) : max(0, middle - near + 1)],
        s.power[middle + near : middle + far + 1],
    ):
        if of == "max":
            sides.append(int(np.max(part)) - floor if len(part) else 0)
        else:
            sides.append(int(np.sum(part - floor) / (far - near + 1)))
    value = two_sides(*sides, side)
    return value if side == "difference" or reference == "floor" else value + floor - s.reference(reference)


def width(s: Sweep, below_cdb: int, side: str) -> int:
    assert side == "total"
    middle = s.peak_at
    lower = np.flatnonzero(s.power < s.power[middle] - below_cdb)
    cut = np.searchsorted(lower, middle)
    left = lower[cut - 1] if cut > 0 else -1
    right = lower[cut] if cut < len(lower) else len(s.power)
    return int(right - left - 1)


def occupancy(s: Sweep, reference: str, offset_cdb: int) -> int:
    return int(np.count_nonzero(s.power >= s.reference(reference) + offset_cdb))


def local_maxima(s: Sweep, reference: str, offset_cdb: int) -> int:
    inner = s.power[1:-1]
    maxima = (inner > s.power[:-2]) & (inner >= s.power[2:])
    return int(np.count_nonzero(maxima & (inner >= s.reference(reference) + offset_cdb)))


def profile(s: Sweep, offset: int, side: str, reference: str) -> int:
    middle = s.peak_at
    value = two_sides(s.at(middle - offset), s.at(middle + offset), side)
    return value if side == "difference" else value - s.reference(reference)


def spread(s: Sweep, radius: int, gate_cdb: int) -> int:
    middle = s.peak_at
    first = max(0, middle - radius)
    excess = np.maximum(s.power[first : middle + radius + 1] - (s.floor + gate_cdb), 0).astype(np.int64)
    total = int(np.sum(excess))
    distance = np.abs(np.arange(first, first + len(excess)) - middle)
    return int(np.dot(excess, distance)) * 16 // total if total else 0


def ripple(s: Sweep, radius: int, lag: int, gate_cdb: int) -> int:
    middle = s.peak_at
    near = s.power[max(0, middle - radius) : middle + radius + 1]
    if gate_cdb:
        near = np.maximum(near, s.floor + gate_cdb)
    steps = np.abs(near[lag:] - near[:-lag])
    return int(np.sum(steps)) * 16 // len(steps) if len(steps) else 0


KERNELS = {f.__name__: f for f in (peak, band, width, occupancy, local_maxima, profile, spread, ripple)}
"""What the demo's pipeline asks for. Another pipeline may need more."""


class Classifier:
    """Features, screen, model, confidence, novelty: the numbers are the bundle's."""

    def __init__(self, model: str, pipeline: str, careful: bool) -> None:
        self.sweep, self.screen_first = (CarefulSweep, True) if careful else (Sweep, False)
        self.model = treelite.Model.deserialize(model)
        with open(pipeline, encoding="utf-8") as file:
            fitted = json.load(file)
        self.classes = fitted["classes"]
        declared = fitted["pipeline"]
        self.floor_permille = declared["floor"]["permille"]
        self.features = []
        for feature in declared["features"]:
            params = {k: v for k, v in feature.items() if k not in ("name", "kernel")}
            self.features.append((KERNELS[feature["kernel"]], params))
        names = [feature["name"] for feature in declared["features"]]
        self.screen = fitted["screen"]
        self.screen_columns = [
            names.index(name) for name in (declared["screen"]["feature"], *declared["screen"]["guards"])
        ]
        self.margins = np.array([float.fromhex(m) for m in fitted["margins"]])
        self.confidence_q16 = fitted["confidence_q16"]
        self.min_confidence_q16 = fitted["min_confidence_q16"]
        self.min_margin = float.fromhex(fitted["min_margin"])
        self.novelty = {name: np.array(value) for name, value in fitted["novelty"].items()}

    def verdict(self, codes: bytes) -> dict[str, object]:
        """The answer to one sweep."""
        sweep = self.sweep(codes, self.floor_permille)
        features = np.array([kernel(sweep, **params) for kernel, params in self.features])
        screened = {"label": self.classes[self.screen["label"]], "margin": 0.0}
        if self.screen_first and self.screened(features):
            return screened
        answer = self.classified(features)
        return screened if self.screened(features) else answer

    def classified(self, features: np.ndarray) -> dict[str, object]:
        """The model's answer."""
        rows = features[np.newaxis].astype(np.float32)
        scores = treelite.gtil.predict(self.model, rows, nthread=1, pred_margin=True).reshape(-1)
        second, best = np.argsort(scores, kind="stable")[-2:]
        margin = float(scores[best] - scores[second])
        label = self.classes[best]
        if self.unsure(margin) or self.novel(features, best):
            label = "UNKNOWN"
        return {"label": label, "margin": margin}

    def screened(self, features: np.ndarray) -> bool:
        first, *guards = features[self.screen_columns].tolist()
        ranges = self.screen["guards"]
        return first < self.screen["threshold"] and all(
            low <= value <= high for value, (low, high) in zip(guards, ranges, strict=True)
        )

    def unsure(self, margin: float) -> bool:
        confidence_q16 = self.confidence_q16[np.searchsorted(self.margins, margin, side="right")]
        return confidence_q16 < self.min_confidence_q16 or margin < self.min_margin

    def novel(self, features: np.ndarray, best: int) -> bool:
        """Whether any decorrelated z-score is beyond the class's limit; in the bundle's integers."""
        n = self.novelty
        distance = features - n["centre"]
        u_q4 = np.sign(distance) * np.minimum(np.abs(distance) * n["inverse_q16"] >> 12, 2047)
        component_q4 = n["mix"] @ u_q4 >> n["mix_shift"]
        z_q4 = np.minimum(np.abs(component_q4 - n["mean_q4"][best]), 0xFFFF) * n["inverse_q12"][best] >> 12
        return int(np.max(z_q4)) * 256 // int(n["limit_q4"][best]) > 256


def frames(port: serial.Serial) -> object:
    """The codes of each whole sweep; resynchronises where a frame does not begin as one."""
    port.write(b"#\x04C0")
    data = b""
    while True:
        data += port.read(FRAME_BYTES - len(data))
        start = data.find(HEADER)
        if start < 0:
            data = data[-2:]
            continue
        data = data[start:]
        if len(data) == FRAME_BYTES:
            if data.endswith(b"\r\n"):
                yield data[len(HEADER) : -2]
                data = b""
            else:
                data = data[1:]


def main(model: str, pipeline: str, url: str, scans: int, log_path: str, careful: bool) -> None:
    """Classify `scans` sweeps."""
    classifier = Classifier(model, pipeline, careful)
    with serial.Serial(url, 500_000, timeout=5) as port, open(log_path, "w", encoding="utf-8") as log:
        for number, codes in enumerate(frames(port), 1):
            captured = time.time()
            row = classifier.verdict(codes)
            row |= {
                "time": captured,
                "latency_ms": (time.time() - captured) * 1000,
                "scan_crc32": zlib.crc32(codes),
            }
            log.write(json.dumps(row) + "\n")
            log.flush()
            if number == scans:
                return


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]), sys.argv[5], sys.argv[6:] == ["careful"])
