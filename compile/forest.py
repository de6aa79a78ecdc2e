"""The one intermediate form of a tree ensemble: what every front end makes and every emitter reads.

All comparisons of all training libraries become one: a row goes left where `key(x) <= threshold_key`. `key`
is the order of float32 as an integer (`float_keys`), so `x < t`, `x <= t` and float64 thresholds lose
nothing: features arrive as float32, and between two neighbouring float32 lies exactly one integer boundary.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int32]
Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

ZERO_KEY = 89_435_438
"""Key of float32 1e-35, LightGBM's `kZeroThreshold`: what is not further from zero is zero to it."""
INF_KEY = 0x7F800000
"""Key of +inf; -INF_KEY is -inf. `float_keys` gives NAN_KEY for every NaN."""
NAN_KEY = 0x7FFFFFFF


class CodeRule(Enum):
    """How a categorical feature's float32 becomes an integer code; what fits no code is "other"."""

    TRUNCATE = "truncate"  # LightGBM's (int)x: -0.5 is category 0, -1 and below are other
    FLOOR = "floor"  # XGBoost and Treelite: negative is other, fractions are cut off
    EXACT = "exact"  # scikit-learn's ordinal encoder: fractions are other


@dataclass(frozen=True, slots=True)
class CategorySet:
    """A categorical split: the codes that go left, those that go right, and where all others go."""

    left: frozenset[int]
    right: frozenset[int]
    other_left: bool

    def goes_left(self, code: int | None) -> bool:
        """Where a code goes; None is a value that is no code."""
        return code in self.left or (self.other_left and code not in self.right)


@dataclass(frozen=True, slots=True)
class PostTransform:
    """How raw scores become what the training library's `predict` answers (floating point, not exact).

    name: Treelite's name of it (sigmoid, softmax, identity, exponential, ...).
    divisor: raw scores are divided by it first (LightGBM's random forests sum in `raw_score=True`).
    """

    name: str
    sigmoid_alpha: float = 1.0
    ratio_c: float = 1.0
    divisor: float = 1.0


