"""`scripts/train_demo network`: the demo's second model, a 1-D convolutional network over a sweep, to ONNX.

Needs torch and onnx (`pip install torch onnx onnxscript`), which nothing else here does. One thread and fixed seeds:
the same packages on the same machine give the same file; `edge-compile build` quantises it.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np

from compile.matrix import Matrix
from edge_runtime.recording import Split

SEED = 20261124
EPOCHS = 40
BATCH = 64
HERE = Path(__file__).parent


def network(classes: int) -> Any:
    """Powers in dBm, 1 x 256, to a logit a class. No margins, so a burst looks the same wherever it lies."""
    from torch import nn  # noqa: PLC0415 (only training needs it)

    return nn.Sequential(
        nn.BatchNorm1d(1, affine=False),  # dBm to the training data's own mean and deviation
        nn.Conv1d(1, 16, 7, stride=2),
        nn.BatchNorm1d(16),
        nn.ReLU(),
        nn.Conv1d(16, 24, 5, stride=2),
        nn.BatchNorm1d(24),
        nn.ReLU(),
        nn.Conv1d(24, 32, 5, stride=1),
        nn.BatchNorm1d(32),
        nn.ReLU(),
        nn.Conv1d(32, 32, 5, stride=1),
        nn.BatchNorm1d(32),
        nn.ReLU(),
        nn.AdaptiveMaxPool1d(1),
        nn.Flatten(),
        nn.Dropout(0.3),
        nn.Linear(32, classes),
    )


def train(power_cdbm: Any, label: Any, classes: int, capture: Any) -> Any:
    """A trained module. Sweeps of every class and, within it, of every recording count alike."""
    import torch  # noqa: PLC0415

    torch.manual_seed(SEED)
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    module = network(classes)
    x = torch.tensor(power_cdbm.astype(np.float32) / 100).unsqueeze(1)
    y = torch.tensor(label.astype(np.int64))
    weight = torch.tensor(_weights(label, capture))
    optimiser = torch.optim.AdamW(module.parameters(), lr=2e-3, weight_decay=1e-2)
    steps = EPOCHS * (len(x) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 4e-3, total_steps=steps)
    loss_of = torch.nn.CrossEntropyLoss(label_smoothing=0.05)
    module.train()
    for _ in range(steps):
        rows = torch.multinomial(weight, BATCH, replacement=True)
        optimiser.zero_grad()
        loss = loss_of(module(_varied(x[rows])), y[rows])
        loss.backward()
        optimiser.step()
        schedule.step()
    return module.eval()


def _weights(label: Any, capture: Any) -> Any:
    weight = np.zeros(len(label))
    for k in np.unique(label):
        of_class = label == k
        names = np.unique(capture[of_class])
        for name in names:
            rows = of_class & (capture == name)
            weight[rows] = 1 / (len(names) * rows.sum())
    return weight


def _varied(x: Any) -> Any:
    """Sweeps as they might have been: elsewhere on the axis, louder or fainter, a little noisier."""
    import torch  # noqa: PLC0415

    shift = torch.randint(-24, 25, (len(x),))
    columns = (torch.arange(x.shape[2])[None] + shift[:, None]) % x.shape[2]
    x = torch.gather(x, 2, columns[:, None])
    return x + 3 * torch.randn(len(x), 1, 1) + torch.randn_like(x) * torch.rand(len(x), 1, 1)


def main(arguments: list[str] | None = None) -> int:
    """Train and write the ONNX file."""
    parser = argparse.ArgumentParser(prog="scripts/train_demo network", description=__doc__)
    parser.add_argument("data", type=Path, help="the .npz that `edge-compile features` wrote")
    parser.add_argument("-o", "--output", type=Path, default=HERE / "network.onnx")
    args = parser.parse_args(arguments)
    import torch  # noqa: PLC0415

    matrix = Matrix.load(args.data)
    rows = (matrix.split == Split.TRAIN) & (matrix.label >= 0)
    module = train(matrix.power_cdbm[rows], matrix.label[rows], len(matrix.classes), matrix.capture[rows])
    example = torch.zeros(1, 1, matrix.power_cdbm.shape[1])
    os.environ.setdefault("TORCH_LOGS", "-all")
    torch.onnx.export(module, (example,), str(args.output), dynamo=False, input_names=["power_dbm"])
    return 0


if __name__ == "__main__":
    sys.exit(main())
