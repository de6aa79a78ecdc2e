"""Engines: what turns a sweep into a verdict. `open_engine` takes the best one that this machine can run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from edge_runtime.engines.baseline import BaselineEngine
from edge_runtime.engines.compiled import CompiledEngine
from edge_runtime.errors import BadInput
from edge_runtime.reasons import Reason
from edge_runtime.scanners.codes import Expander
from edge_runtime.verdict import Answer

if TYPE_CHECKING:
    from edge_runtime.bundle import Bundle


class Engine(Protocol):
    """One way to answer a scan. expander: its way from a scanner's codes to powers."""

    @property
    def expander(self) -> Expander: ...

    def infer(self, power_cdbm: bytes) -> Answer:
        """The fields of the Verdict on a sweep of little-endian int16, hundredths of a dBm."""
        ...


def open_engine(bundle: Bundle) -> tuple[Engine, str | None]:
    """The engine for a bundle, and what it lacks: the network of a cascade, or the model where it is the baseline.

    Raises BadInput where the bundle declares no baseline either.
    """
    lacks: str | None = None
    if (bundle.manifest.get("network") or {}).get("cascade"):
        # Imported here: a bundle of trees alone should not pay for it.
        from edge_runtime.engines.cascade import CascadeEngine  # noqa: PLC0415

        try:
            return CascadeEngine.of(bundle), None
        except BadInput as e:
            lacks = str(e)
    try:
        return CompiledEngine.of(bundle), lacks
    except BadInput as e:
        baseline = bundle.manifest.get("baseline")
        if baseline is None:
            raise
        return BaselineEngine(baseline["nothing"], baseline["stands_out_cdb"], Reason.NO_ARTIFACT), str(e)
