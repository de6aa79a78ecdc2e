"""The compiled artifact, called through ctypes: one C call a scan, no copy, nothing allocated per point."""

from __future__ import annotations

import ctypes
import os
import platform
from collections.abc import Sequence
from typing import TYPE_CHECKING

from edge_runtime.errors import BadInput
from edge_runtime.verdict import UNKNOWN, VERDICT_STRUCT, Rung, Verdict

if TYPE_CHECKING:
    from edge_runtime.bundle import Bundle

_new_tuple = tuple.__new__

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
        self._verdict_at = ctypes.addressof(self._verdict)
        self._scores = self._library.edge_model_scores
        self._scores.argtypes = [ctypes.c_void_p, ctypes.c_void_p]
        self._infer = getattr(self._library, "edge_infer", None)  # absent from a model without a pipeline
        if self._infer is not None:
            self._infer.argtypes = [ctypes.c_char_p, ctypes.c_uint32, ctypes.c_void_p]
        self._screen = getattr(self._library, "edge_screen", None)
        if self._screen is not None:
            self._screen.argtypes = [ctypes.c_char_p, ctypes.c_uint32, ctypes.c_void_p]

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

    def infer(self, power_cdbm: bytes) -> Verdict:
        """The verdict on a sweep of little-endian int16; where the contract is broken, `reason` says how."""
        if self._infer is None:
            raise BadInput("this bundle holds a model without a pipeline; build it with --pipeline")
        code = self._infer(power_cdbm, len(power_cdbm) >> 1, self._verdict_at)
        if code:
            return Verdict(UNKNOWN, UNKNOWN, code, Rung.NONE, 0, 0, 0.0)
        # What Verdict._make does, without its Python frame: this runs once a scan.
        return _new_tuple(Verdict, VERDICT_STRUCT.unpack_from(self._verdict))

    def screen(self, power_cdbm: bytes) -> Verdict:
        """The screen's verdict alone; its rung is NONE and its reason OK where it has no answer: ask `infer`."""
        if self._screen is None:
            raise BadInput("this bundle holds no screen; build it with --pipeline")
        code = self._screen(power_cdbm, len(power_cdbm) >> 1, self._verdict_at)
        if code:
            return Verdict(UNKNOWN, UNKNOWN, code, Rung.NONE, 0, 0, 0.0)
        return Verdict._make(VERDICT_STRUCT.unpack(self._verdict))

    def scores(self, features: Sequence[float]) -> list[float]:
        """Raw scores for one row of `n_features` numbers, as float32. Raises BadInput on other widths."""
        if len(features) != self.n_features:
            raise BadInput(f"features: {len(features)} given, the model takes {self.n_features}")
        row = (ctypes.c_float * self.n_features)(*features)
        raw = (ctypes.c_double * self.n_outputs)()
        self._scores(row, raw)
        return list(raw)


def load_library(elf: bytes, target: str) -> ctypes.CDLL:
    """Load a shared library's bytes into this process. Raises BadInput where this machine cannot run it.

    An anonymous file: nothing to clean up, nobody can swap it between check and load, and it works where the
    file system is mounted read-only or noexec. It stays open: the loader knows a library by its path, so with
    the descriptor's number used again the next library would be answered by the first one's code.
    """
    descriptor = os.memfd_create("edge_model", os.MFD_CLOEXEC)
    try:
        os.write(descriptor, elf)
        return ctypes.CDLL(f"/proc/self/fd/{descriptor}")
    except OSError as e:
        os.close(descriptor)
        raise BadInput(
            f"artifact for {target}: cannot be loaded on this machine ({e}); build it again"
        ) from e
