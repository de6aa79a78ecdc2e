"""INA219, INA226, INA228 and INA3221 at register level, driven by a load and a clock.

Written from TI's datasheets: SBOS448G (INA219), SBOS547B (INA226), SLYS021B (INA228), SBOS576C (INA3221).
A conversion averages the current exactly over the time that the chip looks at the shunt; in modes that also
convert the bus voltage, the current of that time goes unseen, as on the real chip.
"""

from __future__ import annotations

from collections.abc import Callable

from edge_runtime.rig.load import Load

Now = Callable[[], float]


class Converter:
    """What the chips share: a sequence of conversions in time, and an analogue front end that is not perfect.

    now: seconds. offset_uv, gain: of the shunt's voltage. oscillator: the chip's microsecond in real ones.
    """

    def __init__(
        self,
        load: Load,
        now: Now,
        *,
        shunt_ohm: float = 0.1,
        offset_uv: float = 0.0,
        gain: float = 1.0,
        oscillator: float = 1.0,
    ) -> None:
        self._load, self._now, self._ohm = load, now, shunt_ohm
        self._offset_uv, self._gain, self._oscillator = offset_uv, gain, oscillator
        self._start = now()
        self._done = 0
        self.ready = False

    def connect(self, load: Load) -> None:
        """Put another load behind the shunt."""
        self._load = load

    def restart(self) -> None:
        """Begin a new sequence of conversions, as a write of the configuration does."""
        self._start, self._done, self.ready = self._now(), 0, False

    def advance(self, shunt_us: float, bus_us: float, continuous: bool) -> tuple[float, float] | None:
        """Complete what is due: start and end (seconds) of the last finished conversion, or None."""
        cycle = (shunt_us + bus_us) * 1e-6 * self._oscillator
        if cycle == 0:
            return None
        done = int((self._now() - self._start) / cycle + 1e-9)
        done = done if continuous else min(done, 1)
        if done == self._done:
            return None
        self._done, self.ready = done, True
        return self._start + (done - 1) * cycle, self._start + done * cycle

    def shunt_uv(self, begin: float, us: float, samples: int, full_scale_uv: float) -> float:
        """Mean shunt voltage over `us` from `begin`, each of the samples clipped at full scale."""
        step = us * 1e-6 * self._oscillator / samples
        return (
            sum(
                max(-full_scale_uv, min(full_scale_uv, self._one_uv(begin + k * step, step)))
                for k in range(samples)
            )
            / samples
        )

    def _one_uv(self, begin: float, seconds: float) -> float:
        amps = self._load.mean_amps(begin, begin + seconds)
        return amps * self._ohm * 1e6 * self._gain + self._offset_uv

    def bus_v(self, end: float, us: float) -> float:
        """Mean bus voltage over the `us` before `end`."""
        return self._load.mean_volts(end - us * 1e-6 * self._oscillator, end)


class Configured(Converter):
    """Chips with a configuration in register 0, whose bit 15 resets, and a calibration (or none) in register 5."""

    INITIAL = 0
    CALIBRATION_BITS = 0

    def __init__(self, load: Load, now: Now, **analogue: float) -> None:
        super().__init__(load, now, **analogue)
        self._reset()

    def _reset(self) -> None:
        self.configuration, self.calibration = self.INITIAL, 0
        self._shunt = self._bus = 0
        self.restart()

    def _convert(self) -> None:
        """Bring the registers up to now."""
        raise NotImplementedError

    def write(self, register: int, value: int) -> None:
        """Configuration and calibration."""
        self._convert()
        if register == 0 and value & 0x8000:
            self._reset()
        elif register == 0:
            self.configuration = value
            self.restart()
        elif register == 5:
            self.calibration = value & self.CALIBRATION_BITS


