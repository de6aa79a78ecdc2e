"""Recorded bursts in a receiver that is not theirs.

Each kind of device was recorded in one or two sessions on one receiver, so a model can tell the device by the
receiver's background: its noise level, its filter's slope, its spurious lines, other transmitters. A remixed
sweep keeps the burst and little else: the burst is cut out in frequency, the receiver's lines are notched, it
is moved by up to 50 kHz, scaled at random, and put in fresh white noise that lies at least 10 dB above the
capture's own floor. What a receiver did to the burst itself (clipping) stays.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from compile.demo.sweeps import (
    BIN_HZ,
    FRAME,
    HOP,
    NOISE_GAIN,
    POINTS,
    SAMPLE_RATE_HZ,
    SWEEP_SAMPLES,
    Iq,
    Power,
    codes,
    fine_frames,
    frames,
    to_points,
)

SHIFT_HZ = 50_000
EDGE_HZ = 110_000
"""A burst's peak is not moved beyond this, so that it does not fold over the band's edge."""
REACH_HZ = 45_000
"""What lies farther than this from a burst's peak is no part of it; the widest kind here spans 40 kHz."""
TAPER_HZ = 5_000
ABOVE_FLOOR_DB = 10.5
"""The half decibel covers that the floor is estimated from the quietest blocks, a little low."""
SNR_DB = (20.0, 50.0)
"""Peak of the burst over the mean of the noise in one bin; as high as ABOVE_FLOOR_DB allows."""
GAIN_DB = (-40.0, 0.0)
QUIET_DB = 6.0
"""A sweep of plain noise peaks 3 dB over its median; a signal-free one must stay below this."""
LINE_DB = 7.0
"""A line stands this far out of the background around it."""
LINE_BINS = 3
"""A line takes this many bins to either side: a Hann window's main lobe and one more."""
_BLOCK = 1024
_ROUNDING = 2 / 12 / 127.5**2


@dataclass(frozen=True, slots=True)
class Stretches:
    """What a capture holds. Starts are in samples.

    active: where a sweep holds a burst.
    quiet: where it holds none within REACH_HZ of the capture's strongest.
    silent: where it holds none at all, the receiver's own lines apart.
    floor: power of the receiver's noise over the whole band, full scale 1.
    peak_hz: the strongest burst's offset from the centre.
    lines_hz: the receiver's spurious lines, as offsets from the centre.
    """

    active: tuple[int, ...] = ()
    quiet: tuple[int, ...] = ()
    silent: tuple[int, ...] = ()
    floor: float = 0.0
    peak_hz: float = 0.0
    lines_hz: tuple[float, ...] = ()


def decibels(db: float) -> float:
    """A power ratio from decibels."""
    return float(10 ** (db / 10))


