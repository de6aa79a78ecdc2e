"""Runs in the peers' own environment: a model to the C (or object) that a peer makes of it.

python trees_peers.py PEER MODEL OUT        MODEL: .txt (LightGBM), .json (XGBoost), .tl (Treelite), or .pickle
                                            (scikit-learn's, of bench_trees' own making)
"""

from __future__ import annotations

import pickle
import sys
from pathlib import Path


def tl2cgen(model: Path, out: Path, quantize: int) -> None:
    """TL2cgen's C, from Treelite's reading of the model."""
    import tl2cgen  # noqa: PLC0415
    import treelite  # noqa: PLC0415

    if model.suffix == ".tl":
        loaded = treelite.Model.deserialize(str(model))
    elif model.suffix == ".txt":
        loaded = treelite.frontend.load_lightgbm_model(str(model))
    else:
        loaded = treelite.frontend.load_xgboost_model(str(model))
    tl2cgen.generate_c_code(loaded, dirpath=str(out), params={"quantize": quantize}, verbose=False)


def m2cgen(model: Path, out: Path) -> None:
    """m2cgen's C, from an estimator with the model in it."""
    import m2cgen as peer  # noqa: PLC0415

    sys.setrecursionlimit(1_000_000)
    if model.suffix == ".txt":
        import lightgbm  # noqa: PLC0415

        booster = lightgbm.Booster(model_file=str(model))
        classes = booster.num_model_per_iteration()
        made = lightgbm.LGBMClassifier(objective="multiclass" if classes > 1 else "binary")
        made._Booster, made._n_classes, made.fitted_ = booster, max(classes, 2), True
        made._n_features = booster.num_feature()
    elif model.suffix == ".pickle":
        made = pickle.loads(model.read_bytes())
    else:
        # Tried with 0.10.0: a multi-class XGBClassifier of XGBoost 3.2 is a TypeError in its assembler.
        raise SystemExit("m2cgen 0.10: fails on XGBoost 3")
    out.mkdir(parents=True, exist_ok=True)
    (out / "main.c").write_text(peer.export_to_c(made))


def lleaves(model: Path, out: Path) -> None:
    """lleaves' object for this machine."""
    if model.suffix != ".txt":
        raise SystemExit("lleaves: takes LightGBM only")
    import lleaves as peer  # noqa: PLC0415

    out.mkdir(parents=True, exist_ok=True)
    peer.Model(model_file=str(model)).compile(cache=str(out / "model.o"))


def emlearn(model: Path, out: Path) -> None:
    """emlearn's inline C of a random forest, with float features."""
    if model.suffix != ".pickle":
        raise SystemExit("emlearn: takes scikit-learn's forests only, compiles no boosted trees")
    import emlearn as peer  # noqa: PLC0415

    out.mkdir(parents=True, exist_ok=True)
    peer.convert(pickle.loads(model.read_bytes()), method="inline", dtype="float").save(
        file=str(out / "rf.h"), name="rf"
    )


PEERS = {
    "tl2cgen": lambda model, out: tl2cgen(model, out, 0),
    "tl2cgen-quantize": lambda model, out: tl2cgen(model, out, 1),
    "m2cgen": m2cgen,
    "lleaves": lleaves,
    "emlearn": emlearn,
}

if __name__ == "__main__":
    PEERS[sys.argv[1]](Path(sys.argv[2]), Path(sys.argv[3]))
