"""`--scanner auto`: which scanner is on a port, or which program wrote a file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from edge_runtime.errors import BadInput, HardwareUnavailable
from edge_runtime.port import Gone, Port
from edge_runtime.scan import Axis, Scan
from edge_runtime.scanners import make
from edge_runtime.scanners.base import Configuration, Damage, Identity, Scanner, Send
from edge_runtime.usb import UsbPorts

ON_PORTS = ("rf-explorer", "tinysa-ultra", "framed", "uniden", "uniden-bcd")
IN_FILES = (
    "sweep-text",
    "ath-spectral",
    "hackrf-binary",
    "soapy-binary",
    "tinysa-ultra",
    "rf-explorer",
    "framed",
)
USUAL = {
    "0483:5740": "tinysa-ultra",
    "10c4:ea60": "rf-explorer",
    "1965:0019": "uniden",
    "1965:001a": "uniden",
}
"""USB vendor and product of the instruments, asked first."""
ANSWER_US = 1_500_000
SAMPLE_BYTES = 1 << 18


def detect(url: str, axis: Axis | None, clock: Callable[[], int]) -> str:
    """The name of the scanner behind `url`.

    A port is asked in each scanner's own words; a file is read with each decoder, and the one that makes most of
    it wins. Raises BadInput where nothing answers, or no decoder finds a frame.
    """
    if "://" not in url and Path(url).is_file():
        return _in_file(Path(url), axis, clock)
    if url == "-" or Path(url).is_fifo():
        raise BadInput(f"port {url}: what a pipe brings cannot be read twice; name it with --scanner")
    usual = USUAL.get(UsbPorts().vendor_product(url), "")
    for name in sorted(ON_PORTS, key=lambda known: known != usual):
        if _answers(url, make(name, axis), clock):
            return name
    raise BadInput(f"port {url}: no scanner answers; name it with --scanner, or switch it on")


def _answers(url: str, scanner: Scanner, clock: Callable[[], int]) -> bool:
    port = Port(url, scanner.baud)
    try:
        port.write(scanner.start())
        until_us = clock() + ANSWER_US
        while clock() < until_us:
            for event in scanner.feed(port.receive(50) or b"", clock()):
                if type(event) is Send:
                    port.write(event.data)
                elif type(event) in (Identity, Configuration, Scan):
                    return True
        return False
    except Gone as e:
        raise HardwareUnavailable(f"port {url}: {e}; check the cable") from e
    finally:
        port.close()


def _in_file(path: Path, axis: Axis | None, clock: Callable[[], int]) -> str:
    with path.open("rb") as file:
        sample = file.read(SAMPLE_BYTES)
    best, best_bytes = "", 0
    for name in IN_FILES:
        scanner = make(name, axis)
        events = [*scanner.feed(sample, clock()), *scanner.end(clock())]
        lost = sum(event.size for event in events if type(event) is Damage)
        if any(type(event) is Scan for event in events) and len(sample) - lost > best_bytes:
            best, best_bytes = name, len(sample) - lost
    if not best:
        raise BadInput(
            f"file {path}: no scanner's frame is in it; give a recording of one of {', '.join(IN_FILES)}"
        )
    return best
