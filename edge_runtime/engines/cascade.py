"""Trees first; the network where their margin is below the bound that the bundle declares."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from edge_runtime.engines.compiled import CompiledEngine
from edge_runtime.engines.network import Network, open_network
from edge_runtime.reasons import Reason
from edge_runtime.verdict import UNKNOWN, Rung, Verdict

if TYPE_CHECKING:
    from edge_runtime.bundle import Bundle


class CascadeEngine:
    """Both models of a bundle.

    margin_bound: the network is asked below it, of scans that the trees answered and did not find new.
    confidence_q16: by the network's margin in output steps, 0 to 255. step: one output step as a real number.
    min_confidence_q16: below it the answer is UNKNOWN.
    asked: how often the network was.
    """

    def __init__(
        self,
        trees: CompiledEngine,
        network: Network,
        margin_bound: float,
        confidence_q16: Sequence[int],
        step: float,
        min_confidence_q16: int,
    ) -> None:
        self.network = network
        self.asked = 0
        self.screen, self.expander = trees.screen, trees.expander
        self.screen_score, self.infer_unscreened = trees.screen_score, trees.infer_unscreened
        self._trees = trees.infer
        self._run = network.run
        self._margin_bound = margin_bound
        self._confidence_q16 = confidence_q16
        self._step = step
        self._min_confidence_q16 = min_confidence_q16

    @classmethod
    def of(cls, bundle: Bundle, prefer: str | None = None) -> CascadeEngine:
        """The engine of a bundle that holds trees and a network. Raises BadInput where one cannot run here."""
        cascade = bundle.manifest["network"]["cascade"]
        return cls(
            CompiledEngine.of(bundle),
            open_network(bundle, prefer),
            float.fromhex(cascade["margin_bound"]),
            cascade["confidence_q16"],
            float.fromhex(cascade["step"]),
            cascade["min_confidence_q16"],
        )

    def infer(self, power_cdbm: bytes) -> Verdict:
        """The verdict on a sweep of little-endian int16."""
        first = Verdict._make(self._trees(power_cdbm))
        if first.rung != Rung.TREES or first.margin >= self._margin_bound or first.reason == Reason.NOVEL:
            return first
        self.asked += 1
        # Bytes order as the int8 they hold once their sign bit is turned.
        outputs = self._run(power_cdbm).translate(_UNSIGNED)
        highest, second = sorted(outputs, reverse=True)[:2]
        best = outputs.index(highest)
        steps = highest - second
        confidence_q16 = self._confidence_q16[steps]
        known = confidence_q16 >= self._min_confidence_q16
        return Verdict(
            best if known else UNKNOWN,
            best,
            Reason.OK if known else Reason.AMBIGUOUS,
            Rung.NETWORK,
            confidence_q16,
            first.novelty_q8,
            steps * self._step,
        )


_UNSIGNED = bytes(k ^ 0x80 for k in range(256))
