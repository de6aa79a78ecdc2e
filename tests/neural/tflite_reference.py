"""tflite-runtime as a program: answers rows of .tflite files, here or in an ARM guest. No import of this project.

python tflite_reference.py IN.npz OUT.npz      IN: model0 (bytes), rows0, model1, rows1, ...  OUT: out0, out1, ...
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np


def answers(model: bytes, rows: Any) -> Any:
    """The raw output of each row, without delegates, on one thread."""
    from tflite_runtime.interpreter import Interpreter, OpResolverType  # noqa: PLC0415 (guests have it only)

    interpreter = Interpreter(
        model_content=model,
        num_threads=1,
        experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
    )
    interpreter.allocate_tensors()
    given, got = interpreter.get_input_details()[0], interpreter.get_output_details()[0]
    out = []
    for row in rows:
        interpreter.set_tensor(given["index"], row.reshape(given["shape"]))
        interpreter.invoke()
        out.append(interpreter.get_tensor(got["index"])[0])
    return np.array(out)


def main() -> None:
    """Answer a file of models and rows."""
    found = {}
    with np.load(sys.argv[1]) as z:
        for n in range(len(z.files) // 2):
            found[f"out{n}"] = answers(z[f"model{n}"].tobytes(), z[f"rows{n}"])
    np.savez(sys.argv[2], **found)


if __name__ == "__main__":
    main()
