"""A .tflite run by tflite-runtime (the reference, bit-exact) or ai-edge-litert, whichever is installed and works.

The interpreter is built once, with one thread and without delegates (LiteRT's default delegate answers other bits).
Its input and output tensors stay where allocate_tensors put them, so an inference is a copy of bytes in, invoke, and
a copy of bytes out: no numpy call, and nothing made in Python but the result.
"""

from __future__ import annotations

import ctypes
import importlib
from importlib import metadata
from importlib.util import find_spec
from typing import Any

from edge_runtime.errors import BadInput

PACKAGES = {"tflite-runtime": "tflite_runtime", "ai-edge-litert": "ai_edge_litert"}
"""Packages by preference, with the module each installs."""


class InterpretedNetwork:
    """A network in an interpreter."""

    def __init__(self, data: bytes, package: str) -> None:
        """Build the interpreter of `package` and prove with one inference that it runs.

        Raises BadInput where the package is missing, cannot work here, or refuses the file.
        """
        self.name = package
        self.bit_exact = package == "tflite-runtime"
        _check_installed(package)
        try:
            module = importlib.import_module(f"{PACKAGES[package]}.interpreter")
            self._interpreter: Any = module.Interpreter(
                model_content=data,
                num_threads=1,
                experimental_op_resolver_type=module.OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
            )
            self._interpreter.allocate_tensors()
            self._invoke = self._interpreter.invoke
            self._invoke()
        except (ImportError, ValueError, RuntimeError, AttributeError, OSError, SystemError) as e:
            raise BadInput(f"{package}: cannot run this network ({_first_line(e)})") from e
        self._input = self._memory(self._interpreter.get_input_details()[0]["index"])
        self._output = self._memory(self._interpreter.get_output_details()[0]["index"])

    def _memory(self, index: int) -> memoryview:
        """A tensor's bytes, where the interpreter keeps them."""
        array = self._interpreter.tensor(index)()
        place, size = array.__array_interface__["data"][0], array.nbytes
        # The array itself must go: the interpreter refuses to run while one looks into it.
        return memoryview((ctypes.c_char * size).from_address(place)).cast("B")

    def run(self, data: bytes) -> bytes:
        """The output tensor's bytes. Raises BadInput where `data` is not the input tensor's size."""
        try:
            self._input[:] = data
        except ValueError as e:
            raise BadInput(f"network: {len(data)} bytes given, it takes {len(self._input)}") from e
        self._invoke()
        return bytes(self._output)


def open_interpreter(data: bytes, prefer: str | None = None) -> InterpretedNetwork:
    """The first interpreter that is installed and runs the file. Raises BadInput with what each lacked."""
    if prefer is not None and prefer not in PACKAGES:
        raise BadInput(f"interpreter {prefer!r}: unknown; choose of {', '.join(PACKAGES)}")
    reasons = []
    for package in [prefer] if prefer else PACKAGES:
        try:
            return InterpretedNetwork(data, package)
        except BadInput as e:
            reasons.append(str(e))
    raise BadInput("; ".join(reasons))


def _check_installed(package: str) -> None:
    """tflite-runtime imports beside numpy 2 and dies only in use: say so here, with the cure."""
    if find_spec(PACKAGES[package]) is None:
        raise BadInput(f"{package}: is not installed; pip install {package}")
    try:
        numpy = metadata.version("numpy")
    except metadata.PackageNotFoundError as e:
        raise BadInput(f"{package}: needs numpy; pip install numpy") from e
    if package == "tflite-runtime" and int(numpy.split(".")[0]) >= 2:
        raise BadInput(
            f"tflite-runtime: cannot work beside numpy {numpy}; pip install 'numpy<2', or pip install ai-edge-litert"
        )


def _first_line(e: BaseException) -> str:
    return (str(e) or type(e).__name__).strip().split("\n")[0]
