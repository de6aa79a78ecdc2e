"""The current meters on emulated chips: public drivers accept the chips, ours gets the energy right."""

from __future__ import annotations

import logging
import math
import statistics
import sys
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_runtime.errors import BadInput, HardwareUnavailable
from edge_runtime.power.calibration import Calibration
from edge_runtime.power.i2c import open_bus
from edge_runtime.power.ina219 import Ina219
from edge_runtime.power.ina226 import Ina226, Ina3221
from edge_runtime.power.ina228 import Ina228Meter
from edge_runtime.power.shunt import ShuntMeter
from edge_runtime.rig import ina
from edge_runtime.rig.i2c_bus import EmulatedBus
from edge_runtime.rig.load import Load, VirtualClock, pulses

MODULE = Calibration(shunt_ohm=0.1)
CHIPS = {
    "ina219": (ina.Ina219, lambda bus, **k: Ina219(bus, MODULE, **k)),
    "ina226": (ina.Ina226, Ina226),
    "ina3221": (ina.Ina3221, Ina3221),
}


def bench(
    name: str,
    load: Load,
    *,
    calibration: Calibration = MODULE,
    seed: int = 1,
    fail_every: int = 0,
    **analogue: float,
) -> tuple[ShuntMeter, VirtualClock, Any]:
    clock = VirtualClock()
    emulated, driver = CHIPS[name]
    chip = emulated(load, lambda: clock.seconds, **analogue)
    bus = EmulatedBus({0x40: chip}, clock.sleep, fail_every=fail_every)
    meter = ShuntMeter(
        driver(bus),
        calibration,
        name=name,
        domain="the load",
        clock_us=clock.us,
        sleep=clock.sleep,
        seed=seed,
    )
    return meter, clock, chip


def error(meter: ShuntMeter, load: Load, seconds: float) -> float:
    """Relative error of the energy over exactly the time that the meter covered."""
    begun = meter._begun_us * 1e-6
    meter.advance(seconds)
    reading = meter.read()
    truth = load.energy_j(reading.at_us * 1e-6) - load.energy_j(begun)
    assert abs(reading.energy_j - truth) <= reading.uncertainty_j
    return reading.energy_j / truth - 1


# --- the emulated chip, as the public drivers see it ---


@pytest.fixture
def quiet_root_logger() -> Iterator[None]:
    root = logging.getLogger()
    handlers = list(root.handlers)
    yield
    root.handlers[:] = handlers


def constant(amps: float) -> Load:
    return Load([(1.0, amps)])


class AdafruitGpio:
    """The device surface of Adafruit_GPIO that pi-ina219 uses."""

    def __init__(self, chip: ina.Ina219, clock: VirtualClock) -> None:
        self._chip, self._clock = chip, clock

    def writeList(self, register: int, data: list[int]) -> None:  # noqa: N802 (the peer's name)
        self._clock.sleep(1e-4)
        self._chip.write(register, data[0] << 8 | data[1])

    def readU16BE(self, register: int) -> int:  # noqa: N802
        self._clock.sleep(1.2e-4)
        return self._chip.read(register, 2)

    def readS16BE(self, register: int) -> int:  # noqa: N802
        value = self.readU16BE(register)
        return value - 65536 if value & 0x8000 else value


def pi_ina219(chip: ina.Ina219, clock: VirtualClock, monkeypatch: pytest.MonkeyPatch, **options: Any) -> Any:
    ina219 = pytest.importorskip("ina219", reason="the peer comes with the extra `peers`")
    monkeypatch.setattr("Adafruit_GPIO.I2C.get_i2c_device", lambda **_: AdafruitGpio(chip, clock))
    monkeypatch.setattr(time, "sleep", clock.sleep)
    return ina219.INA219(0.1, **options)


needs_pi_ina219 = pytest.mark.skipif(
    find_spec("ina219") is None, reason="needs the public driver: pip install pi-ina219"
)
needs_adafruit = pytest.mark.skipif(
    find_spec("adafruit_ina219") is None,
    reason="needs the public driver: pip install adafruit-circuitpython-ina219",
)


