"""Treelite's model, field by field, to a Forest. Every front end ends here.

Fields: Treelite's model specification v4 (https://treelite.readthedocs.io/en/latest/serialization/v4.html).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from treelite import Model
from treelite.core import TreeliteError

from compile.forest import INF_KEY, CategorySet, CodeRule, Floats, Forest, Ints, PostTransform, float_keys
from edge_runtime.errors import BadInput

LEAF, NUMERIC, CATEGORICAL = 0, 1, 2
LESS, LESS_EQUAL = 2, 3
MAX_CODE = 65_535
"""Largest categorical code that is compiled: codes index a table."""


@dataclass(frozen=True, slots=True)
class _Trees:
    """All trees' fields, one array each."""

    roots: NDArray[np.int64]
    kind: Ints
    feature: Ints
    threshold: Floats
    compare: Ints
    default_left: NDArray[np.bool_]
    left: Ints
    right: Ints
    value: Floats
    count: Floats
    vectors: Sequence[Floats]
    categories: dict[int, tuple[frozenset[int], bool]]  # node -> codes, whether they go right


def checkpoint_of(model: Any) -> bytes:
    """The serialised model, as `treelite.Model.deserialize_bytes` reads it."""
    data: bytes = model.serialize_bytes()
    return data


def deserialize(data: bytes) -> Any:
    """A model from a checkpoint's bytes. Raises TreeliteError where they are none."""
    if len(data) < 64 or not data[:12] == _version_prefix(data):
        raise TreeliteError("not a model that is known")
    return Model.deserialize_bytes(data)


def _version_prefix(data: bytes) -> bytes:
    # A checkpoint opens with three int32: Treelite's version. Its reader crashes on other bytes.
    major, minor, patch = np.frombuffer(data[:12], np.int32)
    plausible = 3 <= major <= 4 and 0 <= minor < 100 and 0 <= patch < 100
    return data[:12] if plausible else b""


def convert(
    model: Any,
    *,
    source: str,
    base: Floats | None = None,
    base_first: bool = False,
    code_rule: CodeRule = CodeRule.FLOOR,
    feature_names: Sequence[str] | None = None,
) -> Forest:
    """A Forest from a Treelite model.

    base, base_first: the base scores and whether the library adds them before the trees (default: Treelite's,
    after). Raises BadInput that names the tree and node where a split cannot be compiled exactly.
    """
    header = model.get_header_accessor()
    single = model.input_type == "float32"
    classes = header.get_field("num_class")
    width = int(classes.max())
    n_outputs = int(header.get_field("num_target")[0]) * width
    trees = _gather(model)
    keys = _threshold_keys(trees)
    is_leaf = trees.kind == LEAF
    sets, category = _categories(trees)
    leaf = np.where(is_leaf, np.cumsum(is_leaf) - 1, -1).astype(np.int32)
    averaged = bool(header.get_field("average_tree_output")[0])
    tree_output, values = _outputs(header, trees, is_leaf, n_outputs, width)
    n_features = int(header.get_field("num_feature")[0])
    if base is None:
        base = np.asarray(header.get_field("base_scores"), np.float64)
    return Forest(
        feature_names=tuple(feature_names or [f"f{i}" for i in range(n_features)]),
        n_outputs=n_outputs,
        roots=trees.roots.astype(np.int32),
        feature=np.where(is_leaf, -1, trees.feature).astype(np.int32),
        threshold_key=keys,
        left=trees.left,
        right=trees.right,
        nan_left=trees.default_left,
        zero_missing=np.zeros(len(keys), bool),
        category=category,
        category_sets=sets,
        code_rule=code_rule,
        leaf=leaf,
        leaf_values=values,
        tree_output=tree_output,
        count=trees.count,
        base=np.resize(base, n_outputs).astype(np.float64),
        base_first=base_first,
        divisor=float(model.num_tree) if averaged else 1.0,
        single=single,
        post=PostTransform(
            str(header.get_field("postprocessor")),
            float(header.get_field("sigmoid_alpha")[0]),
            float(header.get_field("ratio_c")[0]),
        ),
        source=source,
    )


def _gather(model: Any) -> _Trees:
    parts: dict[str, list[NDArray[Any]]] = {name: [] for name in _FIELDS}
    roots, counts, vectors = [0], [], []
    categories: dict[int, tuple[frozenset[int], bool]] = {}
    for number in range(model.num_tree):
        tree = model.get_tree_accessor(number)
        fields = {name: np.array(tree.get_field(name)) for name in _FIELDS}
        size, start = len(fields["node_type"]), roots[-1]
        for name, values in fields.items():
            parts[name].append(values + start if name in {"cleft", "cright"} else values)
        counts.append(_counts(tree, size))
        vector = tree.get_field("leaf_vector")
        if len(vector):
            vectors.append(np.array(vector, np.float64))
        if (fields["node_type"] == CATEGORICAL).any():
            categories |= _category_lists(tree, fields["node_type"], start)
        roots.append(start + size)
    if len(roots) == 1:
        raise BadInput("model: has no trees; train it for at least one round")
    whole = {name: np.concatenate(values) for name, values in parts.items()}
    return _Trees(
        roots=np.array(roots),
        kind=whole["node_type"].astype(np.int32),
        feature=whole["split_index"].astype(np.int32),
        threshold=whole["threshold"].astype(np.float64),
        compare=whole["cmp"].astype(np.int32),
        default_left=whole["default_left"].astype(bool),
        left=whole["cleft"].astype(np.int32),
        right=whole["cright"].astype(np.int32),
        value=whole["leaf_value"].astype(np.float64),
        count=np.concatenate(counts),
        vectors=vectors,
        categories=categories,
    )


