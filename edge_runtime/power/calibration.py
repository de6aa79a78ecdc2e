"""What is known of one meter's front end: the shunt on the board, its offset and gain, and their errors.

A calibration is a small JSON file that `edge-runtime calibrate` writes; without one the datasheet's limits
hold.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from edge_runtime.errors import BadInput


@dataclass(frozen=True, slots=True)
class Calibration:
    """shunt_ohm: as marked. offset_uv: read at no current. gain: read over true, after the offset.

    offset_error_uv, gain_error: how far each may still be off. conditions: date, load, temperature.
    """

    shunt_ohm: float
    offset_uv: float = 0.0
    gain: float = 1.0
    offset_error_uv: float = 100.0
    gain_error: float = 0.015
    conditions: str = "not calibrated: datasheet limits and a 1 % shunt"

    def amps(self, shunt_uv: float) -> float:
        """The true current of a raw shunt voltage."""
        return (shunt_uv - self.offset_uv) / (self.gain * self.shunt_ohm * 1e6)

    @property
    def offset_error_a(self) -> float:
        """What the offset may still add to every reading, amperes."""
        return self.offset_error_uv / (self.shunt_ohm * 1e6)

    def save(self, path: Path) -> None:
        """Write the file. Raises BadInput where it cannot."""
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(asdict(self), indent=2) + "\n", encoding="utf-8")
        except OSError as e:
            raise BadInput(f"calibration {path}: {e.strerror}; choose a writable --output") from e

    @classmethod
    def load(cls, path: Path) -> Calibration:
        """Read a file. Raises BadInput where it is not a calibration, or not a sensible one."""
        try:
            data = json.loads(path.read_text(encoding="utf-8"))
            known = {f.name for f in fields(cls)}
            if not isinstance(data, dict) or set(data) != known:
                raise ValueError(f"it must hold {', '.join(sorted(known))}")
            calibration = cls(
                **{k: str(v) if k == "conditions" else float(v) for k, v in data.items()}  # type: ignore[arg-type]
            )
            if not (0 < calibration.shunt_ohm < 100 and 0.5 < calibration.gain < 2):
                raise ValueError("shunt_ohm or gain is out of all reason")
        except OSError as e:
            raise BadInput(f"calibration {path}: {e.strerror}; make one with edge-runtime calibrate") from e
        except (ValueError, TypeError) as e:
            raise BadInput(f"calibration {path}: {e}; make one with edge-runtime calibrate") from e
        return calibration
