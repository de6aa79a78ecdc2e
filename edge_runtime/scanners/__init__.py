"""The scanners by name. A protocol's module is imported when it is asked for, no sooner."""

from __future__ import annotations

from importlib import import_module

from edge_runtime.errors import BadInput
from edge_runtime.scan import Axis
from edge_runtime.scanners.base import Scanner

SCANNERS = {
    "rf-explorer": ("edge_runtime.scanners.rf_explorer", "RFExplorer"),
    "framed": ("edge_runtime.scanners.framed", "Framed"),
    "sweep-text": ("edge_runtime.scanners.sweep_text", "SweepText"),
    "rtl-power": ("edge_runtime.scanners.sweep_text", "SweepText"),
    "hackrf-sweep": ("edge_runtime.scanners.sweep_text", "SweepText"),
    "soapy-power": ("edge_runtime.scanners.sweep_text", "SweepText"),
    "hackrf-binary": ("edge_runtime.scanners.sweep_binary", "HackRFBinary"),
    "soapy-binary": ("edge_runtime.scanners.sweep_binary", "SoapyBinary"),
    "ath-spectral": ("edge_runtime.scanners.ath_spectral", "AthSpectral"),
    "uniden": ("edge_runtime.scanners.uniden", "Uniden"),
    "uniden-bcd": ("edge_runtime.scanners.uniden", "UnidenBCD"),
    "tinysa": ("edge_runtime.scanners.tinysa", "TinySA"),
    "tinysa-ultra": ("edge_runtime.scanners.tinysa", "TinySAUltra"),
}


def check_name(name: str) -> None:
    """Raises BadInput for a scanner that no source can be opened with."""
    known = (*SCANNERS, "auto", "journal")
    if name.startswith("journal?"):
        raise BadInput(
            f"scanner {name!r}: a replay's speed goes with the folder; "
            "give --scanner journal --port 'FOLDER?speed=1' for the recorded times"
        )
    if name not in known:
        raise BadInput(f"scanner {name!r}: unknown; choose of {', '.join(known)}")


def make(name: str, axis: Axis | None = None) -> Scanner:
    """A scanner of that name that is asked to sweep `axis`, where it can be asked.

    Raises BadInput for an unknown name.
    """
    if name not in SCANNERS:
        raise BadInput(f"scanner {name!r}: unknown; choose of {', '.join(SCANNERS)}")
    module, factory = SCANNERS[name]
    scanner: Scanner = getattr(import_module(module), factory)(axis)
    return scanner