@needs_pi_ina219
@pytest.mark.usefixtures("quiet_root_logger")
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("amps", [-0.25, 0.0, 0.25, 0.9])
def test_pi_ina219_accepts_the_chip(amps: float, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = VirtualClock()
    chip = ina.Ina219(constant(amps), lambda: clock.seconds)
    peer = pi_ina219(chip, clock, monkeypatch, max_expected_amps=1.0)
    peer.configure(peer.RANGE_16V)
    assert not peer.is_conversion_ready()
    clock.sleep(0.002)
    assert peer.is_conversion_ready()
    assert peer.current() == pytest.approx(amps * 1000, abs=0.2)
    assert peer.voltage() == pytest.approx(5, abs=0.004)
    assert peer.power() == pytest.approx(abs(amps) * 5000, rel=0.002, abs=0.1)
    assert peer.shunt_voltage() == pytest.approx(amps * 100, abs=0.01)
    peer.power()
    assert not peer.is_conversion_ready()  # reading the power cleared it
    peer.sleep()
    peer.wake()
    peer.reset()
    assert chip.configuration == 0x399F


@needs_pi_ina219
@pytest.mark.usefixtures("quiet_root_logger")
@pytest.mark.filterwarnings("ignore")
def test_pi_ina219_raises_its_gain_on_the_chips_overflow(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = VirtualClock()
    chip = ina.Ina219(constant(1.5), lambda: clock.seconds)
    peer = pi_ina219(chip, clock, monkeypatch)
    peer.configure(peer.RANGE_16V)
    clock.sleep(0.01)
    assert peer.current() == pytest.approx(1500, abs=1)
    assert peer._gain == peer.GAIN_4_160MV
    chip._load = constant(4)
    clock.sleep(0.01)
    with pytest.raises(Exception, match="Current out of range"):
        peer.current()


class BusIo:
    """The busio.I2C surface that the adafruit driver uses."""

    def __init__(self, chip: ina.Ina219, clock: VirtualClock) -> None:
        self._chip, self._clock = chip, clock

    def try_lock(self) -> bool:
        return True

    def unlock(self) -> None:
        pass

    def writeto(self, _address: int, buffer: bytes, *, start: int = 0, end: int | None = None) -> None:
        self._clock.sleep(1e-4)
        data = bytes(buffer)[start:end]
        if len(data) == 3:
            self._chip.write(data[0], data[1] << 8 | data[2])

    def writeto_then_readfrom(
        self, _address: int, out: bytes, into: bytearray, *, out_start: int = 0, out_end: int | None = None,
        in_start: int = 0, in_end: int | None = None,
    ) -> None:  # fmt: skip
        del out_end, in_end
        self._clock.sleep(1.2e-4)
        into[in_start : in_start + 2] = self._chip.read(out[out_start], 2).to_bytes(2, "big")


@needs_adafruit
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("amps", [-0.25, 0.25, 1.9])
def test_adafruit_accepts_the_chip(amps: float) -> None:
    peer_module = pytest.importorskip("adafruit_ina219", reason="the peer comes with the extra `peers`")

    clock = VirtualClock()
    chip = ina.Ina219(constant(amps), lambda: clock.seconds)
    peer = peer_module.INA219(BusIo(chip, clock))
    clock.sleep(0.01)
    assert peer.current == pytest.approx(amps * 1000, abs=0.2)
    assert peer.bus_voltage == pytest.approx(5, abs=0.004)
    assert peer.power == pytest.approx(abs(amps) * 5, rel=0.003)
    peer.set_calibration_16V_400mA()
    clock.sleep(0.01)
    expected = max(-400, min(400, amps * 1000))  # clipped at 40 mV
    assert peer.current == pytest.approx(expected, abs=0.2)


# --- aliasing ---


def naive_polling(load: Load, poll_s: float, seconds: float = 20) -> float:
    """What a loop of `sleep; read current` with the chip's usual settings (12 bit, unaveraged) gets."""
    clock = VirtualClock()
    chip = ina.Ina219(load, lambda: clock.seconds)
    chip.write(0, 0x399F)
    chip.write(5, 4096)
    amps = []
    clock.sleep(0.0031)
    while clock.seconds < seconds:
        value = chip.read(4, 2)
        amps.append((value - 65536 if value & 0x8000 else value) * 1e-4)
        clock.sleep(poll_s)
    return statistics.fmean(amps) / load.mean_amps(0, seconds) - 1


def test_side_by_side_with_naive_polling() -> None:
    """The load of the published traps: 3 ms of 600 mA every 50 ms, over 120 mA."""
    load = pulses(0.050)
    assert naive_polling(load, 0.010) == pytest.approx(0.44, abs=0.02)
    assert naive_polling(load, 0.100) == pytest.approx(2.98, abs=0.06)
    for name in CHIPS:
        meter, _, _ = bench(name, load)
        assert abs(error(meter, load, 20)) < 0.01


# Periods that no careless meter survives: the conversion's own, its multiples and fractions, the voltage's.
NASTY_MS = [4.26, 5, 17.02, 34.05, 50, 64.4, 68.1, 70.4, 72.36, 100, 136.2, 204.3, 500, 1000, 1004.26, 2000]


@pytest.mark.parametrize("name", CHIPS)
def test_energy_within_1_percent_at_any_period(name: str) -> None:
    worst = 0.0
    for period_ms in NASTY_MS:
        load = pulses(period_ms * 1e-3, source_ohm=0.05)
        meter, _, _ = bench(name, load)
        worst = max(worst, abs(error(meter, load, 20)))
        assert meter.missed == 0
    assert worst < 0.01


@settings(deadline=None, derandomize=True, max_examples=25)
@given(st.floats(0.004, 3), st.floats(0.05, 0.95), st.floats(0.9, 1.1), st.integers(0, 2**32))
def test_energy_within_1_percent_whatever_the_duty_and_the_oscillator(
    period_s: float, duty: float, oscillator: float, seed: int
) -> None:
    """The chip's clock may be 10 % off ours; pacing follows its ready bit. Offset and tolerance are apart."""
    load = pulses(period_s, width_s=period_s * duty, high_a=0.4, source_ohm=0.05)
    meter, _, _ = bench("ina219", load, seed=seed, oscillator=oscillator)
    assert abs(error(meter, load, 30)) < 0.01
    assert meter.missed <= 1


@pytest.mark.parametrize("channel", [1, 2, 3])
def test_each_rail_of_an_ina3221(channel: int) -> None:
    clock, load = VirtualClock(), pulses(0.05)
    chip = ina.Ina3221(load, lambda: clock.seconds)
    chip.channel = channel
    for asked in (1, 2, 3):
        driver = Ina3221(EmulatedBus({0x40: chip}, clock.sleep), channel=asked)
        timing = {"clock_us": clock.us, "sleep": clock.sleep}
        meter = ShuntMeter(driver, MODULE, name="ina3221", domain="", **timing)
        meter.advance(5)
        assert (meter.read().energy_j > 3) == (asked == channel)


def test_ina228_adds_up_in_hardware() -> None:
    for period_s in (0.05, 0.0681, 0.0101):
        clock, load = VirtualClock(), pulses(period_s, source_ohm=0.05)
        chip = ina.Ina228(load, lambda: clock.seconds, oscillator=1.003)  # noqa: B023
        bus = EmulatedBus({0x40: chip}, clock.sleep)
        meter = Ina228Meter(bus, MODULE, domain="the load", clock_us=clock.us, sleep=clock.sleep)
        begun = clock.seconds
        clock.sleep(4)
        reading = meter.read()
        truth = load.energy_j(clock.seconds) - load.energy_j(begun)
        assert reading.energy_j == pytest.approx(truth, rel=0.01)
        assert abs(reading.energy_j - truth) <= reading.uncertainty_j
        assert reading.rail_v == pytest.approx(5, abs=0.05)


# --- what goes wrong ---


def test_offset_and_gain_of_the_calibration_file_are_undone(tmp_path: Path) -> None:
    load = pulses(0.05)
    off = {"offset_uv": 80.0, "gain": 1.012}
    raw, _, _ = bench("ina219", load, **off)
    uncalibrated = error(raw, load, 20)
    assert uncalibrated > 0.015
    path = tmp_path / "bench.json"
    Calibration(0.1, 80, 1.012, 5, 0.001, "a test").save(path)
    meter, _, _ = bench("ina219", load, calibration=Calibration.load(path), **off)
    assert abs(error(meter, load, 20)) < 0.003
    assert meter.read().uncertainty_j < raw.read().uncertainty_j


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"shunt_ohm": "x"}', '{"shunt_ohm": 0.1}'])
def test_a_calibration_that_is_none(tmp_path: Path, content: str) -> None:
    path = tmp_path / "c.json"
    path.write_text(content)
    with pytest.raises(BadInput, match=r"c\.json: .*make one with edge-runtime calibrate"):
        Calibration.load(path)


def test_a_clipped_shunt_leaves_no_figure_that_looks_sure() -> None:
    clock = VirtualClock()
    load = constant(0.6)
    chip = ina.Ina219(load, lambda: clock.seconds)
    driver = Ina219(EmulatedBus({0x40: chip}, clock.sleep), MODULE, max_amps=0.4)
    meter = ShuntMeter(driver, MODULE, name="ina219", domain="", clock_us=clock.us, sleep=clock.sleep)
    meter.advance(1)
    assert meter.clipped == meter.conversions > 5
    assert math.isinf(meter.read().uncertainty_j)
    assert meter.overflows == 0  # OVF is another matter: it stays silent here


def test_overflow_of_the_chips_arithmetic_is_counted() -> None:
    meter, _, chip = bench("ina219", constant(2))
    meter.advance(0.2)
    assert meter.overflows == 0
    chip.write(5, 0xFFFE)
    meter.advance(0.2)
    assert meter.overflows > 0


def test_the_range_follows_the_peak_and_the_shunt() -> None:
    bus = EmulatedBus({})
    full = [Ina219(bus, MODULE, max_amps=a).full_scale_uv for a in (0.3, 0.4, 0.5, 1.6, 3.2, 9)]
    assert full == [40_000, 40_000, 80_000, 160_000, 320_000, 320_000]
    driver = Ina219(bus, MODULE)
    assert driver._calibration == int(0.04096 / (driver.current_lsb_a * 0.1)) & 0xFFFE


def test_conversions_that_nobody_took_are_counted_and_doubted() -> None:
    load = pulses(0.05)
    meter, clock, _ = bench("ina219", load)
    meter.advance(5)
    before = meter.read()
    clock.sleep(2)  # the thread starved
    meter.advance(1)
    after = meter.read()
    assert meter.missed == pytest.approx(2 / 0.0681, abs=2)
    truth = load.energy_j(after.at_us * 1e-6) - load.energy_j(before.at_us * 1e-6)
    assert abs(after.energy_j - before.energy_j - truth) < after.uncertainty_j - before.uncertainty_j


def test_a_loose_wire_is_survived_and_a_torn_one_named() -> None:
    load = pulses(0.05)
    meter, _, _ = bench("ina219", load, fail_every=37)
    assert abs(error(meter, load, 20)) < 0.01
    assert meter.errors > 3
    meter._chip.ready = lambda: (_ for _ in ()).throw(OSError(121, "Remote I/O error"))  # type: ignore[method-assign]
    with pytest.raises(HardwareUnavailable, match="nothing answers at address 0x40"):
        meter.advance(10)


def test_no_chip_at_the_address() -> None:
    meter = ShuntMeter(
        Ina219(EmulatedBus({}), MODULE), MODULE, name="ina219", domain="", sleep=lambda _: None
    )
    with pytest.raises(
        HardwareUnavailable, match="ina219: unavailable, because nothing answers at address 0x40"
    ):
        meter.read()


def test_no_bus_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(HardwareUnavailable, match="there is no /dev/i2c-77"):
        open_bus(77)
    monkeypatch.setitem(sys.modules, "smbus2", None)
    with pytest.raises(HardwareUnavailable, match="smbus2 is not installed"):
        open_bus(1)


def test_the_thread_on_a_real_clock_knows_its_own_cost() -> None:
    load = pulses(0.05)
    chip = ina.Ina219(load, time.monotonic)
    meter = ShuntMeter(
        Ina219(EmulatedBus({0x40: chip}), MODULE, average=16), MODULE, name="ina219", domain=""
    )
    begun = meter._begun_us * 1e-6
    meter.start()
    time.sleep(1.0)
    reading = meter.read()
    truth = load.energy_j(reading.at_us * 1e-6) - load.energy_j(begun)
    assert abs(reading.energy_j - truth) < max(reading.uncertainty_j, 0.02 * truth)
    meter.close()
    assert 0 < meter.own_cpu_s < 0.5 * meter.own_wall_s
    with pytest.raises(HardwareUnavailable, match="it was closed"):
        meter.read()