def noise_floor(iq: Iq) -> float:
    """Power of the receiver's noise: the mean of the quietest twentieth of the capture's 4 ms blocks.

    Never less than an 8-bit converter's own rounding adds.
    """
    blocks = len(iq) // _BLOCK
    power = (np.abs(iq[: blocks * _BLOCK].reshape(blocks, _BLOCK)) ** 2).mean(axis=1)
    return max(_ROUNDING, float(np.sort(power)[: max(1, blocks // 20)].mean()))


def find_lines(fine: Power, peak_hz: float) -> tuple[float, ...]:
    """Offsets in hertz of narrow lines in the quietest tenth of the frames, off the burst's own carrier."""
    energy = fine.sum(axis=1)
    background = fine[np.argsort(energy, kind="stable")[: max(3, len(fine) // 10)]].mean(axis=0)
    around = np.lib.stride_tricks.sliding_window_view(np.pad(background, 32, mode="wrap"), 65)
    stands_out = background > np.median(around, axis=1) * decibels(LINE_DB)
    offsets = (np.flatnonzero(stands_out) - FRAME // 2) * BIN_HZ
    return tuple(float(f) for f in offsets if abs(f - peak_hz) > TAPER_HZ)


def find_stretches(iq: Iq) -> Stretches:
    """Sweeps that hold a burst, and sweeps that hold none; all empty where the capture is shorter than one.

    A sweep is active when, the receiver's lines apart, its peak clears the lowest SNR_DB after the remix and it
    holds at least half as much energy as the capture's best.
    """
    if len(iq) < SWEEP_SAMPLES:
        return Stretches()
    floor = noise_floor(iq)
    fine = fine_frames(iq)
    _, peak_hz = peak_of(to_points(fine).max(axis=0))
    lines_hz = find_lines(fine, peak_hz)
    power = to_points(fine * ~_at(lines_hz))
    length = (SWEEP_SAMPLES - FRAME) // HOP + 1
    held = np.lib.stride_tricks.sliding_window_view(power, length, axis=0).max(axis=2)
    energy = np.convolve(power.sum(axis=1), np.ones(length), "valid")
    loud = held.max(axis=1) >= floor * NOISE_GAIN * decibels(ABOVE_FLOOR_DB + SNR_DB[0])
    active = loud & (energy >= 0.5 * energy.max())
    near = np.abs(_POINTS_HZ - peak_hz) < REACH_HZ
    silent = ~loud & _flat(held) & (held.min(axis=1) > 0)
    return Stretches(
        _starts(active), _starts(~loud & _flat(held[:, near])), _starts(silent), floor, peak_hz, lines_hz
    )


_POINTS_HZ = (np.arange(POINTS) - POINTS // 2) * (SAMPLE_RATE_HZ / POINTS)


def _flat(held: Power) -> NDArray[np.bool_]:
    return np.asarray(held.max(axis=1) <= np.median(held, axis=1) * decibels(QUIET_DB))


def _starts(chosen: NDArray[np.bool_]) -> tuple[int, ...]:
    return tuple(int(k) * HOP for k in np.flatnonzero(chosen))


def _at(lines_hz: tuple[float, ...]) -> NDArray[np.bool_]:
    """The fine bins that the lines touch."""
    bins = np.arange(FRAME) - FRAME // 2
    centres = np.array(lines_hz) / BIN_HZ
    return np.asarray((np.abs(bins[:, None] - centres) <= LINE_BINS).any(axis=1))


def without_lines(iq: Iq, lines_hz: tuple[float, ...]) -> Iq:
    """`iq` with LINE_BINS to either side of every line taken out."""
    hz = np.fft.fftfreq(len(iq), 1 / SAMPLE_RATE_HZ)
    mask = np.ones(len(iq))
    for line in lines_hz:
        mask[np.abs(hz - line) <= LINE_BINS * BIN_HZ] = 0
    return np.asarray(np.fft.ifft(np.fft.fft(iq) * mask))


def isolate(iq: Iq, peak_hz: float) -> Iq:
    """What lies within REACH_HZ of `peak_hz`; the edges are raised cosines, TAPER_HZ wide."""
    hz = np.fft.fftfreq(len(iq), 1 / SAMPLE_RATE_HZ)
    beyond = np.clip((np.abs(hz - peak_hz) - REACH_HZ) / TAPER_HZ, 0, 1)
    return np.asarray(np.fft.ifft(np.fft.fft(iq) * 0.5 * (1 + np.cos(np.pi * beyond))))


def cut(iq: Iq, starts: tuple[int, ...], rng: np.random.Generator) -> Iq:
    """The samples of one sweep that begins in one of `starts`, or up to a hop later."""
    start = int(rng.choice(starts)) + int(rng.integers(HOP))
    start = min(start, len(iq) - SWEEP_SAMPLES)
    return iq[start : start + SWEEP_SAMPLES]


def moved(iq: Iq, peak_hz: float, rng: np.random.Generator) -> Iq:
    """`iq` shifted by up to SHIFT_HZ, its peak kept within EDGE_HZ where that allows it; energy unchanged."""
    low = min(max(-SHIFT_HZ, -EDGE_HZ - peak_hz), SHIFT_HZ)
    high = max(min(SHIFT_HZ, EDGE_HZ - peak_hz), -SHIFT_HZ)
    shift_hz = rng.uniform(low, high)
    turn = 2 * np.pi * shift_hz / SAMPLE_RATE_HZ
    return np.asarray(iq * np.exp(1j * (turn * np.arange(len(iq)) + rng.uniform(0, 2 * np.pi))))


def white_noise(samples: int, power: float, rng: np.random.Generator) -> Iq:
    """Complex white Gaussian noise of that mean power."""
    parts = rng.standard_normal((2, samples))
    return np.asarray(np.sqrt(power / 2) * (parts[0] + 1j * parts[1]))


def fresh_noise_power(peak: float, floor: float, rng: np.random.Generator) -> float:
    """Total power of the noise for a burst whose strongest bin holds `peak`: ABOVE_FLOOR_DB or more."""
    least = floor * decibels(ABOVE_FLOOR_DB)
    best_db = 10 * np.log10(peak / (least * NOISE_GAIN))
    snr_db = rng.uniform(SNR_DB[0], np.clip(best_db, *SNR_DB))
    return max(least, peak / (NOISE_GAIN * decibels(snr_db)))


def peak_of(power: Power) -> tuple[float, float]:
    """The largest power of a sweep and its offset from the centre, in hertz."""
    at = int(power.argmax())
    return float(power[at]), (at - POINTS // 2) * SAMPLE_RATE_HZ / POINTS


def remix_burst(iq: Iq, found: Stretches, rng: np.random.Generator) -> bytes:
    """Codes of one sweep: a burst of the capture, cut out, moved, scaled, in fresh noise."""
    return received(*burst_and_noise(iq, found, rng), rng)


def burst_and_noise(iq: Iq, found: Stretches, rng: np.random.Generator) -> tuple[Iq, Iq]:
    """A burst of the capture, cut out and moved, and the fresh noise that it is to be put in."""
    window = without_lines(cut(iq, found.active, rng), found.lines_hz)
    peak, peak_hz = peak_of(frames(window).max(axis=0))
    noise_power = fresh_noise_power(peak, found.floor, rng)
    return moved(isolate(window, peak_hz), peak_hz, rng), white_noise(len(window), noise_power, rng)


def remix_quiet(iq: Iq, found: Stretches, rng: np.random.Generator) -> bytes:
    """Codes of one sweep: a signal-free stretch of the capture, treated as a burst would be."""
    stretch = isolate(without_lines(cut(iq, found.quiet, rng), found.lines_hz), found.peak_hz)
    noise_power = found.floor * decibels(ABOVE_FLOOR_DB + rng.uniform(0, 12))
    return received(moved(stretch, found.peak_hz, rng), white_noise(len(stretch), noise_power, rng), rng)


def received(signal: Iq, noise: Iq, rng: np.random.Generator) -> bytes:
    """Codes of one sweep over a signal in noise, at a random gain."""
    gain = decibels(rng.uniform(*GAIN_DB))
    return codes(frames(signal + noise).max(axis=0) * gain)
