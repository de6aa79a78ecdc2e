"""The emulated INA219, as the public drivers see it: they accept it as real."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from importlib.util import find_spec
from typing import Any

import pytest

from edge_runtime.rig import ina
from edge_runtime.rig.load import VirtualClock
from tests.energy.ina_bench import constant


@pytest.fixture
def quiet_root_logger() -> Iterator[None]:
    root = logging.getLogger()
    handlers = list(root.handlers)
    yield
    root.handlers[:] = handlers


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