class Ina219(Configured):
    """Registers 0 to 5 (SBOS448G, 8.6). Conversion-ready clears on a read of the power register."""

    INITIAL, CALIBRATION_BITS = 0x399F, 0xFFFE  # bit 0 of the calibration reads zero

    TIME_US = (84, 148, 276, 532, 84, 148, 276, 532, 532, 1060, 2130, 4260, 8510, 17020, 34050, 68100)

    def _reset(self) -> None:
        super()._reset()
        self._power = self._current = 0
        self._overflow = False

    def _convert(self) -> None:
        mode = self.configuration & 7
        shunt_code, bus_code = (self.configuration >> 3) & 15, (self.configuration >> 7) & 15
        shunt_us = self.TIME_US[shunt_code] if mode & 1 else 0
        bus_us = self.TIME_US[bus_code] if mode & 2 else 0
        span = self.advance(shunt_us, bus_us, continuous=mode > 4)
        if span is None:
            return
        if shunt_us:
            full = 4000 << ((self.configuration >> 11) & 3)
            samples = 1 << (shunt_code - 8) if shunt_code >= 8 else 1
            self._shunt = round(self.shunt_uv(span[0], shunt_us, samples, full * 10) / 10)
        if bus_us:
            limit = 8000 if self.configuration & 0x2000 else 4000
            self._bus = min(int(self.bus_v(span[1], bus_us) / 0.004), limit)
        product = self._shunt * self.calibration
        current = product // 4096 if product >= 0 else -(-product // 4096)
        power = abs(current) * self._bus // 5000
        self._overflow = abs(current) > 0x7FFF or power > 0xFFFF
        self._current, self._power = max(-0x8000, min(0x7FFF, current)), power & 0xFFFF

    def read(self, register: int, size: int) -> int:
        """A register's 16 bits."""
        assert size == 2
        self._convert()
        if register == 3:
            self.ready = False
            return self._power
        return {
            0: self.configuration,
            1: self._shunt & 0xFFFF,
            2: self._bus << 3 | self.ready << 1 | self._overflow,
            4: self._current & 0xFFFF,
            5: self.calibration,
        }.get(register, 0)


AVERAGES = (1, 4, 16, 64, 128, 256, 512, 1024)
TIMES_US = (140, 204, 332, 588, 1100, 2116, 4156, 8244)


class Averaging(Configured):
    """Chips that code their averaging and times as the INA226 does (SBOS547B, 7.6.1; SBOS576C, 8.6.2.1)."""

    def _times(self) -> tuple[int, int, int, bool]:
        """Samples a conversion, its shunt and its bus time in microseconds, and whether it goes on and on."""
        mode, average = self.configuration & 7, AVERAGES[(self.configuration >> 9) & 7]
        shunt_us = TIMES_US[(self.configuration >> 3) & 7] * average if mode & 1 else 0
        bus_us = TIMES_US[(self.configuration >> 6) & 7] * average if mode & 2 else 0
        return average, shunt_us, bus_us, mode > 4


class Ina226(Averaging):
    """Registers 0 to 7, FE, FF (SBOS547B, 7.6). Conversion-ready clears on a read of Mask/Enable."""

    INITIAL, CALIBRATION_BITS = 0x4127, 0x7FFF

    def _convert(self) -> None:
        average, shunt_us, bus_us, continuous = self._times()
        span = self.advance(shunt_us, bus_us, continuous)
        if span is None:
            return
        if shunt_us:
            self._shunt = round(self.shunt_uv(span[0], shunt_us, average, 81_917.5) / 2.5)
        if bus_us:
            self._bus = int(self.bus_v(span[1], bus_us) / 0.00125)

    def read(self, register: int, size: int) -> int:
        """A register's 16 bits."""
        assert size == 2
        self._convert()
        current = self._shunt * self.calibration // 2048
        if register == 6:
            ready, self.ready = self.ready, False
            return ready << 3 | (abs(current) > 0x7FFF) << 2
        return {
            0: self.configuration,
            1: self._shunt & 0xFFFF,
            2: self._bus,
            3: abs(current) * self._bus // 20000 & 0xFFFF,
            4: current & 0xFFFF,
            5: self.calibration,
            0xFE: 0x5449,
            0xFF: 0x2260,
        }.get(register, 0)


