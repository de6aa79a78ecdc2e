"""Parity finds what differs, and says where; libraries loaded side by side stay apart."""

from __future__ import annotations

import re
from collections.abc import Callable

import numpy as np
import pytest

from compile.targets import TARGETS, target
from compile.toolchain import build
from compile.verify import Inputs, ParityFailed, check
from edge_runtime.engines.compiled import load_library
from edge_runtime.errors import BadInput

API = '__attribute__((visibility("default"))) '
SOURCE = f"""
#include <stdint.h>
{API}int edge_features(const int16_t *power, uint32_t points, int32_t *features) {{
    if (points != 16) return 1;
    int32_t peak = power[0], sum = 0;
    for (uint32_t k = 0; k < points; k++) {{ if (power[k] > peak) peak = power[k]; sum += power[k]; }}
    if (sum == 16 * peak) return 3;
    features[0] = peak;
    features[1] = sum;
    return 0;
}}
{API}int edge_model_scores(const float *features, double *raw_scores) {{
    raw_scores[0] = features[0] < FIRST ? LEAF : -0.25;
    raw_scores[1] = raw_scores[0] + (features[1] <= 2.0f ? 0.1 : 0.7);
    return 0;
}}
"""
BUILT = ("x86_64", "aarch64", "armv7", "cortex-m4", "cortex-m0")


def _artifact(name: str, first: str = "1.5f", leaf: str = "0.3") -> bytes:
    return build({"m.c": SOURCE.replace("FIRST", first).replace("LEAF", leaf)}, TARGETS[name])


def _inputs(oracle: Callable[[np.ndarray], np.ndarray] | None) -> Inputs:
    random = np.random.default_rng(7)
    features = random.integers(-3, 4, (60, 2)).astype(np.float32)
    power = random.integers(-12_000, -3_000, (40, 16)).astype(np.int16)
    return Inputs(power, features, 2, None if oracle is None else oracle(features))


def _oracle(features: np.ndarray) -> np.ndarray:
    first = np.where(features[:, 0] < 1.5, 0.3, -0.25)
    return np.stack([first, first + np.where(features[:, 1] <= 2, 0.1, 0.7)], axis=1)


def test_equal_artifacts_pass_on_every_target() -> None:
    done = check({name: _artifact(name) for name in BUILT}, _inputs(_oracle))
    assert [row.target for row in done] == list(BUILT)
    assert {(row.calls, row.oracle_rows) for row in done} == {(40 + 8 + 60 + 9, 60)}


@pytest.mark.parametrize("mutated", BUILT)
@pytest.mark.parametrize("change", [{"first": "2.5f"}, {"leaf": "0.30000000000000004"}])
def test_a_change_to_one_target_is_found(mutated: str, change: dict[str, str]) -> None:
    artifacts = {name: _artifact(name) for name in BUILT}
    artifacts[mutated] = _artifact(mutated, **change)
    with pytest.raises(ParityFailed) as caught:
        check(artifacts, _inputs(_oracle))
    message = str(caught.value)
    assert re.search(r"edge_model_scores, row \d+: output 0 is .*bits 0x3fd3333333333334|edge_model", message)
    assert "\n" not in message
    if mutated != target("host").name:
        assert {d.target for d in caught.value.differences} == {mutated}


def test_a_change_to_all_targets_is_found_by_the_library_s_scores() -> None:
    artifacts = {name: _artifact(name, leaf="0.31") for name in BUILT}
    assert check(artifacts, _inputs(None))
    with pytest.raises(
        ParityFailed, match=r"0\.31 \(bits 0x3fd3d70a3d70a3d7\), by the model's library 0\.3 "
    ):
        check(artifacts, _inputs(_oracle))


def test_nothing_to_check_is_no_success() -> None:
    with pytest.raises(BadInput, match="no artifact"):
        check({}, _inputs(None))


def test_libraries_loaded_one_after_the_other_are_two_libraries() -> None:
    source = API + "int edge_which(void) {{ return {}; }}"
    host = target("host")
    loaded = [load_library(build({"w.c": source.format(k)}, host), host.name) for k in range(3)]
    assert [library.edge_which() for library in loaded] == [0, 1, 2]