_FIELDS = (
    "node_type",
    "split_index",
    "threshold",
    "cmp",
    "default_left",
    "cleft",
    "cright",
    "leaf_value",
)


def _counts(tree: Any, size: int) -> Floats:
    for name in ("data_count", "sum_hess"):
        values = tree.get_field(name)
        if len(values) == size:
            return np.array(values, np.float64)
    return np.zeros(size)


def _category_lists(tree: Any, kind: Ints, start: int) -> dict[int, tuple[frozenset[int], bool]]:
    begin, end = tree.get_field("category_list_begin"), tree.get_field("category_list_end")
    listed, right = tree.get_field("category_list"), tree.get_field("category_list_right_child")
    return {
        start + int(node): (frozenset(map(int, listed[begin[node] : end[node]])), bool(right[node]))
        for node in np.nonzero(kind == CATEGORICAL)[0]
    }


def _threshold_keys(trees: _Trees) -> Ints:
    numeric = trees.kind == NUMERIC
    strange = numeric & ~np.isin(trees.compare, (LESS, LESS_EQUAL))
    _refuse(trees, strange, "compares with an operator other than < and <=; only those are compiled")
    _refuse(trees, numeric & np.isnan(trees.threshold), "has NaN for a threshold; train the model again")
    below = trees.compare == LESS
    with np.errstate(over="ignore"):
        single = trees.threshold.astype(np.float32)
    # x <= t with t between two float32 is x <= the lower one; x < t is x <= the one before.
    too_high = single.astype(np.float64) > trees.threshold
    exact = single.astype(np.float64) == trees.threshold
    keys = float_keys(np.where(numeric, single, np.float32(0))).astype(np.int64)
    keys -= too_high | (below & exact)
    return np.clip(keys, -INF_KEY - 1, INF_KEY).astype(np.int32)


def _categories(trees: _Trees) -> tuple[tuple[CategorySet, ...], Ints]:
    numbers: dict[CategorySet, int] = {}
    category = np.full(len(trees.kind), -1, np.int32)
    for node, (codes, go_right) in trees.categories.items():
        if codes and max(codes) > MAX_CODE:
            raise BadInput(
                f"model: {_place(trees, node)} splits on category {max(codes)}; "
                f"renumber the categories to 0 .. {MAX_CODE}"
            )
        none: frozenset[int] = frozenset()
        chosen = CategorySet(none, codes, True) if go_right else CategorySet(codes, none, False)
        category[node] = numbers.setdefault(chosen, len(numbers))
    return tuple(numbers), category


def _outputs(
    header: Any, trees: _Trees, is_leaf: NDArray[np.bool_], n_outputs: int, width: int
) -> tuple[Ints, Floats]:
    target = np.asarray(header.get_field("target_id"), np.int64)
    klass = np.asarray(header.get_field("class_id"), np.int64)
    shape = [int(n) for n in header.get_field("leaf_vector_shape")]
    leaves = int(is_leaf.sum())
    if math.prod(shape) == 1:
        return (target * width + klass).astype(np.int32), trees.value[is_leaf].reshape(-1, 1)
    values = np.concatenate(trees.vectors)
    if len(values) != leaves * math.prod(shape):
        raise BadInput("model: some leaves hold vectors and some do not; train it as one kind of forest")
    values = values.reshape(leaves, *shape)
    whole = np.zeros((leaves, n_outputs // width, width))
    tree_of_leaf = np.searchsorted(trees.roots, np.nonzero(is_leaf)[0], "right") - 1
    for tree in range(len(trees.roots) - 1):
        mine = tree_of_leaf == tree
        rows = slice(None) if target[tree] < 0 else slice(target[tree], target[tree] + 1)
        columns = slice(None) if klass[tree] < 0 else slice(klass[tree], klass[tree] + 1)
        whole[mine, rows, columns] = values[mine]
    return np.full(len(trees.roots) - 1, -1, np.int32), whole.reshape(leaves, n_outputs)


def _place(trees: _Trees, node: int) -> str:
    tree = int(np.searchsorted(trees.roots, node, "right")) - 1
    return f"tree {tree}, node {node - int(trees.roots[tree])}"


def _refuse(trees: _Trees, strange: NDArray[np.bool_], why: str) -> None:
    found = np.nonzero(strange)[0]
    if len(found):
        raise BadInput(f"model: {_place(trees, int(found[0]))} {why}")
