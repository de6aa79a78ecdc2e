"""The board's own switches in sysfs: turned while a mission runs, turned back after it, or at the next start.

What was found is written beside the journal before anything is turned, so that a killed run leaves a note for the
next one. A note from before the last boot is void: booting turned everything back.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from edge_runtime.errors import BadInput, HardwareUnavailable

NOTE = "board.json"
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
CORES = 1
"""So many stay on-line: the loop is one thread."""


class Switch(NamedTuple):
    """One file: what it holds, what is written to it, and what is written to turn it back."""

    path: Path
    before: str
    to: str
    back: str


def _governors(root: Path) -> Iterator[tuple[Path, str | None, str]]:
    for path in sorted(root.glob("devices/system/cpu/cpu[0-9]*/cpufreq/scaling_governor")):
        offered = _read(path.with_name("scaling_available_governors")).split()
        lacks = f"offers {' '.join(offered) or 'nothing'}, not powersave"
        yield path, None if "powersave" in offered else lacks, "powersave"


def _cores(root: Path) -> Iterator[tuple[Path, str | None, str]]:
    cpus = root / "devices/system/cpu"
    numbered = sorted(cpus.glob("cpu[0-9]*/online"), key=lambda p: int(p.parent.name[3:]))
    always_on = not (cpus / "cpu0/online").exists()
    for path in numbered[CORES - always_on :]:
        yield path, None, "0"


def _cpu(root: Path) -> Iterator[tuple[Path, str | None, str]]:
    yield from _governors(root)
    yield from _cores(root)


def _leds(root: Path) -> Iterator[tuple[Path, str | None, str]]:
    for name in ("ACT", "PWR", "led0", "led1"):
        for path in sorted(root.glob(f"class/leds/{name}/trigger")):
            yield path, None, "none"
            yield path.with_name("brightness"), None, "0"


def _hdmi(root: Path) -> Iterator[tuple[Path, str | None, str]]:
    for path in sorted(root.glob("class/drm/card*-HDMI-*/status")):
        yield path, None, "off"


def _radio(root: Path) -> Iterator[tuple[Path, str | None, str]]:
    for path in sorted(root.glob("class/rfkill/rfkill*/soft")):
        yield path, None, "1"


GROUPS: dict[str, Callable[[Path], Iterator[tuple[Path, str | None, str]]]] = {
    "cpu": _cpu,
    "leds": _leds,
    "hdmi": _hdmi,
    "radio": _radio,
}
"""cpu: the slowest governor, one core. radio: Wi-Fi and Bluetooth, and with them whoever came in that way."""
SAFE = "cpu,leds,hdmi"


def groups(text: str) -> list[str]:
    """`cpu,leds` as groups. Raises BadInput for an unknown one."""
    named = [name.strip() for name in text.split(",") if name.strip()]
    for name in named:
        if name not in GROUPS:
            raise BadInput(f"--tune {text}: unknown {name!r}; choose of {', '.join(GROUPS)}")
    return named


class BoardControl:
    """root: where /sys is. folder: where the note of what was found is kept.

    done, failed: for people, what was turned and what would not be.
    """

    def __init__(self, root: Path, folder: Path) -> None:
        self._root = root
        self._note = folder / NOTE
        self.done: list[str] = []
        self.failed: list[str] = []

    def planned(self, named: list[str]) -> list[Switch]:
        """What `tune` would write; what cannot be is added to `failed`."""
        switches = []
        for path, lacks, to in (row for name in named for row in GROUPS[name](self._root)):
            before, back = _found(path)
            if lacks:
                self.failed.append(f"{path}: {lacks}")
            elif before not in ("", "disconnected", to):
                switches.append(Switch(path, before, to, back))
        return switches

    def tune(self, named: list[str]) -> None:
        """Turn the switches of these groups; one that may not be turned stays as it is."""
        switches = self.planned(named)
        if not switches:
            return
        self._write_note(switches)
        for switch in switches:
            if error := _write(switch.path, switch.to):
                self.failed.append(f"{switch.path}: stays {switch.before} ({error})")
            else:
                self.done.append(f"{switch.path}: {switch.before} -> {switch.to}")

    def restore(self) -> int:
        """Turn back what the note says, the last switch first; how many there were. Further calls do nothing."""
        try:
            note = json.loads(self._note.read_text())
            found = [(Path(path), str(back)) for path, back in note["found"]]
        except FileNotFoundError:
            return 0
        except (OSError, ValueError, KeyError, TypeError) as e:
            self.failed.append(f"{self._note}: cannot be read ({e}); the board's switches stay as they are")
            return 0
        if note.get("boot") == _boot():
            for path, back in reversed(found):
                if _found(path)[0] != back and (error := _write(path, back)):
                    self.failed.append(f"{path}: not turned back to {back} ({error})")
        else:
            found = []
        self._note.unlink(missing_ok=True)
        return len(found)

    def _write_note(self, switches: list[Switch]) -> None:
        """On the disk before the first switch is turned."""
        part = self._note.with_suffix(".part")
        try:
            with part.open("w") as file:
                json.dump({"boot": _boot(), "found": [(str(s.path), s.back) for s in switches]}, file)
                file.flush()
                os.fsync(file.fileno())
            part.replace(self._note)
        except OSError as e:
            raise BadInput(f"{self._note}: {e.strerror}; choose a writable --journal") from e


def wake_after(root: Path, seconds: int) -> Path:
    """Set the wake-up alarm; its file. Raises HardwareUnavailable where there is none, or it does not let us."""
    alarms = sorted(root.glob("class/rtc/rtc*/wakealarm"))
    if not alarms:
        raise HardwareUnavailable(
            f"wake-up alarm: no clock with one under {root}/class/rtc; leave the board on"
        )
    # An alarm that is set already refuses another.
    error = _write(alarms[0], "0") or _write(alarms[0], f"+{seconds}")
    if error:
        raise HardwareUnavailable(f"wake-up alarm {alarms[0]}: {error}; run as root, or leave the board on")
    return alarms[0]


def _found(path: Path) -> tuple[str, str]:
    """What a switch stands at, and what to write to have it there again."""
    text = _read(path)
    if path.name == "trigger":  # all are listed, the one in force in brackets
        text = next((word.strip("[]") for word in text.split() if word.startswith("[")), text)
    if path.name == "status":
        return text, "detect"
    return text, text


def _write(path: Path, value: str) -> str | None:
    """Write a switch; why not, where it would not be."""
    try:
        path.write_text(value)
    except OSError as e:
        return e.strerror or type(e).__name__
    return None


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""


def _boot() -> str:
    return _read(BOOT_ID)