class Ina3221(Averaging):
    """The load on one channel, the others open (SBOS576C, 8.6). Ready clears on a read of Mask/Enable."""

    INITIAL = 0x7127
    channel = 1

    def _convert(self) -> None:
        average, one_us, bus_us, continuous = self._times()
        channels = (self.configuration >> 12 & 7).bit_count()
        span = self.advance(one_us * channels, bus_us * channels, continuous)
        if span is None or not self.configuration & 0x8000 >> self.channel:
            return
        if one_us:
            self._shunt = round(self.shunt_uv(span[0], one_us, average, 163_800) / 40)
        if bus_us:
            self._bus = int(self.bus_v(span[1], bus_us) / 0.008)

    def read(self, register: int, size: int) -> int:
        """A register's 16 bits; shunt and bus values stand in bits 15 to 3."""
        assert size == 2
        self._convert()
        if register == 0x0F:
            ready, self.ready = self.ready, False
            return int(ready)
        shunt_at = 2 * self.channel - 1
        values = {0: self.configuration, shunt_at: self._shunt << 3 & 0xFFFF, shunt_at + 1: self._bus << 3}
        return {**values, 0xFE: 0x5449, 0xFF: 0x3220}.get(register, 0)


class Ina228(Converter):
    """20-bit values and 40-bit accumulators (SLYS021B, 7.6). Shunt, then bus, then temperature, in turn."""

    SHUNT_NV = (312.5, 78.125)
    TIMES_US = (50, 84, 150, 280, 540, 1052, 2074, 4120)

    def __init__(self, load: Load, now: Now, **analogue: float) -> None:
        super().__init__(load, now, **analogue)
        self._reset()

    def _reset(self) -> None:
        self.configuration, self.adc, self.calibration = 0, 0xFB68, 0x1000
        self._shunt = self._bus = self._current = self._power = 0
        self._energy = self._charge = 0.0
        self.restart()

    def _cycle_us(self) -> tuple[int, int, int]:
        mode, average = self.adc >> 12, AVERAGES[self.adc & 7]
        times = [self.TIMES_US[self.adc >> shift & 7] * average for shift in (6, 9, 3)]
        enabled = (mode & 2, mode & 1, mode & 4)
        return tuple(us if on else 0 for us, on in zip(times, enabled, strict=True))  # type: ignore[return-value]

    def _convert(self) -> None:
        """Every cycle counts here: the accumulators add them all up."""
        shunt_us, bus_us, temperature_us = self._cycle_us()
        before = self._done
        span = self.advance(shunt_us, bus_us + temperature_us, continuous=self.adc >> 12 > 7)
        if span is None:
            return
        cycle_s = span[1] - span[0]
        for back in range(self._done - before - 1, -1, -1):
            self._one(span[0] - back * cycle_s, cycle_s, shunt_us, bus_us)

    def _one(self, begin: float, cycle_s: float, shunt_us: int, bus_us: int) -> None:
        fine = self.configuration >> 4 & 1
        lsb_uv = self.SHUNT_NV[fine] * 1e-3
        if shunt_us:
            uv = self.shunt_uv(begin, shunt_us, 1, lsb_uv * 0x7FFFF)
            self._shunt = round(uv / lsb_uv)
        if bus_us:
            self._bus = int(self.bus_v(begin + cycle_s, bus_us) / 195.3125e-6)
        self._current = self._shunt * 4096 // self.calibration if self.calibration else 0
        self._power = int(abs(self._current) * self._bus * 195.3125e-6 / 3.2)
        self._energy += self._power * cycle_s / 16
        self._charge += self._current * cycle_s

    def read(self, register: int, size: int) -> int:
        """A register of 2, 3 or 5 bytes; 20-bit values stand in bits 23 to 4."""
        self._convert()
        if register == 0x0B:
            ready, self.ready = self.ready, False
            return ready << 1 | 1
        bits = 8 * size
        value = {
            0: self.configuration,
            1: self.adc,
            2: self.calibration,
            4: self._shunt << 4,
            5: self._bus << 4,
            6: 3200,
            7: self._current << 4,
            8: self._power,
            9: int(self._energy),
            0x0A: int(self._charge),
            0x3E: 0x5449,
            0x3F: 0x2281,
        }.get(register, 0)
        return value & (1 << bits) - 1

    def write(self, register: int, value: int) -> None:
        """Configuration (bit 15 resets, bit 14 clears the accumulators), ADC configuration, calibration."""
        self._convert()
        if register == 0 and value & 0x8000:
            self._reset()
        elif register == 0:
            self.configuration = value & 0x3FFF
            if value & 0x4000:
                self._energy = self._charge = 0.0
        elif register == 1:
            self.adc = value
            self.restart()
        elif register == 2:
            self.calibration = value & 0x7FFF
