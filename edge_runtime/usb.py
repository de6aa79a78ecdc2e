"""Which USB device a serial port belongs to, so that it is found again when it comes back under another name."""

from __future__ import annotations

from pathlib import Path


class UsbPorts:
    """The serial ports of this machine by what Linux says of them under `sysfs` (Documentation/ABI, usb)."""

    def __init__(self, sysfs: Path = Path("/sys"), dev: Path = Path("/dev")) -> None:
        self._classes = sysfs / "class" / "tty"
        self._dev = dev

    def identity(self, port: str) -> str:
        """`vendor:product:serial number` of the device behind `port`; empty where it is none or has no number."""
        if "://" in port:
            return ""
        # The name may be a link, as those of /dev/serial/by-id are.
        return self._identity(self._classes / Path(port).resolve().name)

    def vendor_product(self, port: str) -> str:
        """`vendor:product` in hexadecimal; empty where the port is no USB device's."""
        folder = self._device(self._classes / Path(port).resolve().name) if "://" not in port else None
        return f"{_text(folder / 'idVendor')}:{_text(folder / 'idProduct')}" if folder else ""

    def find(self, identity: str) -> str:
        """The port of the device with that identity; empty where it is not plugged in."""
        if identity:
            for folder in sorted(self._classes.glob("tty*")):
                if self._identity(folder) == identity:
                    return str(self._dev / folder.name)
        return ""

    def _identity(self, tty: Path) -> str:
        folder = self._device(tty)
        number = _text(folder / "serial") if folder else ""
        return (
            f"{_text(folder / 'idVendor')}:{_text(folder / 'idProduct')}:{number}"
            if folder and number
            else ""
        )

    def _device(self, tty: Path) -> Path | None:
        """The USB device's folder: the nearest above the port's that has a vendor."""
        try:
            folder = (tty / "device").resolve(strict=True)
        except OSError:
            return None
        return next((f for f in (folder, *folder.parents) if (f / "idVendor").is_file()), None)


def _text(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""
