"""A wrong threshold, leaf or child in the emitted code does not pass verification."""

from __future__ import annotations

import numpy as np
import pytest

from compile import frontends
from compile.emit.trees import emit
from compile.emulate import EmulationFault
from compile.targets import target
from compile.verify import Inputs, ParityFailed, check
from compile.witness import observable_splits, witness_rows
from tests.tree_models import artifact, lightgbm_model
from tests.tree_mutations import mutants

MUTANTS = 12


@pytest.mark.parametrize("name", ["x86_64", "aarch64", "armv7"])
def test_mutants_are_caught(name: str) -> None:
    forest = frontends.load(lightgbm_model(7, "multiclass", "gbdt", 0.0, False, False).model).forest
    rows = witness_rows(forest, 4000)
    code = emit(forest, target(name))
    inputs = Inputs(np.zeros((0, 0), np.int16), rows, forest.n_outputs, forest.raw_scores(rows))
    check({name: artifact(code, name)}, inputs)
    roots = forest.roots
    splits = set()
    for split in observable_splits(forest, rows):
        tree = int(np.searchsorted(roots, split, "right")) - 1
        splits.add(f".Lt{tree}n{split - roots[tree]}")
    assert len(splits) > 0.5 * (forest.feature >= 0).sum()
    for what, mutant in mutants(code, MUTANTS, splits=splits):
        try:
            check({name: artifact(mutant, name)}, inputs)
        except (ParityFailed, EmulationFault):
            continue
        pytest.fail(f"not caught: {what}")


def test_witness_rows_reach_both_sides_of_every_split() -> None:
    forest = frontends.load(lightgbm_model(8, "binary", "gbdt", 0.1, False, True).model).forest
    rows = witness_rows(forest, 100_000)
    leaves = forest.leaves(rows)
    reached = set(np.unique(leaves).tolist())
    assert reached == set(np.nonzero(forest.feature < 0)[0].tolist())
