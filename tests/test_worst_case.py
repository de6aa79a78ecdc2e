"""No row takes more instructions than the bound, whatever the style, the target and the row; deep rows come near."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, reject, settings
from hypothesis import strategies as st

from compile import cost, frontends
from compile.emit.turns import Turn
from compile.emulate import Machine, Out
from compile.forest import Forest, key_to_float
from compile.machine_code import Kind, Step, Unreadable, functions
from compile.probes import ODD
from compile.targets import target
from compile.witness import witness_rows
from compile.worst_case import Mark, most_instructions
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


def bound(compiled: Compiled, name: str) -> int:
    """The bound that a manifest would hold: there is one for everything that the emitters write."""
    found = cost.bound(compiled.artifact, target(name), compiled.code)
    assert found["instructions"] is not None, found
    return int(found["instructions"])


def hostile(forest: Forest, rows: Rows, seed: int) -> Rows:
    """Rows at thresholds, deep ones, odd ones, and those of the witnesses."""
    odd = np.repeat(ODD[:, None], forest.n_features, axis=1)
    found: Rows = np.concatenate([rows, deep_rows(forest, 6, seed), odd, witness_rows(forest, 24)])
    return found.astype(np.float32)


@given(st.one_of(lightgbms, xgboosts, sklearns), st.sampled_from(TARGETS), st.sampled_from(MODES), seeds)
@settings(
    max_examples=30, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
)
def test_no_row_exceeds_the_bound(trained: Trained, name: str, mode: str, seed: int) -> None:
    forest = frontends.load(trained.model).forest
    compiled = compile_for(forest, name, mode)
    most = bound(compiled, name)
    rows = hostile(forest, rows_for(forest, trained, seed, 24), seed)
    assert largest(name, compiled.artifact, rows, forest.n_outputs) <= most


@pytest.mark.parametrize("nan", [0.0, 0.1])
def test_the_bound_of_emitted_blocks_is_near(nan: float) -> None:
    forest = frontends.load(lightgbm_model(5, "binary", "gbdt", nan, False, False).model).forest
    compiled = compile_for(forest, "aarch64", "exact")
    most = largest("aarch64", compiled.artifact, witness_rows(forest, 2000), forest.n_outputs)
    assert most <= bound(compiled, "aarch64") <= 1.35 * most


@pytest.mark.parametrize(
    ("name", "mode", "near"),
    [
        ("x86_64", "exact", 0.75), ("armv7", "exact", 0.65), ("armv7", "fixed", 0.7), ("cortex-m4", "fixed", 0.7),
        ("aarch64", "exact", 0.8), ("cortex-m4", "exact", 0.2), ("aarch64", "compact", 0.65),
        ("cortex-m4", "compact", 0.6), ("cortex-m0", "compact", 0.6), ("cortex-m0", "exact", 0.45),
    ],
)  # fmt: skip
def test_deep_rows_come_near_the_bound(name: str, mode: str, near: float) -> None:
    forest = frontends.load(lightgbm_model(7, "multiclass", "gbdt", 0.0, False, False).model).forest
    compiled = compile_for(forest, name, mode)
    rows = hostile(forest, deep_rows(forest, 24, 0), 0)
    most, limit = largest(name, compiled.artifact, rows, forest.n_outputs), bound(compiled, name)
    assert near * limit <= most <= limit


@pytest.mark.parametrize("name", TARGETS)
def test_a_loop_without_a_limit_has_no_bound(name: str) -> None:
    forest = frontends.load(lightgbm_model(7, "multiclass", "gbdt", 0.0, False, False).model).forest
    compiled = compile_for(forest, name, "compact")
    unlimited = {k: n for k, n in compiled.code.turns.items() if k is not Turn.SPLIT}
    found = cost.bound(compiled.artifact, target(name), replace(compiled.code, turns=unlimited))
    assert found["instructions"] is None
    assert "turns as often as nothing in the model" in found["because"]


@pytest.mark.parametrize("kind", [Turn.TREE, Turn.SPLIT, Turn.HALVING, Turn.SLOT, Turn.CLEAR, Turn.PART])
def test_the_bound_rests_on_each_kind_of_loop(kind: Turn) -> None:
    """A limit one too low shows: so a bound is no accident of the others being too high."""
    forest = frontends.load(lightgbm_model(7, "multiclass", "gbdt", 0.0, False, False).model).forest
    compiled = compile_for(forest, "aarch64", "compact")
    fewer = {k: n - (k is kind) for k, n in compiled.code.turns.items()}
    lower = cost.bound(compiled.artifact, target("aarch64"), replace(compiled.code, turns=fewer))
    assert lower["instructions"] < bound(compiled, "aarch64")


GO, LEAVE = Kind.PLAIN, Kind.LEAVE


def most(
    *kinds: Kind | tuple[Kind, int], marks: Sequence[tuple[int, int]] = (), turns: dict[int, int]
) -> int:
    """Of a function of one-byte instructions from address 0 on."""
    steps = [Step(1, *kind) if isinstance(kind, tuple) else Step(1, kind) for kind in kinds]
    places = [Mark(*mark) for mark in marks]
    return most_instructions(functions(steps.__getitem__, 0), 0, places, turns)


def test_a_way_takes_the_longer_side() -> None:
    assert most(GO, (Kind.BRANCH, 4), GO, (Kind.JUMP, 5), GO, LEAVE, turns={}) == 5
    assert most(GO, (Kind.CALL, 4), GO, LEAVE, GO, GO, LEAVE, turns={}) == 7


def test_loops_turn_as_often_as_their_marks_are_passed() -> None:
    loop = (GO, GO, GO, (Kind.BRANCH, 1), LEAVE)
    assert most(*loop, marks=[(2, 0)], turns={0: 10}) == 1 + 10 * 3 + 1
    inner = (GO, GO, GO, (Kind.BRANCH, 2), GO, (Kind.BRANCH, 1), LEAVE)
    assert most(*inner, marks=[(4, 0), (3, 1)], turns={0: 5, 1: 20}) == 1 + 5 * 3 + 20 * 2 + 1


def test_unrolled_turns_and_what_is_left_of_them_share_a_limit() -> None:
    """Two marks in a turn of 4, then one in a turn of 3: 11 are five of the first and one of the other."""
    both = (GO, GO, GO, GO, (Kind.BRANCH, 1), GO, GO, (Kind.BRANCH, 5), LEAVE)
    assert most(*both, marks=[(2, 0), (3, 0), (6, 0)], turns={0: 11}) in range(
        1 + 11 * 3 + 1 - 10, 1 + 11 * 3 + 5
    )


def test_a_mark_at_a_blocks_beginning_is_where_a_loop_needs_it() -> None:
    """At address 1 it can be the last thing before the loop, or the first in it: only the latter bounds the loop."""
    assert most(GO, GO, GO, (Kind.BRANCH, 1), LEAVE, marks=[(1, 0)], turns={0: 7}) == 1 + 7 * 3 + 1
    # Here the inner loop has a mark of its own, so it is the outer one's.
    nested = (GO, GO, GO, (Kind.BRANCH, 2), (Kind.BRANCH, 1), LEAVE)
    assert most(*nested, marks=[(2, 0), (3, 1)], turns={0: 4, 1: 40}) == 1 + 4 * 2 + 40 * 2 + 1


def test_of_two_marks_between_blocks_the_last_is_the_loops() -> None:
    loop = (GO, GO, GO, (Kind.BRANCH, 1), LEAVE)
    assert most(*loop, marks=[(1, 0), (1, 1)], turns={0: 1, 1: 9}) == 1 + 9 * 3 + 1


Part = st.recursive(
    st.just("go"),
    lambda part: st.tuples(st.sampled_from(["if", "while", "until", "call"]), st.lists(part, max_size=3)),
    max_leaves=8,
)


class Program:
    """Structured code, its loops marked each with a kind of its own.

    items: (kind, item that it goes to) of a one-byte instruction, or the number of a mark, which has no size.
    """

    def __init__(self, parts: Sequence[Any]) -> None:
        self.items: list[tuple[Kind, int] | int] = []
        self.loops = 0
        self.later: list[tuple[int, Sequence[Any]]] = []
        self.function(parts)
        while self.later:
            at, body = self.later.pop()
            self.items[at] = Kind.CALL, len(self.items)
            self.function(body)
        sizes = [isinstance(item, tuple) for item in self.items]
        self.address = [sum(sizes[:n]) for n in range(len(sizes))]

    def function(self, parts: Sequence[Any]) -> None:
        self.body(parts)
        self.items.append((Kind.LEAVE, 0))

    def body(self, parts: Sequence[Any]) -> None:
        for part in parts:
            kind, inner = (part, []) if part == "go" else part
            at = len(self.items)
            if kind != "until":
                self.items.append((Kind.PLAIN, 0))
            if kind == "call":
                self.later.append((at, inner))
            if kind in {"while", "until"}:
                self.items.append(self.loops)
                self.loops += 1
            if kind in {"while", "until", "if"}:
                self.body(inner)
            if kind == "while":
                self.items.append((Kind.JUMP, at))
            if kind == "until":
                self.items.append((Kind.BRANCH, at))
            if kind in {"while", "if"}:
                self.items[at] = Kind.BRANCH, len(self.items)

    def most(self, limits: dict[int, int]) -> int:
        ops = [item for item in self.items if isinstance(item, tuple)]
        steps = [Step(1, kind, self.address[to]) for kind, to in ops]
        marks = [Mark(at, m) for at, m in zip(self.address, self.items, strict=True) if isinstance(m, int)]
        return most_instructions(functions(steps.__getitem__, 0), 0, marks, limits)

    def walk(self, rng: random.Random, most: int) -> tuple[int, dict[int, int]] | None:
        """Instructions of a random way, and how often it passed each mark; None for one that is too long."""
        passed = dict.fromkeys(range(self.loops), 0)
        at, taken, back = 0, 0, [-1]
        while at >= 0:
            item = self.items[at]
            at += 1
            if isinstance(item, int):
                passed[item] += 1
                continue
            taken += 1
            if taken == most:
                return None
            kind, to = item
            if kind is Kind.CALL:
                back.append(at)
            if kind in {Kind.CALL, Kind.JUMP} or (kind is Kind.BRANCH and rng.random() < 0.5):
                at = to
            if kind is Kind.LEAVE:
                at = back.pop()
        return taken, passed


@given(st.lists(Part, min_size=1, max_size=4), st.randoms(use_true_random=False))
@settings(max_examples=300, deadline=None, derandomize=True, database=None)
def test_no_way_through_any_structured_code_is_longer(parts: Sequence[Any], rng: random.Random) -> None:
    """The limits are those of a way that was taken, so it is among those that the bound is about."""
    program = Program(parts)
    for _ in range(20):
        found = program.walk(rng, 300)
        if found is not None:
            taken, passed = found
            try:
                bound = program.most(passed)
            except Unreadable:  # two loops that begin at one instruction: which mark is whose can stay open
                reject()
            assert taken <= bound


def test_what_cannot_be_followed_says_why() -> None:
    with pytest.raises(Unreadable, match="turns as often as nothing"):
        most(GO, (Kind.BRANCH, 0), LEAVE, turns={0: 1})
    with pytest.raises(Unreadable, match="calls itself"):
        most((Kind.CALL, 0), LEAVE, turns={})
