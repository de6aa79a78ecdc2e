"""One backend answering one network, alone in its process: times on the host, marks for the counter in a guest.

    python network_peer.py BACKEND MODEL ROW REPEATS      prints {"start_ms", "us", "memory_kib"} as JSON

BACKEND: tflite-runtime, ai-edge-litert, ai-edge-litert-delegate, tflite-micro, onnxruntime, device (this project's
engine around tflite-runtime), compiled and emlearn (MODEL is then the shared library).
memory_kib: what the process grew by from before the backend's import to after its first inference; numpy, which all
interpreters take, and this project's own loader are there before.
Marks: 1 before a block of repeats, 2 after it; the last count.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

_MARK = 0x5CA00000
BLOCKS = 40


def mark(number: int) -> None:
    """Tell the counter where we are: a harmless system call it looks for."""
    with suppress(OSError):
        os.getpriority(os.PRIO_PROCESS, _MARK | number)


def interpreter(package: str, delegate: bool, model: bytes, row: bytes) -> Callable[[], object]:
    """The bare invoke, its input set."""
    import numpy as np  # noqa: PLC0415 (only the backends that need it)

    module = importlib.import_module(f"{package}.interpreter")
    resolver = module.OpResolverType
    made = module.Interpreter(
        model_content=model,
        num_threads=1,
        experimental_op_resolver_type=resolver.AUTO
        if delegate
        else resolver.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
    )
    made.allocate_tensors()
    given = made.get_input_details()[0]
    made.set_tensor(given["index"], np.frombuffer(row, given["dtype"]).reshape(given["shape"]))
    invoke: Callable[[], object] = made.invoke
    return invoke


def micro(model: bytes, row: bytes) -> Callable[[], object]:
    """TensorFlow Lite Micro's Python interpreter."""
    import numpy as np  # noqa: PLC0415
    from tflite_micro import runtime  # noqa: PLC0415

    made = runtime.Interpreter.from_bytes(model)
    given = made.get_input_details(0)
    made.set_input(np.frombuffer(row, given["dtype"]).reshape(given["shape"]), 0)
    invoke: Callable[[], object] = made.invoke
    return invoke


def onnxruntime(model: bytes, row: bytes) -> Callable[[], object]:
    """The float network."""
    import numpy as np  # noqa: PLC0415
    import onnxruntime as ort  # noqa: PLC0415

    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    given = session.get_inputs()[0]
    size = int(np.prod(given.shape))
    kind = np.int16 if len(row) == 2 * size else np.int8
    x = (np.frombuffer(row, kind) / 100).astype(np.float32).reshape(given.shape)
    return lambda: session.run(None, {given.name: x})


def emlearn(model: bytes, row: bytes) -> Callable[[], object]:
    """emlearn's C through ctypes, fed real numbers."""
    import ctypes  # noqa: PLC0415

    with tempfile.NamedTemporaryFile(suffix=".so") as f:
        f.write(model)
        f.flush()
        library = ctypes.CDLL(f.name)
    x, y = (ctypes.c_float * len(row))(*(b / 256 for b in row)), (ctypes.c_float * 16)()
    given = ctypes.byref(x), ctypes.byref(y)
    return lambda: library.edge_network(*given)


def memory_kib() -> int:
    """Resident memory of this process."""
    with open("/proc/self/statm", encoding="ascii") as f:
        return int(f.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") // 1024


def device(model: bytes, row: bytes) -> Callable[[], object]:
    """The whole device path: bytes of a sweep in, bytes of the answer out."""
    from edge_runtime.engines.tflite import InterpretedNetwork  # noqa: PLC0415

    network = InterpretedNetwork(model, "tflite-runtime")
    return lambda: network.run(row)


def compiled(model: bytes, row: bytes) -> Callable[[], object]:
    """The emitted C through ctypes, as the device calls it."""
    from edge_runtime.engines.network import CompiledNetwork  # noqa: PLC0415

    network = CompiledNetwork(model, "host", len(row), 64)
    return lambda: network.run(row)


def main() -> None:
    """Run one backend."""
    backend, model, row, repeats = (
        sys.argv[1],
        *(Path(p).read_bytes() for p in sys.argv[2:4]),
        int(sys.argv[4]),
    )
    makers: dict[str, Callable[[], Callable[[], object]]] = {
        "tflite-runtime": lambda: interpreter("tflite_runtime", False, model, row),
        "ai-edge-litert": lambda: interpreter("ai_edge_litert", False, model, row),
        "ai-edge-litert-delegate": lambda: interpreter("ai_edge_litert", True, model, row),
        "tflite-micro": lambda: micro(model, row),
        "onnxruntime": lambda: onnxruntime(model, row),
        "emlearn": lambda: emlearn(model, row),
        "device": lambda: device(model, row),
        "compiled": lambda: compiled(model, row),
    }
    # What is there anyway: all interpreters' numpy, the device's own loader.
    importlib.import_module(
        {"compiled": "edge_runtime.engines.network", "emlearn": "ctypes"}.get(backend, "numpy")
    )
    memory = memory_kib()
    begun = time.perf_counter()
    invoke = makers[backend]()
    invoke()
    start_ms = 1000 * (time.perf_counter() - begun)
    memory = memory_kib() - memory
    best = float("inf")
    for _ in range(BLOCKS):
        mark(1)
        begun = time.perf_counter()
        for _ in range(repeats):
            invoke()
        best = min(best, time.perf_counter() - begun)
        mark(2)
    print(json.dumps({"start_ms": start_ms, "us": 1e6 * best / repeats, "memory_kib": memory}))


if __name__ == "__main__":
    main()
