"""A wrong threshold, leaf or child in the emitted code does not pass verification."""

from __future__ import annotations

import numpy as np
import pytest

from compile import frontends
from compile.build import build
from compile.witness import witness_rows
from tests.tree_models import lightgbm_model
from tests.tree_mutations import caught_by_verify

MUTANTS = 8
MODEL = lightgbm_model(7, "multiclass", "gbdt", 0.0, False, False).model


@pytest.mark.parametrize("name", ["x86_64", "aarch64", "armv7"])
def test_verify_refuses_a_bundle_with_a_mutant(name: str) -> None:
    """Through the command's own path, on a bundle as it would be shipped."""
    bundle = build(MODEL, targets=[name])
    caught = list(caught_by_verify(bundle, frontends.load(MODEL).forest, MUTANTS))
    assert len(caught) == MUTANTS
    assert not [what for what, why in caught if not why]


def test_witness_rows_reach_both_sides_of_every_split() -> None:
    forest = frontends.load(lightgbm_model(8, "binary", "gbdt", 0.1, False, True).model).forest
    rows = witness_rows(forest, 100_000)
    leaves = forest.leaves(rows)
    reached = set(np.unique(leaves).tolist())
    assert reached == set(np.nonzero(forest.feature < 0)[0].tolist())
