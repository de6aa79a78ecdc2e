"""The bound on a model's instructions is one: no row that is run takes more, and some take nearly as many."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from compile import frontends
from compile.emit.trees import emit
from compile.emulate import Machine, Out
from compile.forest import Forest
from compile.targets import target
from compile.witness import witness_rows
from tests.test_trees import lightgbms, seeds, sklearns, xgboosts
from tests.tree_models import Trained, artifact, lightgbm_model, rows_for

ROWS = 60


def counted(forest: Forest, rows: NDArray[np.float32]) -> tuple[list[int], int | None]:
    """Instructions of each row on aarch64, and the bound."""
    code = emit(forest, target("aarch64"))
    machine = Machine(target("aarch64"), artifact(code, "aarch64"), count=True)
    out = Out(8 * forest.n_outputs)
    calls = [
        machine.call("edge_model_scores", r.tobytes(), out) for r in np.ascontiguousarray(rows, np.float32)
    ]
    return [c.instructions for c in calls], code.worst_instructions


@given(st.one_of(lightgbms, xgboosts, sklearns), seeds)
@settings(
    max_examples=12, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
)
def test_no_row_takes_more_than_the_bound(trained: Trained, seed: int) -> None:
    forest = frontends.load(trained.model).forest
    ordinary = rows_for(forest, trained, seed, ROWS)
    missing = np.full((1, forest.n_features), np.nan, np.float32)
    rows = np.concatenate([ordinary, missing, witness_rows(forest, ROWS)])
    taken, bound = counted(forest, rows)
    assert bound is None or max(taken) <= bound


@pytest.mark.parametrize("nan", [0.0, 0.1])
def test_the_bound_is_near(nan: float) -> None:
    forest = frontends.load(lightgbm_model(5, "binary", "gbdt", nan, False, False).model).forest
    taken, bound = counted(forest, witness_rows(forest, 2000))
    assert bound is not None
    assert max(taken) <= bound <= 1.35 * max(taken)
