"""From IQ samples to one power sweep, coded as an RF Explorer codes it.

A swept receiver is imitated by its result, a peak detector and a max-hold: overlapping Hann frames of 8.2 ms
(resolution bandwidth 176 Hz at -3 dB, narrower than an RF Explorer's), the largest power of each point's
eight bins, the largest over the 131 ms of a sweep. A real sweeper visits its points one after another; it can
miss a short burst, or catch it at some points only, where this cannot. Its max-hold needs several sweeps.

0 dBFS, a tone that just fills the converter, is written as 0 dBm: the captures' absolute power is unknown.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edge_runtime.scan import Axis

SAMPLE_RATE_HZ = 250_000
CENTRE_HZ = 433_920_000
POINTS = 256
MAX_SAMPLES = 10 * SAMPLE_RATE_HZ
FRAME = 2048
HOP = FRAME // 2
SWEEP_SAMPLES = 32_768
SWEEP_US = SWEEP_SAMPLES * 1_000_000 // SAMPLE_RATE_HZ
BINS_PER_POINT = FRAME // POINTS
BIN_HZ = SAMPLE_RATE_HZ / FRAME

AXIS = Axis(CENTRE_HZ - SAMPLE_RATE_HZ // 2, round(SAMPLE_RATE_HZ / POINTS), POINTS)
"""The exact step is 976.5625 Hz; an RF Explorer reports whole hertz."""

_WINDOW = np.hanning(FRAME + 1)[:-1]
_TONE_GAIN = float(_WINDOW.sum()) ** 2
NOISE_GAIN = float((_WINDOW**2).sum()) / _TONE_GAIN
"""Mean power of white noise in one bin, as a share of its power over the whole band."""

Iq = NDArray[np.complex128]
Power = NDArray[np.float64]


def read_iq(data: bytes) -> Iq:
    """Samples of a cu8 file, full scale 1, its DC offset removed.

    A trailing odd byte is left out, and so is what follows MAX_SAMPLES.
    """
    data = data[: 2 * MAX_SAMPLES]
    raw = np.frombuffer(data[: len(data) // 2 * 2], np.uint8).astype(np.float64)
    iq = np.empty(len(raw) // 2, np.complex128)
    iq.real, iq.imag = raw[0::2] / 127.5 - 1, raw[1::2] / 127.5 - 1
    if len(iq):
        iq -= iq.mean()
    return iq


def fine_frames(iq: Iq) -> Power:
    """Power of each frame in each bin, shape (frames, FRAME), bins in order of rising frequency."""
    view = np.lib.stride_tricks.sliding_window_view(iq, FRAME)[::HOP]
    bins = np.abs(np.fft.fft(view * _WINDOW, axis=1)) ** 2 / _TONE_GAIN
    return np.asarray(np.fft.fftshift(bins, axes=1))


def to_points(fine: Power) -> Power:
    """The largest of the eight bins around each point's frequency, shape (frames, POINTS)."""
    centred = np.roll(fine, BINS_PER_POINT // 2, axis=1)
    return np.asarray(centred.reshape(len(fine), POINTS, BINS_PER_POINT).max(axis=2))


def frames(iq: Iq) -> Power:
    """Power of each frame at each point, shape (frames, POINTS), points in order of rising frequency."""
    return to_points(fine_frames(iq))


def codes(power: Power) -> bytes:
    """One byte a point, -2 x dBm, from power relative to full scale; clipped to 0 .. -127.5 dBm."""
    dbm = 10 * np.log10(np.maximum(power, 1e-13))
    return bytes(np.clip(np.round(-2 * dbm), 0, 255).astype(np.uint8))


def sweep(iq: Iq) -> bytes:
    """The codes of one sweep over `iq`, which holds at least FRAME samples."""
    return codes(frames(iq).max(axis=0))
