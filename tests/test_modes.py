"""The mode that is chosen where nobody says: by flash and cost, target by target, with the reason told."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from compile import check, forest_file, frontends, modes
from compile.build import build
from compile.check import FIXED_ENTRY, verify_bundle
from compile.cli import main
from compile.demo.run import MODEL, PIPELINE
from compile.emit.trees import emit
from compile.matrix import Matrix
from compile.quantise import Fixed, fixed, with_bits
from compile.targets import target
from edge_runtime.bundle import Bundle, pack
from edge_runtime.errors import BadInput, CheckFailed
from tests.tree_models import lightgbm_model

FOREST = frontends.load(lightgbm_model(7, "multiclass", "gbdt", 0.0, False, False).model).forest


def none() -> Fixed:
    raise BadInput("no bits keep the decisions")


def test_each_target_has_its_mode_and_is_held_to_its_own_forest(
    demo_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The demo's pipeline, exact on one target and in fixed point on another."""
    matrix = Matrix.load(demo_path.with_name("demo.npz"))
    bundle = build(
        MODEL, pipeline=PIPELINE, data=demo_path.with_name("demo.npz"), targets=["host", "cortex-m0"]
    )
    artifacts = bundle.manifest["artifacts"]
    assert artifacts["x86_64"]["mode"] == "exact"
    assert artifacts["cortex-m0"]["mode"] == "compact"
    assert "half of a common cortex-m0's 128 KiB" in artifacts["cortex-m0"]["why_mode"]
    assert artifacts["cortex-m0"]["worst_error"] > artifacts["x86_64"]["worst_error"] == 0
    branches = artifacts["x86_64"]["cost"]["branches"]
    assert branches.get("because") or 0 < branches["mispredicted"] < branches["executed"]
    monkeypatch.setattr(check, "WITNESS_ROWS", 300)
    parities = {p.target: p for p in verify_bundle(bundle, matrix, 40)}
    assert parities["cortex-m0"].decisions == len(matrix.features)
    assert parities["cortex-m0"].otherwise == 0
    # With one forest in the place of the other, the targets that compute it are wrong.
    entries = {name: bundle.entry(name) for name in bundle.entries}
    for name, other, target_of in (
        ("model.forest", FIXED_ENTRY, "x86_64"), (FIXED_ENTRY, "model.forest", "cortex-m0"),
    ):  # fmt: skip
        hurt = Bundle(pack(bundle.manifest, entries | {name: bundle.entry(other)}))
        with pytest.raises(CheckFailed, match=f"first: {target_of}"):
            verify_bundle(hurt, matrix, 20)
    # Other decisions fail on the data of the build, and are counted on other data.
    exact = forest_file.from_bytes(bundle.entry("model.forest"))
    coarse = with_bits(exact, 2).forest
    with pytest.raises(CheckFailed, match=r"\d+ of 10137 rows that it was built with are decided otherwise"):
        check.check_decisions(exact, coarse, matrix.sha256, matrix)
    assert check.check_decisions(exact, coarse, "of other data", matrix) > 0
    assert check.check_decisions(exact, exact, matrix.sha256, matrix) == 0


def test_without_data_only_exact_code_can_be_proven(monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = modes.choose(FOREST, target("cortex-m0"), 0, none)
    assert chosen.mode == "exact"
    assert "without data" in chosen.why
    monkeypatch.setitem(modes.FLASH_BYTES, "cortex-m0", 8192)
    with pytest.raises(BadInput, match=r"cortex-m0: exact takes \d+ KiB .* may take 4 KiB.* give --data"):
        modes.choose(FOREST, target("cortex-m0"), 0, none)


def test_where_no_bits_keep_the_decisions_it_is_exact_or_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    assert modes.choose(FOREST, target("cortex-m4"), 100, none).mode == "exact"
    monkeypatch.setitem(modes.FLASH_BYTES, "cortex-m4", 8192)
    with pytest.raises(BadInput, match="train fewer trees"):
        modes.choose(FOREST, target("cortex-m4"), 100, none)


def test_soft_doubles_cost_too_much_and_memory_decides_between_the_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def quantised() -> Fixed:
        return fixed(FOREST, np.zeros((1, FOREST.n_features), np.float32))

    m4 = target("cortex-m4")
    assert modes.choose(FOREST, m4, 1, quantised).mode == "fixed"
    monkeypatch.setitem(modes.FLASH_BYTES, "cortex-m4", 2 * 3072)
    chosen = modes.choose(FOREST, m4, 1, quantised)
    assert chosen.mode == "compact"
    assert "fixed takes" in chosen.why


def test_dumps_from_a_model_and_from_a_bundle(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model, bundle = tmp_path / "m.txt", tmp_path / "m.edge"
    trained = lightgbm_model(7, "multiclass", "gbdt", 0.0, False, True)
    trained.model.save_model(model)

    def out(*arguments: object) -> str:
        assert main([str(a) for a in arguments]) == 0
        return capsys.readouterr().out

    forest = frontends.load(model).forest
    splits, leaves = int((forest.feature >= 0).sum()), int((forest.feature < 0).sum())
    targets = "host,aarch64,cortex-m0"
    of_model = out("build", model, "--dump", "forest", "--targets", targets, "-o", bundle)
    assert (of_model.count(" ? "), of_model.count("leaf [")) == (splits, leaves)
    assert ".Lt3n5" in out("build", model, "--dump", "asm", "--targets", "aarch64")
    # The counts of training rows stay behind.
    plain = [line.rsplit(", seen", 1)[0] for line in of_model.splitlines()]
    of_bundle = out("inspect", bundle, "--dump", "forest", "--target", "host")
    assert [line.rsplit(", seen", 1)[0] for line in of_bundle.splitlines()] == plain
    assert "thresholds, NaN has rank" in out("inspect", bundle, "--dump", "ranks")
    assert "/* tree 3, nodes 0 " in out("inspect", bundle, "--dump", "asm", "--target", "cortex-m0")
    assert "edge_model_scores:" in out("inspect", bundle, "--dump", "asm", "--target", "host")
    told = out("inspect", bundle)
    assert "exact: the training library's bits" in told
    assert "without data no other decisions" in told


def test_a_build_without_an_output_needs_a_dump(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["build", str(MODEL)]) == 2
    assert "give -o B.edge" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "mode", "style"),
    [
        ("x86_64", "exact", "bitvector"), ("aarch64", "exact", "threaded"), ("armv7", "exact", "threaded"),
        ("cortex-m0", "exact", "table"), ("cortex-m0", "compact", "packed"),
    ],
)  # fmt: skip
def test_emitted_code_leads_back_to_tree_and_node(name: str, mode: str, style: str) -> None:
    code = emit(FOREST, target(name), mode=mode)
    assert code.style == style
    text = code.c + "".join(code.files.values())
    pattern = {
        "bitvector": r"/\* t{}n(\d+) \*/", "threaded": r"\.Lt{}n(\d+):", "table": r"/\* tree {}, nodes ([\d ]+) \*/",
        "packed": r"/\* tree {}() ",
    }[style]  # fmt: skip
    told = total = 0
    for tree in range(FOREST.n_trees):
        first, last = FOREST.roots[tree], FOREST.roots[tree + 1]
        splits = {int(n - first) for n in range(first, last) if FOREST.feature[n] >= 0}
        found = re.findall(pattern.format(tree), text)
        assert found
        told += len(splits & {int(n) for nodes in found for n in nodes.split()})
        total += len(splits)
    # In threaded code, tests that are always decided are left out; packed code names the trees.
    assert told > 0.5 * total if style == "threaded" else told == (0 if style == "packed" else total)
