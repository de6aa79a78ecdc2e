"""Misbehaviour on request: what goes wrong on a real port, at set sweeps, so that a run can be repeated."""

from __future__ import annotations

import random

from edge_runtime.errors import BadInput

KINDS = ("garbage", "cut", "flip", "abort", "silence", "unplug")
EVERY = 20


class Mishaps:
    """Which mishap befalls which sweep: `cut=10,unplug=100` cuts every tenth, unplugs at every hundredth.

    Raises BadInput for an unknown kind or a count below 1.
    """

    def __init__(self, text: str = "", seed: int = 0) -> None:
        self._every: dict[str, int] = {}
        self.random = random.Random(seed)
        for part in filter(None, (p.strip() for p in text.split(","))):
            kind, _, every = part.partition("=")
            if kind not in KINDS or not (every or str(EVERY)).isdecimal() or every.strip("0") == "" != every:
                raise BadInput(f"--misbehave {part}: give KIND or KIND=EVERY, KIND of {', '.join(KINDS)}")
            self._every[kind] = int(every or EVERY)

    def at(self, sweep: int) -> list[str]:
        """The mishaps of sweep number `sweep`, counted from 1."""
        return [kind for kind, every in self._every.items() if sweep % every == 0]

    def garbage(self) -> bytes:
        """Up to 300 random bytes."""
        return self.random.randbytes(self.random.randint(1, 300))

    def cut(self, frame: bytes) -> bytes:
        """The frame without a stretch in its middle or at its end."""
        start = self.random.randrange(len(frame))
        return frame[:start] + frame[start + self.random.randint(1, len(frame)) :]

    def flip(self, frame: bytes) -> bytes:
        """The frame with one bit flipped."""
        damaged = bytearray(frame)
        damaged[self.random.randrange(len(frame))] ^= 1 << self.random.randrange(8)
        return bytes(damaged)
