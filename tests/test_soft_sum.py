"""Doubles summed without a unit for them: every bit that numpy's have, on sequences made to be hard to round."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from compile.emit import soft_sum
from compile.emit.trees import emit
from compile.emulate import Machine, Out
from compile.forest import CodeRule, Forest, PostTransform, float_keys
from compile.targets import target
from tests.tree_models import artifact, compile_for

SEQUENCES, LENGTH = 200, 48

Leaf = Callable[[np.random.Generator, float], float]


def any_leaf(rng: np.random.Generator, _total: float) -> float:
    """A leaf as boosting makes them: 53 random bits, exponents that fall off."""
    return float(rng.normal() * 2.0 ** -rng.integers(0, 18))


def tie(rng: np.random.Generator, total: float) -> float:
    """Some units and a half of a last place, the sum's or a neighbouring binade's, or a bit more or less."""
    unit = float(np.spacing(abs(total) or 1.0)) * float(rng.choice([0.5, 1.0, 2.0]))
    places = int(rng.integers(3, 42))
    units = int(rng.integers(-(2**places), 2**places))
    beside = 2.0 ** -int(rng.integers(2, max(52 - places, 3)))
    return unit * (units + 0.5 + float(rng.integers(-1, 2)) * beside)


def cancelling(rng: np.random.Generator, total: float) -> float:
    """What takes the sum to zero, or to a few units of its last place."""
    return -total + float(rng.integers(-3, 4)) * float(np.spacing(abs(total) or 1.0))


def at_a_power(rng: np.random.Generator, total: float) -> float:
    """What takes the sum to a power of two, or just beside it."""
    power = float(rng.choice([-1.0, 1.0])) * 2.0 ** int(rng.integers(-12, 5))
    return power - total + float(rng.integers(-4, 5)) * 2.0**-53 * abs(power)


def tiny(rng: np.random.Generator, _total: float) -> float:
    """Far below any sum, beyond what a scale can say."""
    return float(rng.normal() * 2.0 ** -rng.integers(20, 190))


def largest(rng: np.random.Generator, _total: float) -> float:
    """One of the largest, all of one sign: sums beyond what a scale can say."""
    return 4.0 + float(rng.random())


def zero(rng: np.random.Generator, _total: float) -> float:
    """A leaf of zero, of either sign."""
    return float(rng.choice([0.0, -0.0]))


def sequence(rng: np.random.Generator) -> list[float]:
    """Leaves of one output; most of them chosen by the sum so far."""
    kinds: tuple[Leaf, ...] = (
        any_leaf,
        any_leaf,
        tie,
        tie,
        tie,
        cancelling,
        at_a_power,
        at_a_power,
        tiny,
        zero,
    )
    if not rng.integers(0, 10):
        kinds = (largest,)
    total, leaves = 0.0, []
    for _ in range(LENGTH):
        leaf = kinds[int(rng.integers(0, len(kinds)))](rng, total)
        if abs(leaf) < 2.0**-195:
            leaf = 0.0
        leaves.append(leaf)
        total += leaf
    return leaves


def edges() -> list[list[float]]:
    """Sums that leave their binade beside a tie in the one that they come to."""
    made = []
    for sign in (1.0, -1.0):
        for units in (2.0**30, 2.0**30 + 1):
            for beside in (0.0, 2.0**-8, -(2.0**-8), 2.0**-9, 2.0**-20, -(2.0**-20)):
                step = sign * (units + 0.5 + beside)
                made.append([sign, -step * 2.0**-53])
                made.append([sign * (2.0 - 2.0**-52), step * 2.0**-51])
    return [leaves + [0.0] * (LENGTH - len(leaves)) for leaves in made]


def forest_of(leaves: NDArray[np.float64], base: NDArray[np.float64]) -> Forest:
    """Trees that are one leaf each: leaves (outputs, trees of an output)."""
    outputs, each = leaves.shape
    count = outputs * each
    ints = np.full(count, -1, np.int32)
    no = np.zeros(count, bool)
    return Forest(
        feature_names=("f",),
        n_outputs=outputs,
        roots=np.arange(count + 1, dtype=np.int32),
        feature=ints,
        threshold_key=np.zeros(count, np.int32),
        left=ints,
        right=ints,
        nan_left=no,
        zero_missing=no,
        category=ints,
        category_sets=(),
        code_rule=CodeRule.TRUNCATE,
        leaf=np.arange(count, dtype=np.int32),
        leaf_values=leaves.T.reshape(-1, 1),
        tree_output=np.tile(np.arange(outputs, dtype=np.int32), each),
        count=np.ones(count),
        base=base,
        base_first=True,
        divisor=1.0,
        single=False,
        post=PostTransform("identity"),
        source="test",
    )


@pytest.mark.parametrize("seed", range(3))
def test_every_sum_is_rounded_as_ieee_754_has_it(seed: int) -> None:
    rng = np.random.default_rng(seed)
    leaves = np.array([sequence(rng) for _ in range(SEQUENCES)] + edges())
    base = np.where(np.arange(len(leaves)) % 10 > 0, 0.0, rng.normal(size=len(leaves)))
    forest = forest_of(leaves, base)
    assert soft_sum.fits(forest)
    code = emit(forest, target("cortex-m4"))
    assert "bl .Lsum" in code.files["trees.S"]
    machine = Machine(target("cortex-m4"), artifact(code, "cortex-m4"))
    row = np.zeros((1, 1), np.float32)
    got = machine.call("edge_model_scores", row.tobytes(), Out(8 * len(leaves))).outputs[0]
    # Bits, not values: a zero's sign is compared too.
    np.testing.assert_array_equal(np.frombuffer(got, np.uint64), forest.raw_scores(row)[0].view(np.uint64))


def test_a_cold_leaf_of_zero_changes_no_sum() -> None:
    x = np.array([[0.0], [2.0]], np.float32)
    single = forest_of(np.array([[0.0, 0.75, 0.5]]), np.zeros(1))
    split = np.array([0, 1, 2, 3, 4, 5, 6, 7, 8])
    roots = np.array([0, 3, 6, 9], np.int32)
    is_root = np.isin(split, roots)
    forest = replace(
        single,
        roots=roots,
        feature=np.where(is_root, 0, -1).astype(np.int32),
        threshold_key=np.where(is_root, float_keys(np.ones(1, np.float32))[0], 0).astype(np.int32),
        left=np.where(is_root, split + 1, -1).astype(np.int32),
        right=np.where(is_root, split + 2, -1).astype(np.int32),
        nan_left=np.zeros(9, bool),
        zero_missing=np.zeros(9, bool),
        category=np.full(9, -1, np.int32),
        leaf=np.array([-1, 0, 1, -1, 2, 3, -1, 4, 5], np.int32),
        leaf_values=np.array([[0.0], [0.75], [0.0], [-0.5], [0.0], [0.25]]),
        count=np.array([1000, 1, 999, 1000, 1, 999, 1000, 1, 999], np.float64),  # the left leaves are cold
    )
    compiled = compile_for(forest, "cortex-m4")
    np.testing.assert_array_equal(compiled.scores(x), forest.raw_scores(x))


@pytest.mark.parametrize("value", [np.inf, 2.0**950, 2.0**-700])
def test_leaves_beyond_its_exponents_are_not_for_it(value: float) -> None:
    forest = forest_of(np.array([[0.5, value]]), np.zeros(1))
    assert not soft_sum.fits(forest)
    assert soft_sum.fits(forest_of(np.array([[0.5, 0.25]]), np.zeros(1)))
    assert not soft_sum.fits(forest_of(np.array([[0.5]]), np.array([-0.0])))
