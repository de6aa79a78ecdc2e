"""What the loop is compared with gives the same verdicts, or the comparison would say nothing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from compile.demo.run import held_out
from edge_runtime.bundle import Bundle
from edge_runtime.recording import Recording
from edge_runtime.verdict import Rung, Verdict
from tests.bench.naive_loop import Classifier
from tests.conftest import powers


@pytest.mark.parametrize("careful", [False, True])
def test_the_naive_loop_answers_as_the_bundle_does(
    careful: bool, demo_bundle: Bundle, demo_recording: Recording, tmp_path: Path
) -> None:
    model, pipeline = tmp_path / "model.tl", tmp_path / "pipeline.json"
    model.write_bytes(demo_bundle.entry("model.tl"))
    pipeline.write_text(json.dumps(demo_bundle.manifest["pipeline"]))
    naive = Classifier(str(model), str(pipeline), careful)
    rungs = set()
    for row in held_out(demo_recording, 400).rows:
        ours = Verdict._make(
            demo_bundle.compiled.infer(powers(row))
        )  # the trees: the naive loop has no network
        answer = naive.verdict(row.codes)
        assert answer["label"] == demo_bundle.label_name(ours.label)
        assert answer["margin"] == ours.margin
        rungs.add(ours.rung)
    assert rungs == {Rung.SCREEN, Rung.TREES}
