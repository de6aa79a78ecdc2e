"""The kinetic battery model in closed form (Manwell and McGowan, Solar Energy 50, 1993): the tests' battery.

Two wells: charge in the first can be drawn, charge in the second flows into the first as their heights differ.
c: the first well's share; k: the rate in 1/h, as in Jongerden and Haverkort, IET Software 3, 2009, which give
c = 0.166 and k' = 0.122 a minute for a small Li-ion battery.
"""

from __future__ import annotations

import math


class Kibam:
    """A battery of `capacity_mah`, full at first."""

    def __init__(self, capacity_mah: float, c: float = 0.166, k_per_h: float = 7.32) -> None:
        self.c, self.k, self.capacity_mah = c, k_per_h, capacity_mah
        self.available_mah, self.bound_mah = c * capacity_mah, (1 - c) * capacity_mah

    @property
    def share(self) -> float:
        """All charge that is left, of what it holds when full."""
        return (self.available_mah + self.bound_mah) / self.capacity_mah

    @property
    def surface(self) -> float:
        """The height of the first well: what the terminals feel."""
        return max(0.0, self.available_mah / (self.c * self.capacity_mah))

    @property
    def empty(self) -> bool:
        """Nothing can be drawn."""
        return self.available_mah <= 0

    def draw(self, load_ma: float, hours: float) -> None:
        """A constant load for a while: the model's solution, exact for any step."""
        k, c, e = self.k, self.c, math.exp(-self.k * hours)
        q0, i = self.available_mah + self.bound_mah, load_ma
        y1, y2 = self.available_mah, self.bound_mah
        self.available_mah = y1 * e + (q0 * k * c - i) * (1 - e) / k - i * c * (k * hours - 1 + e) / k
        self.bound_mah = y2 * e + q0 * (1 - c) * (1 - e) - i * (1 - c) * (k * hours - 1 + e) / k
