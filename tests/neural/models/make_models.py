"""Makes the models beside this file, with the frameworks' own answers, so that tests need no framework.

    pip install torch keras onnx onnxscript && KERAS_BACKEND=torch python make_models.py

keras_signal.keras, keras_image.keras; torch_*.onnx by both of torch's exporters, torch_*.pt2 by torch.export;
answers.npz: inputs and outputs.
"""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import keras
import numpy as np
import torch
from torch import nn

HERE = Path(__file__).parent


class Residual(nn.Module):
    """Every 1-D layer: strided, depthwise and pointwise convolutions, batch norm, residual, pools, dense."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(2, 6, 7, stride=2, padding=3)
        self.norm = nn.BatchNorm1d(6)
        self.depthwise = nn.Conv1d(6, 6, 3, padding=1, groups=6)
        self.point = nn.Conv1d(6, 6, 1)
        self.largest, self.mean = nn.MaxPool1d(2), nn.AvgPool1d(2)
        self.hidden, self.out = nn.Linear(48, 8), nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.norm(self.conv(x)))
        x = torch.relu(x + self.point(nn.functional.relu6(self.depthwise(x))))
        x = self.mean(self.largest(x)).flatten(1)
        return torch.softmax(self.out(torch.tanh(self.hidden(x))), -1)


def torch_models() -> dict[str, tuple[nn.Module, tuple[int, ...]]]:
    """Name -> (module, input shape)."""
    return {
        "residual": (Residual(), (1, 2, 64)),
        "image": (
            nn.Sequential(
                nn.Conv2d(3, 6, 3, stride=2, padding=1),
                nn.BatchNorm2d(6),
                nn.ReLU(),
                nn.MaxPool2d(3, 2, padding=1),
                nn.Conv2d(6, 4, 3, padding="same"),
                nn.ReLU6(),
                nn.AdaptiveAvgPool2d(1),
                nn.Flatten(),
                nn.Dropout(),
                nn.Linear(4, 2),
            ),
            (1, 3, 12, 16),
        ),
        "vector": (
            nn.Sequential(nn.Linear(10, 12), nn.BatchNorm1d(12), nn.ReLU(), nn.Linear(12, 1), nn.Sigmoid()),
            (1, 10),
        ),
        "dilated": (
            nn.Sequential(
                nn.Conv1d(2, 6, 5, dilation=2),
                nn.ReLU(),
                nn.AdaptiveMaxPool1d(1),
                nn.Flatten(),
                nn.Linear(6, 2),
            ),
            (1, 2, 40),
        ),
    }


def keras_models() -> dict[str, Any]:
    """Name -> model."""
    layers = keras.layers
    signal = keras.Sequential(
        [
            layers.Input((64, 1)),
            layers.Conv1D(6, 5, strides=2, padding="same", activation="relu", name="named"),
            layers.BatchNormalization(),
            layers.Conv1D(6, 3, padding="causal"),
            layers.ReLU(),
            layers.SeparableConv1D(8, 3, padding="same"),
            layers.MaxPooling1D(2),
            layers.DepthwiseConv1D(3),
            layers.ZeroPadding1D(1),
            layers.AveragePooling1D(2),
            layers.GlobalAveragePooling1D(),
            layers.Dropout(0.2),
            layers.Dense(4, activation="softmax"),
        ]
    )
    given = layers.Input((8, 10, 2))
    x = layers.Conv2D(4, 3, padding="same")(layers.Rescaling(0.5, -1.0)(given))
    y = layers.Conv2D(4, 3, padding="same", activation="relu")(x)
    x = layers.GlobalMaxPooling2D()(layers.Activation("relu6")(layers.Add()([x, y])))
    return {"signal": signal, "image": keras.Model(given, layers.Dense(3, activation="sigmoid")(x))}


def without_traces(path: Path) -> None:
    """The archive less its example inputs (a pickle) and its stack traces, which hold the paths of this machine."""
    with zipfile.ZipFile(path) as z:
        entries = {i.filename: z.read(i) for i in z.infolist() if "sample_inputs" not in i.filename}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as z:
        for name, data in entries.items():
            kept = data
            if name.endswith("models/model.json"):
                model = json.loads(data)
                for node in model["graph_module"]["graph"]["nodes"]:
                    node["metadata"] = {}
                kept = json.dumps(model).encode()
            entry = zipfile.ZipInfo(name)
            entry.compress_type = zipfile.ZIP_DEFLATED
            z.writestr(entry, kept)


def main() -> None:
    """Write every model and answers.npz."""
    torch.manual_seed(0)
    keras.utils.set_random_seed(1)
    rng = np.random.default_rng(0)
    found: dict[str, Any] = {}
    for name, (module, shape) in torch_models().items():
        for m in module.modules():
            if isinstance(m, nn.BatchNorm1d | nn.BatchNorm2d):
                m.running_mean.normal_(0, 0.3)
                m.running_var.uniform_(0.5, 2)
        module.eval()
        x = torch.tensor(rng.normal(0, 1, (6, *shape[1:])).astype(np.float32))
        found |= {f"torch_{name}_x": x.numpy(), f"torch_{name}_y": module(x).detach().numpy()}
        example = torch.zeros(shape)
        torch.onnx.export(module, (example,), str(HERE / f"torch_{name}_script.onnx"), dynamo=False)
        program = torch.onnx.export(module, (example,), dynamo=True, external_data=False)
        for part in (program.model, program.model.graph, *program.model.graph):
            part.metadata_props.clear()  # stack traces, with the paths of this machine
        program.save(str(HERE / f"torch_{name}_dynamo.onnx"))
        path = HERE / f"torch_{name}.pt2"
        torch.export.save(torch.export.export(module, (example,)), path)
        without_traces(path)
    for name, model in keras_models().items():
        weights = [
            rng.normal(0, 0.4, w.shape) if w.ndim > 1 else rng.uniform(0.2, 1.0, w.shape)
            for w in model.get_weights()
        ]
        model.set_weights(weights)
        x = rng.normal(0, 1, (6, *model.input_shape[1:])).astype(np.float32)
        found |= {f"keras_{name}_x": x, f"keras_{name}_y": model.predict(x, verbose=0)}
        model.save(HERE / f"keras_{name}.keras")
    np.savez_compressed(HERE / "answers.npz", **found)


if __name__ == "__main__":
    main()
