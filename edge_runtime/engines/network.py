"""A small network on this machine: as compiled C, or through an interpreter of its .tflite; one interface.

The compiled C and tflite-runtime on ARM answer the same bits (the build proves it), and the C is the cheaper, so it
is taken where the bundle holds it for this machine; an interpreter serves where it does not.
"""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING, Protocol

from edge_runtime.engines.compiled import load_library, machine_target
from edge_runtime.errors import BadInput

if TYPE_CHECKING:
    from edge_runtime.bundle import Bundle


class Network(Protocol):
    """One way to run a network. `name` says which, `bit_exact` whether its answers are the build's to the bit."""

    name: str
    bit_exact: bool

    def run(self, data: bytes) -> bytes:
        """The output tensor's bytes for the input tensor's bytes."""
        ...


class CompiledNetwork:
    """The network's own shared library."""

    name = "compiled"
    bit_exact = True

    def __init__(self, elf: bytes, target: str, input_bytes: int, output_bytes: int) -> None:
        """Load a shared library's bytes. Raises BadInput where this machine cannot run it."""
        self._library = load_library(elf, target)  # the function lives as long as its library does
        self._network = self._library.edge_network
        self._network.restype = None  # it always returns 0
        # No argtypes: bytes and references are passed as they are; to convert them allocates.
        self._input_bytes = input_bytes
        self._output = ctypes.create_string_buffer(output_bytes)
        self._output_at = ctypes.byref(self._output)
        self._view = memoryview(self._output).cast("B")

    def run(self, data: bytes) -> bytes:
        """The output tensor's bytes. Raises BadInput where `data` is not the input tensor's size."""
        if len(data) != self._input_bytes:
            raise BadInput(f"network: {len(data)} bytes given, it takes {self._input_bytes}")
        self._network(data, self._output_at)
        return bytes(self._view)


def open_network(bundle: Bundle, prefer: str | None = None) -> Network:
    """The network of a bundle, by what this machine has.

    prefer: compiled, tflite-runtime or ai-edge-litert, and no other. Raises BadInput where none can run, with why.
    """
    section = bundle.manifest.get("network")
    if section is None:
        raise BadInput(f"bundle {bundle.origin}: holds no network; build it with one")
    sizes = section["input_bytes"], section["output_bytes"]
    entry = section["artifacts"].get(machine_target())
    if entry is not None and prefer in (None, "compiled"):
        return CompiledNetwork(bundle.entry(entry), machine_target(), *sizes)
    if prefer == "compiled":
        raise BadInput(
            f"bundle {bundle.origin}: holds the network's C for {', '.join(section['artifacts'])}, not for "
            f"{machine_target()}; build it with --targets {machine_target()}"
        )
    from edge_runtime.engines.tflite import open_interpreter  # noqa: PLC0415 (numpy only where an interpreter runs)

    return open_interpreter(bundle.entry(section["tflite"]), prefer)
