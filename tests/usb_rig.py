"""USB serial ports as Linux describes them, in a folder: names that are links to pseudo-terminals. ROOT WORDS...

As a program: `edge-runtime WORDS...` in a process that finds its USB devices there.
"""

from __future__ import annotations

import shutil
import sys
from functools import partial
from pathlib import Path
from unittest import mock

from edge_runtime import cli, source
from edge_runtime.usb import UsbPorts


class Links(UsbPorts):
    """The names are links to pseudo-terminals, so they are not resolved."""

    def __init__(self, root: Path) -> None:
        super().__init__(root / "sys", root / "dev")

    def identity(self, port: str) -> str:
        return self._identity(self._classes / Path(port).name)


class UsbTree:
    """The devices under `root`."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def plug(self, name: str, serial: str, port: str | Path) -> Path:
        """A device of that serial number appears as `name`, which leads to `port`; its path."""
        device = self.root / "sys/devices/usb1" / serial
        (device / "1-1:1.0" / name).mkdir(parents=True, exist_ok=True)
        for file, text in {"idVendor": "10c4", "idProduct": "ea60", "serial": serial}.items():
            (device / file).write_text(text + "\n")
        path = self.root / "dev" / name
        path.parent.mkdir(exist_ok=True)
        path.symlink_to(port)
        tty = self.root / "sys/class/tty" / name
        tty.mkdir(parents=True)
        (tty / "device").symlink_to(device / "1-1:1.0" / name)
        return path

    def unplug(self, name: str) -> None:
        """It is gone."""
        shutil.rmtree(self.root / "sys/class/tty" / name)
        (self.root / "dev" / name).unlink()


if __name__ == "__main__":
    with mock.patch.object(source, "UsbPorts", partial(Links, Path(sys.argv[1]))):
        sys.exit(cli.main(sys.argv[2:]))
