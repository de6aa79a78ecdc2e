"""A pipeline file is read whole, survives the manifest, and every mistake in it has one line that says the cure."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from compile.pipeline import Pipeline
from edge_runtime.errors import BadInput
from tests.pipelines import everything

DEMO = Path(__file__).parent.parent / "compile" / "demo" / "pipeline.toml"

SMALL = """
[contract]
points = 16
start_hz = 433_000_000
step_hz = 1_000
power_min_cdbm = -12_750
power_max_cdbm = 0
max_age_ms = 1_000

[screen]
feature = "crest"
answer = "nothing"
max_lost = 0.001
guards = ["crest"]

[[features]]
name = "crest"
kernel = "peak"
reference = "mean"

[[features]]
name = "skirt"
kernel = "width"
below_cdb = 600
"""

MISTAKES = [
    ("points = 16", "points = 4097", "[contract]: points: is 4097; give a whole number 1 to 4096"),
    ("points = 16", "points = true", "[contract]: points: is True; give a whole number"),
    ("points = 16\n", "", "[contract]: points: is missing; give it a value"),
    ("points = 16", "pionts = 16\npoints = 16", "[contract]: pionts: is no key of this table; remove it or"),
    ("power_max_cdbm = 0", "power_max_cdbm = -12750", "is -12750; give more than power_min_cdbm, -12750"),
    (
        "max_age_ms = 1_000",
        'max_age_ms = 1\nresample = "linear"',
        "[contract]: resample: is 'linear'; choose of forbid, nearest, peak",
    ),
    (
        "max_age_ms = 1_000",
        "max_age_ms = 1\npower_step_cdbm = 1",
        "12751 levels, more than 2048; give 7 or more",
    ),
    ("[contract]", "[contarct]", "[contract] is missing; declare it as in compile/demo/pipeline.toml"),
    ('kernel = "width"', 'kernel = "foo"', "unknown feature kernel 'foo': choose of area, asymmetry, band, "),
    ('kernel = "width"\n', "", "[[features]] 2 (skirt): kernel: is missing"),
    ("below_cdb = 600", "below_cdb = -1", "(skirt): below_cdb: is -1; give a whole number 0 to 30000"),
    ("below_cdb = 600", "below_cdb = 6.5", "(skirt): below_cdb: is 6.5; give a whole number"),
    ("below_cdb = 600", "below_db = 6\nbelow_cdb = 600", "(skirt): below_db: is no key of this table"),
    ('reference = "mean"', 'reference = "meen"', "is 'meen'; choose of none, floor, mean, peak"),
    ('name = "skirt"', 'name = "crest"', "[[features]] 2: name 'crest' is used twice; give it another"),
    ('name = "skirt"', 'name = "Skirt 1"', "name: is 'Skirt 1'; use lower-case letters, digits and _"),
    ("max_lost = 0.001", "max_lost = 2", "[screen]: max_lost: is 2; give a number 0 to 0.5"),
    ('guards = ["crest"]', 'guards = ["mean"]', "names feature 'mean', which [[features]] does not declare"),
    ('guards = ["crest"]', "guards = 3", "[screen]: guards: is 3; give a list of names of features"),
    ('answer = "nothing"', "answer = 3", "[screen]: answer: is 3; give a name in quotes"),
    ("[screen]", "[sreen]", ": sreen: is no key of this table; remove it or correct its name"),
    ("[[features]]", "[[feature]]", "[[features]]: must be 1 to 256 tables; declare one for each feature"),
    ("points = 16", "points = ", "not TOML (Invalid value (at line 3, column 10)); mend that line"),
]


def write(folder: Path, text: str) -> Path:
    path = folder / "p.toml"
    path.write_text(text)
    return path


@pytest.mark.parametrize(("right", "wrong", "message"), MISTAKES, ids=[m[1][:24] for m in MISTAKES])
def test_a_mistake_has_its_line(tmp_path: Path, right: str, wrong: str, message: str) -> None:
    assert right in SMALL
    path = write(tmp_path, SMALL.replace(right, wrong))
    with pytest.raises(BadInput, match=re.escape(message)) as caught:
        Pipeline.load(path)
    assert str(caught.value).startswith(f"pipeline {path}: ")
    assert "\n" not in str(caught.value)


def test_a_missing_file_has_its_line(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"no\.toml: No such file or directory; give a TOML file"):
        Pipeline.load(tmp_path / "no.toml")


def test_a_ring_the_wrong_way_round_is_refused(tmp_path: Path) -> None:
    ring = '[[features]]\nname = "r"\nkernel = "band"\nof = "max"\nfrom = 5\nto = 4\n'
    with pytest.raises(BadInput, match="to: is 4; give at least from, 5"):
        Pipeline.load(write(tmp_path, SMALL + ring))


def test_a_pipeline_survives_the_manifest(tmp_path: Path) -> None:
    for pipeline in (Pipeline.load(write(tmp_path, SMALL)), Pipeline.load(DEMO), everything(64)):
        assert Pipeline.from_dict(json.loads(json.dumps(pipeline.to_dict()))) == pipeline


def test_defaults_are_written_out(tmp_path: Path) -> None:
    data = Pipeline.load(write(tmp_path, SMALL)).to_dict()
    assert data["features"][1] == {"name": "skirt", "kernel": "width", "below_cdb": 600, "side": "total"}
    assert data["contract"]["power_step_cdbm"] == 50
    assert data["contract"]["resample"] == "forbid"
    assert data["floor"] == {"permille": 500}
    assert "novelty" not in data
