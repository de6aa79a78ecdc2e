"""The shipped sweeps: their table, their splits, where they come from, and that they hold bursts, not receivers."""

from __future__ import annotations

import csv
from collections import Counter
from itertools import pairwise

import numpy as np
import pytest

from compile.demo import derive, report, train
from compile.demo.derive import CLASSES, LIMIT_BYTES, NOTHING, SHIPPED
from compile.demo.run import PIPELINE
from compile.demo.sweeps import AXIS
from edge_runtime.recording import Origin, Recording, Split

PURPOSES = ("remix", "recorded", "quiet", "background")


@pytest.fixture(scope="module")
def table() -> list[dict[str, str]]:
    with SHIPPED.with_suffix(".csv").open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def sweeps() -> train.Sweeps:
    return train.read(SHIPPED, PIPELINE)


def purpose(recording: Recording, label: int, origin: Origin) -> str:
    if origin is Origin.RECORDED:
        return "background" if recording.labels[label] == NOTHING else "recorded"
    return origin.name.lower()


def test_the_table_and_the_sweeps_agree(demo_recording: Recording, table: list[dict[str, str]]) -> None:
    counted: list[Counter[str]] = [Counter() for _ in table]
    for row in demo_recording.rows:
        counted[row.capture][purpose(demo_recording, row.label, row.origin)] += 1
        source = table[row.capture]
        assert row.split.name.lower() == source["split"]
        assert demo_recording.labels[row.label] in (source["label"], NOTHING)
    for capture, source, counts in zip(demo_recording.captures, table, counted, strict=True):
        told = (source["capture"], source["sha256"], source["label"], source["session"])
        assert told == (capture["name"], capture["sha256"], capture["label"], capture["session"])
        assert {name: int(source[name]) for name in PURPOSES} == {name: counts[name] for name in PURPOSES}
        assert source["source"]
        assert "licence" in source["licence"]


def test_splits_share_no_capture(demo_recording: Recording) -> None:
    splits: dict[str, set[Split]] = {}
    for row in demo_recording.rows:
        splits.setdefault(demo_recording.captures[row.capture]["sha256"], set()).add(row.split)
    assert all(len(found) == 1 for found in splits.values())


def test_every_class_is_in_every_split_and_other_kinds_in_none(demo_recording: Recording) -> None:
    kinds: dict[Split, set[str]] = {split: set() for split in Split}
    for row in demo_recording.rows:
        kinds[row.split].add(demo_recording.labels[row.label])
    known = {*CLASSES, NOTHING}
    assert len(CLASSES) >= 7
    assert kinds[Split.TRAIN] == kinds[Split.CALIBRATION] == kinds[Split.TEST] == known
    assert len(kinds[Split.UNKNOWN]) >= 10
    assert not kinds[Split.UNKNOWN] & known


def test_what_trains_is_remixed_and_the_file_is_small(demo_recording: Recording) -> None:
    bursts = {
        row.origin for row in demo_recording.rows if row.split is Split.TRAIN and row.label < len(CLASSES)
    }
    assert bursts == {Origin.REMIX}
    assert demo_recording.axis == AXIS
    assert SHIPPED.stat().st_size <= LIMIT_BYTES
    assert sum(row.split is Split.TEST for row in demo_recording.rows) >= 500


def test_no_sweep_is_shipped_twice(demo_recording: Recording) -> None:
    assert len({row.codes for row in demo_recording.rows}) == len(demo_recording.rows)


def test_the_device_cannot_be_told_from_sweeps_without_its_burst(sweeps: train.Sweeps) -> None:
    leak = report.background_leak(sweeps)
    assert leak["in fresh noise"]["told"]["value"] < leak["in fresh noise"]["majority"] + 0.05
    # The same test on what the receivers heard finds the leak that the remix is there to close.
    assert leak["as recorded"]["told"]["value"] > leak["as recorded"]["majority"] + 0.2


def test_loudness_does_not_give_the_class_away(sweeps: train.Sweeps) -> None:
    leak = report.loudness_leak(sweeps)
    assert leak["told"]["value"] < leak["majority"] + 0.1


def test_the_captures_give_these_bytes(demo_recording: Recording) -> None:
    """Every twelfth capture, derived again; a capture's sweeps depend on no other's. The script does them all."""
    folder = derive.default_captures()
    if not (folder / "captures.csv").exists():
        pytest.skip(f"no captures at {folder}: name their folder in EDGE_CAPTURES")
    sources = derive.read_table(folder)
    derive.assign_splits(sources)
    if [s.capture for s in sources] != list(demo_recording.captures):
        pytest.skip(f"the captures at {folder} are others than the shipped sweeps were made from")
    sharers = Counter((s.capture["label"], s.split) for s in sources)
    share = derive.share_that_fits(sources, sharers)
    ends = np.searchsorted([row.capture for row in demo_recording.rows], np.arange(len(sources) + 1))
    for k, (start, end) in list(enumerate(pairwise(ends)))[::12]:
        s = sources[k]
        made = derive.derive(s, derive.load(s), sharers[s.capture["label"], s.split], share)
        shipped = demo_recording.rows[start:end]
        assert [(derived.label, derived.origin, derived.codes) for derived in made] == [
            (demo_recording.labels[row.label], row.origin, row.codes) for row in shipped
        ]
