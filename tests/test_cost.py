"""Costs are exact where they are counted, and say why where they are not to be had."""

from __future__ import annotations

import json
import shutil
import struct

import numpy as np
import pytest

from compile import cost
from compile.targets import TARGETS, Target, target
from compile.toolchain import build
from compile.verify import Inputs

API = '__attribute__((visibility("default"))) '
SOURCE = f"""
#include <stdint.h>
typedef struct {{ int32_t label, best; uint32_t reason, rung, confidence, novelty; double margin; }} verdict;
{API}int edge_infer(const int16_t *power, uint32_t points, verdict *out) {{
    if (points != 16) return 1;
    verdict v = {{0, 0, 0, power[0] > 0 ? 2 : 1, 0, 0, 0}};
    if (power[0] > 0) for (int k = 0; k < 16; k++) __asm__ volatile("" : : "r"(power[k]));
    *out = v;
    return 0;
}}
{API}int edge_model_scores(const float *features, double *raw_scores) {{
    double sum = 0;
    for (int k = 0; k < 64; k++)
        if (((const uint32_t *)features)[0] >> (k & 31) & 1) sum += 1 + k;
        else __asm__ volatile("" : "+m"(sum));
    raw_scores[0] = sum;
    return 0;
}}
"""


def _inputs(first_words: np.ndarray) -> Inputs:
    power = np.full((8, 16), -5_000, np.int16)
    power[:3, 0] = 1
    return Inputs(power, first_words.astype("<u4").view("<f4").reshape(-1, 1), 1)


@pytest.fixture(params=sorted(TARGETS))
def on(request: pytest.FixtureRequest) -> Target:
    return TARGETS[request.param]


def test_a_cost_counts_every_entry_point_and_rung(on: Target) -> None:
    artifact = build({"m.c": SOURCE}, on)
    measured = cost.measure(artifact, on, _inputs(np.array([0, 0, 3])))
    assert measured.screen is None
    assert measured.infer is not None
    assert set(measured.by_rung) == {"SCREEN", "TREES"}
    trees, screen = measured.by_rung["TREES"], measured.by_rung["SCREEN"]
    assert (trees.calls, screen.calls, measured.infer.calls) == (3, 5, 8)
    assert trees.maximum == measured.infer.maximum > screen.maximum > 0
    assert measured.infer.mean == pytest.approx((3 * trees.mean + 5 * screen.mean) / 8)
    assert measured.model is not None
    assert measured.model.calls == 3
    assert 0 < measured.text_bytes < 8_000
    assert 0 <= measured.stack_bytes < 400
    assert json.loads(json.dumps(measured.document()))["infer"]["calls"] == 8


def test_flash_of_a_cortex_m_includes_the_compiler_s_runtime() -> None:
    m0 = TARGETS["cortex-m0"]
    artifact = build({"m.c": SOURCE}, m0)
    own = cost.elf.parse(artifact).text_bytes
    assert cost.measure(artifact, m0, _inputs(np.array([1]))).text_bytes > own + 200  # a soft-float addition


@pytest.mark.skipif(shutil.which("valgrind") is None, reason="needs valgrind: apt-get install valgrind")
def test_branches_that_follow_the_data_are_mispredicted_and_steady_ones_are_not() -> None:
    host = target("host")
    artifact = build({"m.c": SOURCE}, host, optimise="-O1")
    random = np.random.default_rng(3).integers(0, 2**32, 200, dtype=np.uint64)
    steady, wild = (
        cost.branches(artifact, host, "edge_model_scores", [struct.pack("<I", int(w)) for w in words])
        for words in (np.zeros(200), random)
    )
    assert isinstance(steady, cost.Branches)
    assert isinstance(wild, cost.Branches)
    assert steady.executed == wild.executed >= 128
    assert steady.mispredicted < 5
    assert wild.mispredicted > 15


def test_what_cannot_be_had_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    m4 = TARGETS["cortex-m4"]
    foreign = cost.branches(b"", m4, "edge_infer", [b"\0"])
    assert isinstance(foreign, cost.Unavailable)
    monkeypatch.setenv("PATH", "")
    nothing = cost.branches(b"", target("host"), "edge_infer", [b"\0"])
    assert nothing == cost.Unavailable("no valgrind on this machine; apt-get install valgrind")
