"""A wrong threshold, leaf or child in the emitted code does not pass verification."""

from __future__ import annotations

import numpy as np
import pytest

from compile import frontends
from compile.emit.trees import emit
from compile.emulate import EmulationFault
from compile.targets import target
from compile.verify import Inputs, ParityFailed, check
from compile.witness import witness_rows
from tests.tree_models import artifact, lightgbm_model
from tests.tree_mutations import mutants

MUTANTS = 6


@pytest.mark.parametrize("name", ["x86_64", "aarch64", "armv7"])
def test_mutants_are_caught(name: str) -> None:
    forest = frontends.load(lightgbm_model(7, "multiclass", "gbdt", 0.0, False, False).model).forest
    rows = witness_rows(forest, 4000)
    code = emit(forest, target(name))
    inputs = Inputs(np.zeros((0, 0), np.int16), rows, forest.n_outputs, forest.raw_scores(rows))
    check({name: artifact(code, name)}, inputs)
    missed = []
    for what, mutant in mutants(code, MUTANTS):
        try:
            check({name: artifact(mutant, name)}, inputs)
        except (ParityFailed, EmulationFault):
            continue
        missed.append(what)
    # Where jumps are threaded from tree to tree, a copy of a test may be reached only by rows on which the mutant's
    # threshold falls as the right one: no row tells the two apart.
    assert len(missed) <= (1 if code.style == "threaded" else 0), missed
    assert all(what.startswith("threshold") for what in missed)


def test_witness_rows_reach_both_sides_of_every_split() -> None:
    forest = frontends.load(lightgbm_model(8, "binary", "gbdt", 0.1, False, True).model).forest
    rows = witness_rows(forest, 100_000)
    leaves = forest.leaves(rows)
    reached = set(np.unique(leaves).tolist())
    assert reached == set(np.nonzero(forest.feature < 0)[0].tolist())
