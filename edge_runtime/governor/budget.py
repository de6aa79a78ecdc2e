"""What a user asks for, in words he has: 1%, 20mAh, 50J, or a run time to reach."""

from __future__ import annotations

import re
import zlib
from dataclasses import dataclass

from edge_runtime.errors import BadInput

_FORM = re.compile(r"\s*([0-9]*\.?[0-9]+)\s*(%|mAh|J|mJ|Wh|h|d)\s*", re.IGNORECASE)
_J_PER_UNIT = {"j": 1.0, "mj": 1e-3, "wh": 3600.0}


@dataclass(frozen=True, slots=True)
class Budget:
    """Energy that inference may use in a mission.

    energy_nj: at the board's rail, the reserve taken off. duration_us: the mission's length.
    mission: names the mission in the journal; a restart with the same words continues it.
    text: the user's words.
    """

    energy_nj: int
    duration_us: int
    mission: int
    text: str

    @classmethod
    def parse(
        cls,
        text: str,
        hours: float | None,
        *,
        battery_j: float,
        battery_v: float,
        efficiency: float = 1.0,
        rest_mw: float = 0.0,
        reserve: float = 0.0,
        name: str = "",
    ) -> Budget:
        """Read `1%` (of the battery), `20mAh` (at the battery), `50J`, `500mJ`, `1Wh`, or `48h`, `2d`.

        A run time gives to inference what the rest of the device leaves over in that time.

        battery_j: what a full battery gives at the rail. battery_v: its mean voltage, for mAh. efficiency: of the
        converter between them. rest_mw: what the device takes without inference. reserve: share of the budget
        kept back, 0 to 1. name: tells apart missions that ask for the same.

        Raises BadInput where the text is none of these, a length is missing, or the battery cannot do it.
        """
        match = _FORM.fullmatch(text)
        if match is None:
            raise BadInput(f"budget {text!r}: not understood; write 1%, 20mAh, 50J or 48h")
        number, unit = float(match[1]), match[2].lower()
        if unit in ("h", "d"):
            hours = number * (24 if unit == "d" else 1)
        if hours is None or not 0 < hours <= 24 * 366:
            raise BadInput(
                f"budget {text!r}: needs the mission's length; add --hours, above 0 and at most a year"
            )
        if unit in ("h", "d"):
            energy_j = battery_j - rest_mw * 3.6 * hours
            if energy_j <= 0:
                possible_h = battery_j / (rest_mw * 3.6)
                raise BadInput(
                    f"budget {text!r}: the device without any inference empties the battery in {possible_h:.1f} h; "
                    "ask for less, tune the board, let the scanner pause, or take a larger battery"
                )
        elif unit == "%":
            energy_j = battery_j * number / 100
        elif unit == "mah":
            energy_j = number * 3.6 * battery_v * efficiency
        else:
            energy_j = number * _J_PER_UNIT[unit]
        if not 0 <= reserve < 1:
            raise BadInput(f"reserve {reserve}: must be a share of the budget, 0 up to 1")
        if energy_j > battery_j:
            raise BadInput(
                f"budget {text!r}: is {energy_j:.0f} J, the battery gives {battery_j:.0f} J; ask for less"
            )
        words = f"{text.strip()}|{hours}|{reserve}|{name}"
        return cls(
            int(energy_j * (1 - reserve) * 1e9), int(hours * 3.6e9), zlib.crc32(words.encode()), text.strip()
        )
