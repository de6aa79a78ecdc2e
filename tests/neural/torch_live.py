"""Run where torch is installed: its modules against what is read of their programs, archives and ONNX files.

In a process of its own: torch need not share one with the interpreters. Prints torch's version.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import torch
from torch import nn

from compile.neural import run_float
from compile.neural.fold import fold
from compile.neural.load import load, takes


class Residual(nn.Module):
    """A sum of two ways, and a maximum over all positions."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv1d(1, 4, 5, padding="same"), nn.Conv1d(4, 4, 3, padding=1, groups=4)
        self.norm, self.out = nn.BatchNorm1d(4), nn.Linear(4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Signal in, three numbers out."""
        x = torch.relu(self.norm(self.first(x)))
        x = nn.functional.adaptive_max_pool1d(x + self.second(x), 1)
        return torch.softmax(self.out(x.flatten(1)), -1)


def modules() -> list[tuple[nn.Module, tuple[int, ...]]]:
    """Modules and their input shapes, without the batch."""
    signal = nn.Sequential(
        nn.Conv1d(1, 4, 5, padding="same"), nn.BatchNorm1d(4), nn.ReLU(), nn.MaxPool1d(2),
        nn.Conv1d(4, 6, 3, stride=2), nn.ReLU6(), nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(6, 3),
    )  # fmt: skip
    image = nn.Sequential(
        nn.Conv2d(2, 5, 3, stride=2, padding=1), nn.ReLU(), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(30, 2)
    )
    vector = nn.Sequential(nn.Linear(7, 9), nn.Tanh(), nn.Linear(9, 1), nn.Sigmoid())
    return [(signal, (1, 32)), (image, (2, 8, 12)), (vector, (7,)), (Residual(), (1, 24))]


def main() -> None:
    """Compare; an assertion fails where they differ."""
    torch.manual_seed(0)
    for module, shape in modules():
        module.eval()
        x = torch.randn(5, *shape)
        want = module(x).detach().numpy()
        program = torch.export.export(module, (x[:1],))
        assert takes(program)
        with tempfile.TemporaryDirectory() as name:
            archive, exported = Path(name, "m.pt2"), Path(name, "m.onnx")
            torch.export.save(program, archive)
            torch.onnx.export(module, (x[:1],), str(exported), dynamo=False)
            graphs = [load(program), load(archive), load(exported)]
        last = x.numpy().transpose({2: (0, 1), 3: (0, 2, 1), 4: (0, 2, 3, 1)}[x.ndim])
        for graph in graphs:
            for g in (graph, fold(graph)):
                got = run_float.run(g, last).reshape(want.shape)
                np.testing.assert_allclose(got, want, atol=2e-6)
    print(torch.__version__)


if __name__ == "__main__":
    main()