@dataclass(frozen=True, slots=True, eq=False)
class Forest:
    """A tree ensemble. Nodes of all trees lie in one array each, a tree's root first.

    roots: (trees + 1,), tree t is nodes roots[t] .. roots[t + 1] - 1.
    feature: (nodes,), -1 at a leaf. left, right: (nodes,), absolute node numbers.
    threshold_key: (nodes,), the row goes left where key(x) <= threshold_key.
    nan_left: (nodes,), where NaN goes. zero_missing: (nodes,), whether |x| <= 1e-35 counts as NaN.
    category: (nodes,), index into `category_sets`, -1 at a numeric split or a leaf.
    leaf: (nodes,), row of `leaf_values`, -1 at a split.
    leaf_values: (leaves, 1), or (leaves, outputs) where `tree_output` is -1.
    tree_output: (trees,), the output that a tree adds to, -1 for all of them.
    count: (nodes,), training rows (or hessian) that reached a node: how hot it is.
    base: (outputs,), added before the trees where `base_first`, else after.
    divisor: the sum of the trees is divided by it.
    single: sums are float32 (XGBoost), else float64.
    source: the library whose raw scores are reproduced.
    """

    feature_names: tuple[str, ...]
    n_outputs: int
    roots: Ints
    feature: Ints
    threshold_key: Ints
    left: Ints
    right: Ints
    nan_left: Bools
    zero_missing: Bools
    category: Ints
    category_sets: tuple[CategorySet, ...]
    code_rule: CodeRule
    leaf: Ints
    leaf_values: Floats
    tree_output: Ints
    count: Floats
    base: Floats
    base_first: bool
    divisor: float
    single: bool
    post: PostTransform
    source: str

    @property
    def n_features(self) -> int:
        """Number of input features."""
        return len(self.feature_names)

    @property
    def n_trees(self) -> int:
        """Number of trees."""
        return len(self.roots) - 1

    def depths(self) -> Ints:
        """(nodes,), splits above a node."""
        depth = np.zeros(len(self.feature), np.int32)
        level = self.roots[:-1]
        while len(level := level[self.feature[level] >= 0]):
            children = np.concatenate([self.left[level], self.right[level]])
            depth[children] = np.tile(depth[level] + 1, 2)
            level = children
        return depth

    def tree_depths(self) -> Ints:
        """(trees,), splits on a tree's longest way."""
        deepest: Ints = np.maximum.reduceat(self.depths(), self.roots[:-1])
        return deepest

    def raw_scores(self, x: NDArray[np.float32]) -> Floats:
        """Raw scores, float64 (rows, outputs), of float32 `x` (rows, features): bit for bit the library's."""
        x = np.ascontiguousarray(x, np.float32)
        return np.concatenate([self._block(x[at : at + 4096]) for at in range(0, max(len(x), 1), 4096)])

    def leaves(self, x: NDArray[np.float32]) -> Ints:
        """The leaf node, int32 (rows, trees), that each row reaches in each tree."""
        keys = float_keys(x)
        codes = category_codes(x, self.code_rule) if self.category_sets else keys
        at = np.broadcast_to(self.roots[:-1], (len(x), self.n_trees)).copy()
        while True:
            rows, trees = np.nonzero(self.feature[at] >= 0)
            if not len(rows):
                return at
            node = at[rows, trees]
            at[rows, trees] = np.where(
                self.goes_left(node, keys, codes, rows), self.left[node], self.right[node]
            )

    def counted(self, x: NDArray[np.float32]) -> Forest:
        """The same forest with the counts of rows `x` (rows, features) in place of training's.

        What a device meets is what its code should be quick on; and a model can be shipped without its counts.
        Every leaf counts half a row more than it saw, so that none is thought impossible.
        """
        count = np.bincount(self.leaves(x).ravel(), minlength=len(self.feature)) + 0.5
        for node in range(len(count) - 1, -1, -1):  # children come after their parents
            if self.feature[node] >= 0:
                count[node] = count[self.left[node]] + count[self.right[node]]
        return replace(self, count=count)

    def goes_left(self, node: Ints, keys: Ints, codes: Ints, rows: NDArray[np.intp]) -> Bools:
        """Which rows go left at which nodes (pairs of `node` and `rows`), by keys and codes of all rows."""
        feature = self.feature[node]
        key = keys[rows, feature]
        missing = (key == NAN_KEY) | (self.zero_missing[node] & (np.abs(key) <= ZERO_KEY))
        goes = np.where(missing, self.nan_left[node], key <= self.threshold_key[node])
        for i in np.nonzero((self.category[node] >= 0) & ~missing)[0]:
            code = int(codes[rows[i], feature[i]])
            goes[i] = self.category_sets[self.category[node[i]]].goes_left(code if code >= 0 else None)
        return goes

    def _block(self, x: NDArray[np.float32]) -> Floats:
        leaves = self.leaf[self.leaves(x)]
        dtype: Any = np.float32 if self.single else np.float64
        values = self.leaf_values.astype(dtype)
        total: NDArray[Any] = np.zeros((len(x), self.n_outputs), dtype)
        base = self.base.astype(dtype)
        if self.base_first:
            total += base
        for tree, output in enumerate(self.tree_output):
            if output < 0:
                total += values[leaves[:, tree]]
            else:
                total[:, output] += values[leaves[:, tree], 0]
        if self.divisor != 1:
            total /= dtype(self.divisor)
        if not self.base_first:  # Treelite adds its float64 base scores to float32 sums, and rounds then
            total = (total.astype(np.float64) + self.base).astype(dtype)
        return total.astype(np.float64)

    def dump(self) -> Iterator[str]:
        """The forest as text, one line a node: what `--dump forest` prints."""
        yield f"forest of {self.source}: {self.n_trees} trees, {self.n_features} features, " + (
            f"{self.n_outputs} outputs, sums in float{32 if self.single else 64}"
        )
        yield f"base {self.base.tolist()} {'first' if self.base_first else 'last'}, divisor {self.divisor}"
        for tree in range(self.n_trees):
            yield f"tree {tree} -> output {self.tree_output[tree] if self.tree_output[tree] >= 0 else 'all'}"
            for node in range(self.roots[tree], self.roots[tree + 1]):
                yield f"  {node - self.roots[tree]}: {self.describe(node)}"

    def describe(self, node: int) -> str:
        """One node in a line; children are numbered within their tree."""
        if self.feature[node] < 0:
            return f"leaf {self.leaf_values[self.leaf[node]].tolist()}"
        tree = int(np.searchsorted(self.roots, node, "right")) - 1
        name = self.feature_names[self.feature[node]]
        if self.category[node] >= 0:
            chosen = self.category_sets[self.category[node]]
            test = f"{name} in {sorted(chosen.left)}"
            test += f" or not in {sorted(chosen.right)}" if chosen.other_left else ""
        else:
            test = f"{name} <= {key_to_float(int(self.threshold_key[node]))!r}"
        missing = "NaN and zero" if self.zero_missing[node] else "NaN"
        side = "left" if self.nan_left[node] else "right"
        left, right = self.left[node] - self.roots[tree], self.right[node] - self.roots[tree]
        return f"{test} ? {left} : {right}, {missing} {side}, seen {self.count[node]:g}"


def float_keys(x: NDArray[np.float32]) -> Ints:
    """Order of float32 as int32: x < y exactly where key(x) < key(y); -0 equals 0; every NaN is NAN_KEY."""
    bits = np.ascontiguousarray(x, np.float32).view(np.int32)
    keys = np.where(bits < 0, np.int32(-(2**31)) - bits, bits)
    return np.where(np.isnan(x), np.int32(NAN_KEY), keys)


def key_to_float(key: int) -> float:
    """The float32 of a key."""
    bits = key if key >= 0 else 0x80000000 - key
    return float(np.uint32(bits).view(np.float32))


def keys_to_floats(keys: Ints) -> NDArray[np.float32]:
    """The float32 of each key."""
    wide = keys.astype(np.int64)
    return np.where(wide >= 0, wide, 0x80000000 - wide).astype(np.uint32).view(np.float32)


def category_codes(x: NDArray[np.float32], rule: CodeRule) -> Ints:
    """Codes of categorical features, int32; -1 where a value is no code (negative, huge, NaN)."""
    with np.errstate(invalid="ignore"):
        whole = np.trunc(x)
        valid = (whole >= 0) & (whole < 2**31) & ~np.isnan(x)
        if rule is not CodeRule.TRUNCATE:
            valid &= x >= 0
        if rule is CodeRule.EXACT:
            valid &= x == whole
        return np.where(valid, whole, -1).astype(np.int32)
