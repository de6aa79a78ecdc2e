"""No row takes more instructions than the bound, whatever the style, the target and the row; deep rows come near."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from compile import cost, frontends, longest
from compile.emulate import Machine, Out
from compile.forest import Forest, key_to_float
from compile.machine_code import Kind, Step, Unreadable, functions
from compile.probes import ODD
from compile.targets import target
from compile.witness import witness_rows
from tests.test_trees import TARGETS, lightgbms, seeds, sklearns, xgboosts
from tests.tree_models import Compiled, Rows, Trained, compile_for, lightgbm_model, rows_for

MODES = ("exact", "fixed", "compact")


def deep_rows(forest: Forest, rows: int, seed: int) -> Rows:
    """Rows that climb towards long ways: of many tries, the values that pass the most splits are kept."""
    rng = np.random.default_rng(seed)
    depth = np.zeros(len(forest.feature), np.int64)
    for node in np.nonzero(forest.feature >= 0)[0]:
        depth[[forest.left[node], forest.right[node]]] = depth[node] + 1
    points = []
    for feature in range(forest.n_features):
        keys = np.unique(forest.threshold_key[(forest.feature == feature) & (forest.category < 0)])
        points.append(np.array([key_to_float(int(k)) for k in [*keys, *(keys + 1)]] or [0.0], np.float32))
    best = np.stack([rng.choice(p, rows) for p in points], 1)
    for _ in range(12):
        for feature, values in enumerate(points):
            tries = np.repeat(best, 3, axis=0)
            tries[:, feature] = np.where(
                np.arange(len(tries)) % 3, rng.choice(values, len(tries)), tries[:, feature]
            )
            lengths = depth[forest.leaves(tries)].sum(1).reshape(rows, 3)
            best = tries.reshape(rows, 3, -1)[np.arange(rows), lengths.argmax(1)]
    return best


def largest(name: str, artifact: bytes, rows: Rows, outputs: int) -> int:
    """The most instructions of these rows."""
    machine = Machine(target(name), artifact, count=True)
    out = Out(8 * outputs)
    return max(machine.call("edge_model_scores", row.tobytes(), out).instructions for row in rows)


def bound(compiled: Compiled, name: str) -> int | None:
    """The bound that a manifest would hold."""
    found = cost.bound(compiled.artifact, target(name), compiled.code)
    # Where the emitter's own code is all that loops, there is a bound, and nothing of it is from sample rows.
    if compiled.code.rank_turns or compiled.code.worst_instructions is not None:
        assert found["instructions"] is not None, found
        assert "inferred" not in found["found"]
    most: int | None = found["instructions"]
    return most


def hostile(forest: Forest, rows: Rows, seed: int) -> Rows:
    """Rows at thresholds, deep ones, odd ones, and those of the witnesses."""
    odd = np.repeat(ODD[:, None], forest.n_features, axis=1)
    found: Rows = np.concatenate([rows, deep_rows(forest, 6, seed), odd, witness_rows(forest, 24)])
    return found.astype(np.float32)


@given(st.one_of(lightgbms, xgboosts, sklearns), st.sampled_from(TARGETS), st.sampled_from(MODES), seeds)
@settings(
    max_examples=10, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
)
def test_no_row_exceeds_the_bound(trained: Trained, name: str, mode: str, seed: int) -> None:
    forest = frontends.load(trained.model).forest
    compiled = compile_for(forest, name, mode)
    most = bound(compiled, name)
    assume(most is not None)
    assert most is not None
    rows = hostile(forest, rows_for(forest, trained, seed, 24), seed)
    assert largest(name, compiled.artifact, rows, forest.n_outputs) <= most


@pytest.mark.parametrize(
    ("name", "mode", "near"),
    [
        ("x86_64", "exact", 0.6), ("armv7", "exact", 0.5), ("armv7", "fixed", 0.5), ("cortex-m4", "fixed", 0.5),
        ("aarch64", "exact", 0.5), ("cortex-m4", "exact", 0.15),
    ],
)  # fmt: skip
def test_deep_rows_come_near_the_bound(name: str, mode: str, near: float) -> None:
    forest = frontends.load(lightgbm_model(7, "multiclass", "gbdt", 0.0, False, False).model).forest
    compiled = compile_for(forest, name, mode)
    rows = hostile(forest, deep_rows(forest, 24, 0), 0)
    most, limit = largest(name, compiled.artifact, rows, forest.n_outputs), bound(compiled, name)
    assert limit is not None
    assert near * limit <= most <= limit


def test_a_loop_that_is_not_the_emitters_is_not_taken_for_one() -> None:
    forest = frontends.load(lightgbm_model(7, "binary", "gbdt", 0.0, False, False).model).forest
    compiled = compile_for(forest, "armv7", "exact")
    one_too_many = replace(compiled.code, rank_turns=(*compiled.code.rank_turns, 3))
    found = cost.bound(compiled.artifact, target("armv7"), one_too_many)
    assert found == {
        "instructions": None,
        "because": "the loops over the thresholds are not found in the code",
    }


def way(*kinds: Kind | tuple[Kind, int]) -> longest.Way:
    """Of a function of one-byte instructions from address 0 on."""
    steps = [Step(1, *kind) if isinstance(kind, tuple) else Step(1, kind) for kind in kinds]
    return longest.way(functions(steps.__getitem__, 0), 0)


GO, LEAVE = Kind.PLAIN, Kind.LEAVE


def test_a_way_takes_the_longer_side_and_each_loop_once() -> None:
    past, around, call = (Kind.BRANCH, 4), (Kind.BRANCH, 4), (Kind.CALL, 9)
    inner = (Kind.BRANCH, 7)
    found = way(GO, past, GO, call, GO, inner, GO, around, LEAVE, GO, LEAVE)
    assert found.longest == 4 + 2 + 4 + 1
    assert [(loop.header, loop.turn) for loop in found.loops] == [(4, 4)]


def test_what_cannot_be_followed_says_why() -> None:
    with pytest.raises(Unreadable, match="2 ways in"):
        way((Kind.BRANCH, 2), GO, GO, (Kind.BRANCH, 1), LEAVE)
    with pytest.raises(Unreadable, match="calls itself"):
        way((Kind.CALL, 0), LEAVE)
