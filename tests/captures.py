"""Captures made for tests: bursts of a keyed carrier in white noise, on disk as derive_scans takes them."""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from compile.demo.sweeps import SAMPLE_RATE_HZ, SWEEP_SAMPLES, Iq

FLOOR = 1e-4
"""Power of the noise that these captures hold, full scale 1."""


def keyed_carrier(seed: int, carrier_hz: float = 30_000, sweeps: int = 4) -> Iq:
    """Samples of `sweeps` sweeps' time: noise, and in the second half a carrier keyed at random, amplitude 0.5."""
    rng = np.random.default_rng(seed)
    n = sweeps * SWEEP_SAMPLES
    noise = np.sqrt(FLOOR / 2) * (rng.standard_normal(n) + 1j * rng.standard_normal(n))
    key = np.repeat(rng.integers(0, 2, n // 256), 256) * (np.arange(n) >= n // 2)
    return noise + 0.5 * key * np.exp(2j * np.pi * carrier_hz / SAMPLE_RATE_HZ * np.arange(n))


def cu8(iq: Iq) -> bytes:
    """Samples as a cu8 file holds them."""
    pairs = np.stack([iq.real, iq.imag], axis=1) * 127.5 + 127.5
    return np.clip(np.round(pairs), 0, 255).astype(np.uint8).tobytes()


def folder(path: Path, files: Mapping[str, tuple[str, bytes]]) -> Path:
    """Write captures, name -> (label, bytes), and their captures.csv."""
    (path / "captures").mkdir(parents=True)
    with (path / "captures.csv").open("w", newline="") as table:
        writer = csv.writer(table)
        writer.writerow(["file", "label", "session", "sample_rate_hz", "sha256", "source"])
        for name, (label, data) in files.items():
            (path / "captures" / name).write_bytes(data)
            digest = hashlib.sha256(data).hexdigest()
            writer.writerow([name, label, f"{label}/01", SAMPLE_RATE_HZ, digest, "made for a test"])
    return path
