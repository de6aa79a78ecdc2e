"""The compiled artifact, called through ctypes: one C call a scan, no copy, nothing allocated per point."""

from __future__ import annotations

import ctypes
import os
import platform
from collections.abc import Sequence
from itertools import count
from typing import TYPE_CHECKING

from edge_runtime.errors import BadInput
from edge_runtime.scanners.codes import Expand, Expander, in_python
from edge_runtime.verdict import VERDICT_STRUCT, Answer, Rung, Verdict

if TYPE_CHECKING:
    from edge_runtime.bundle import Bundle

_unpack = VERDICT_STRUCT.unpack

SCORE_ASK = 128
"""EDGE_SCORE_ASK of `edge_model.h`: from this score on the screen has no answer."""

_MACHINES = {
    "x86_64": "x86_64",
    "amd64": "x86_64",
    "aarch64": "aarch64",
    "arm64": "aarch64",
    "armv7l": "armv7",
}


def machine_target() -> str:
    """The name of the compile target that runs in this process.

    A 32-bit user-space under a 64-bit kernel reports the kernel's machine, so the pointer size decides.
    """
    name = platform.machine().lower()
    if name in ("aarch64", "arm64") and ctypes.sizeof(ctypes.c_void_p) == 4:
        return "armv7"
    return _MACHINES.get(name, name)


class _Coding(ctypes.Structure):
    """`edge_coding` of `edge_model.h`."""

    _fields_ = (("points", ctypes.c_uint32), ("scale_cdb", ctypes.c_int32), ("offset_cdbm", ctypes.c_int32))


class CompiledEngine:
    """An artifact's shared library, loaded from memory.

    n_features, n_outputs: the widths of `scores`.
    target: the name of the artifact's compile target.
    """

    def __init__(self, elf: bytes, target: str, n_features: int, n_outputs: int) -> None:
        """Load a shared library's bytes. Raises BadInput where this machine cannot run it."""
        self.target = target
        self.n_features = n_features
        self.n_outputs = n_outputs
        self._library = load_library(elf, target)
        self._verdict = ctypes.create_string_buffer(VERDICT_STRUCT.size)
        self._verdict_at = ctypes.byref(self._verdict)
        self._scores = self._library.edge_model_scores
        self._scores.argtypes = [ctypes.c_void_p, ctypes.c_void_p]
        # Absent from a model without a pipeline. No argtypes: bytes, ints and references are passed as they are,
        # and to convert what needs no conversion costs more than the call.
        self._infer = getattr(self._library, "edge_infer", None)
        if self._infer is not None:
            self._infer.restype = None  # what it returns is in the verdict, too
        self._screen = getattr(self._library, "edge_screen", None)
        self._unscreened = getattr(self._library, "edge_infer_unscreened", None)
        self._screen_score = getattr(self._library, "edge_screen_score", None)
        self._score = ctypes.c_int32()
        self._score_at = ctypes.byref(self._score)

    @classmethod
    def of(cls, bundle: Bundle) -> CompiledEngine:
        """The engine of a bundle for this machine. Raises BadInput where the bundle has none for it."""
        name = machine_target()
        artifacts = bundle.manifest["artifacts"]
        if name not in artifacts:
            raise BadInput(
                f"bundle {bundle.origin}: built for {', '.join(artifacts)}, not for this machine ({name}); "
                f"build it with --targets {name}"
            )
        model = bundle.manifest["model"]
        return cls(bundle.entry(artifacts[name]["entry"]), name, model["n_features"], model["n_outputs"])

    def infer(self, power_cdbm: bytes) -> Answer:
        """The answer to a sweep of little-endian int16; where the contract is broken, its reason says how."""
        if self._infer is None:
            raise BadInput("this bundle holds a model without a pipeline; build it with --pipeline")
        self._infer(power_cdbm, len(power_cdbm) >> 1, self._verdict_at)  # written whole, contract kept or not
        answer: Answer = _unpack(self._verdict)
        return answer

    @property
    def expander(self) -> Expander:
        """From a scanner's codes to powers in one C call, where the artifact is new enough to know how."""
        return self._expander if hasattr(self._library, "edge_powers") else in_python

    def _expander(self, points: int, scale_cdb: int, offset_cdbm: int) -> Expand:
        coding = _Coding(points, scale_cdb, offset_cdbm)
        powers = ctypes.create_string_buffer(2 * points)
        coding_at, powers_at = ctypes.byref(coding), ctypes.byref(powers)
        edge_powers = self._library.edge_powers
        edge_powers.restype = None

        def expand(codes: bytes) -> bytes:
            edge_powers(codes, coding_at, powers_at)
            return powers.raw

        return expand

    def screen(self, power_cdbm: bytes) -> Verdict:
        """The screen's verdict alone; its rung is NONE and its reason OK where it has no answer: ask `infer`."""
        if self._screen is None:
            raise BadInput("this bundle holds no screen; build it with --pipeline")
        self._screen(power_cdbm, len(power_cdbm) >> 1, self._verdict_at)
        return Verdict._make(_unpack(self._verdict))

    def screen_score(self, power_cdbm: bytes) -> int:
        """How much there may be, 0 to 255: below SCORE_ASK `screen` has an answer. -1 where the contract is broken.

        An artifact that is too old to tell how much says 0 or 255.
        """
        if self._screen_score is None:
            verdict = self.screen(power_cdbm)
            return -1 if verdict.reason else 0 if verdict.rung == Rung.SCREEN else 255
        if self._screen_score(power_cdbm, len(power_cdbm) >> 1, self._score_at):
            return -1
        return self._score.value

    def infer_unscreened(self, power_cdbm: bytes) -> Answer:
        """The trees' answer, whatever the screen says; an artifact that is too old for it screens all the same."""
        if self._unscreened is None:
            return self.infer(power_cdbm)
        self._unscreened(power_cdbm, len(power_cdbm) >> 1, self._verdict_at)
        answer: Answer = _unpack(self._verdict)
        return answer

    def scores(self, features: Sequence[float]) -> list[float]:
        """Raw scores for one row of `n_features` numbers, as float32. Raises BadInput on other widths."""
        if len(features) != self.n_features:
            raise BadInput(f"features: {len(features)} given, the model takes {self.n_features}")
        row = (ctypes.c_float * self.n_features)(*features)
        raw = (ctypes.c_double * self.n_outputs)()
        self._scores(row, raw)
        return list(raw)


_loaded = count()
"""Numbers the libraries of this process."""


def load_library(elf: bytes, target: str) -> ctypes.PyDLL:
    """Load a shared library's bytes into this process. Raises BadInput where this machine cannot run it.

    A PyDLL: to let go of the interpreter's lock and take it again costs more than the other threads would gain.

    An anonymous file: nothing to clean up, nobody can swap it between check and load, and it works where the
    file system is mounted read-only or noexec. The loader knows a library by its path, and with the descriptor's
    number used again the next library would be answered by the first one's code: so each path is spelt otherwise.
    """
    descriptor = os.memfd_create("edge_model", os.MFD_CLOEXEC)
    number = next(_loaded)
    spelling = "".join("./" if number >> bit & 1 else ".//" for bit in range(number.bit_length()))
    try:
        os.write(descriptor, elf)
        return ctypes.PyDLL(f"/proc/self/fd/{spelling}{descriptor}")
    except OSError as e:
        raise BadInput(
            f"artifact for {target}: cannot be loaded on this machine ({e}); build it again"
        ) from e
    finally:
        os.close(descriptor)
