"""Spectral scans of Wi-Fi chips, as ath9k and ath10k put them into debugfs (Linux, ath/spectral_common.h).

Samples of type, length and value; lengths and numbers big-endian:

    u8 type, u16 length
    1  ath9k, 20 MHz   u8 max_exp, u16 MHz, s8 rssi, s8 noise, u16 max_magnitude, u8 max_index, u8 weight, u64 tsf,
                       56 bins
    2  ath9k, 40 MHz   u8 channel_type, u16 MHz, s8 rssi x2, u64 tsf, s8 noise x2, u16 max_magnitude x2,
                       u8 max_index x2, u8 weight x2, u8 max_exp, 128 bins (lower half, upper half)
    3  ath10k          u8 width MHz, u16 MHz, u16 MHz, s16 noise, u16 max_magnitude, u16 gain, u16 base power,
                       u64 tsf, s8 max_index, u8 rssi, u8, u8, u8 max_exp, 64, 128 or 256 bins

A bin is a magnitude, shifted left by max_exp. Its power is that of the whole, noise + rssi, shared among the bins
by their squares (FFT_eval): dBm = noise + rssi + 20 log10(bin) - 10 log10(sum of squares), a bin of 0 as 1.
Every sample is a scan of its channel. A noise of 0 is no measurement and is refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import log10
from struct import Struct

from edge_runtime.reasons import Reason
from edge_runtime.scan import Axis, Scan
from edge_runtime.scanners.base import Configuration, Heard, StreamScanner, int16

_HEAD = 3
_HT20 = Struct(">BHbbHBBQ")
_HT40 = Struct(">BHbbQbbHHBBBBB")
_ATH10K = Struct(">BHHhHHHQbBBBB")
_HT20_BINS, _HT40_BINS = 56, 128
_ATH10K_BINS = (64, 128, 256)
_LENGTHS = {
    1: (_HT20.size + _HT20_BINS,),
    2: (_HT40.size + _HT40_BINS,),
    3: tuple(_ATH10K.size + bins for bins in _ATH10K_BINS),
}
_MHZ = range(2300, 6000)
_HT40_ABOVE, _HT40_BELOW = 3, 2
"""nl80211's channel types: where the second 20 MHz lie."""


class AthSpectral(StreamScanner):
    """A dump, or debugfs' spectral_scan0 itself."""

    name = "ath-spectral"

    def __init__(self, axis: Axis | None = None) -> None:
        super().__init__()
        self._axis: Axis | None = None

    def _piece(self, at: int, now_us: int, events: list[Heard]) -> int:
        buffer = self._buffer
        if buffer[at] not in _LENGTHS:
            return self._lose(1, Reason.GARBAGE, events)
        if len(buffer) - at < _HEAD:
            return 0
        if not _sound(buffer, at):
            return self._lose(1, Reason.BAD_LENGTH, events)
        length = buffer[at + 1] << 8 | buffer[at + 2]
        end = at + _HEAD + length
        if len(buffer) < end or (placed := self._in_place(end, _HEAD, _sound)) is None:
            return 0
        found = _DECODE[buffer[at]](buffer[at + _HEAD : end]) if placed else None
        if found is None:
            return self._lose(1, Reason.TRUNCATED, events)
        self._flush(events)
        axis, powers = found
        if axis != self._axis:
            self._axis = axis
            said = f"{axis.start_hz} Hz, step {axis.step_hz} Hz, {axis.points} bins"
            events.append(Configuration(axis, said))
        events.append(Scan(powers, self._axis, now_us))
        return _HEAD + length


def _sound(data: bytes, at: int) -> bool:
    return (data[at + 1] << 8 | data[at + 2]) in _LENGTHS.get(data[at], ())


def _ht20(data: bytes) -> tuple[Axis, bytes] | None:
    exponent, mhz, rssi, noise, *_ = _HT20.unpack_from(data)
    if mhz not in _MHZ or noise == 0 or exponent > 15:
        return None
    # 64 bins over 20 MHz, of which the 56 in the middle are given.
    return _axis(mhz * 1_000_000, 312_500, _HT20_BINS), _share(data[_HT20.size :], exponent, noise + rssi)


def _ht40(data: bytes) -> tuple[Axis, bytes] | None:
    kind, mhz, low_rssi, high_rssi, _, low_noise, high_noise, *_, exponent = _HT40.unpack_from(data)
    if (
        mhz not in _MHZ
        or not (low_noise and high_noise)
        or exponent > 15
        or kind not in (_HT40_ABOVE, _HT40_BELOW)
    ):
        return None
    bins, half = data[_HT40.size :], _HT40_BINS // 2
    lower = _share(bins[:half], exponent, low_noise + low_rssi)
    upper = _share(bins[half:], exponent, high_noise + high_rssi)
    centre_hz = mhz * 1_000_000 + (10_000_000 if kind == _HT40_ABOVE else -10_000_000)
    return _axis(centre_hz, 312_500, _HT40_BINS), lower + upper


def _ath10k(data: bytes) -> tuple[Axis, bytes] | None:
    width, mhz, _, noise, *rest = _ATH10K.unpack_from(data)
    rssi, exponent = rest[-4], rest[-1]
    bins = data[_ATH10K.size :]
    if mhz not in _MHZ or noise == 0 or exponent > 15 or not 5 <= width <= 160:
        return None
    axis = _axis(mhz * 1_000_000, width * 1_000_000 // len(bins), len(bins))
    return axis, _share(bins, exponent, noise + rssi)


_DECODE = {1: _ht20, 2: _ht40, 3: _ath10k}


def _axis(centre_hz: int, step_hz: int, points: int) -> Axis:
    return Axis(centre_hz - step_hz * (points - 1) // 2, step_hz, points)


def _share(bins: Sequence[int], exponent: int, total_dbm: int) -> bytes:
    """The total power shared among the bins by their squares."""
    magnitudes = [b << exponent for b in bins]
    base_db = total_dbm - 10 * log10(sum(m * m for m in magnitudes) or 1)
    return b"".join(int16(round(100 * (base_db + 20 * log10(m or 1)))) for m in magnitudes)
