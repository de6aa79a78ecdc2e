"""The bundle: opened whole or refused, whatever byte was touched."""

from __future__ import annotations

from pathlib import Path

import pytest

import edge_runtime
from edge_runtime.bundle import Bundle, pack
from edge_runtime.errors import BadInput

MANIFEST = {"classes": ["a", "b"], "artifacts": {"mips": {"entry": "mips.so"}}, "contract": None}


@pytest.fixture
def data() -> bytes:
    return pack(MANIFEST, {"mips.so": b"\x7fELF", "model.tl": bytes(range(64))})


def test_what_was_packed_is_read_back_and_twice_is_the_same(data: bytes, tmp_path: Path) -> None:
    bundle = Bundle(data)
    bundle.save(tmp_path / "b.edge")
    assert (
        (tmp_path / "b.edge").read_bytes()
        == data
        == pack(MANIFEST, {k: bundle.entry(k) for k in bundle.entries})
    )
    assert Bundle.open(tmp_path / "b.edge").manifest == MANIFEST
    assert bundle.label_name(1) == "b"
    assert bundle.label_name(-1) == "UNKNOWN"


def test_the_package_gives_the_bundle() -> None:
    assert edge_runtime.Bundle is Bundle
    with pytest.raises(AttributeError, match="no attribute 'Bindle'"):
        _ = edge_runtime.Bindle


def test_every_changed_byte_and_every_cut_is_refused(data: bytes) -> None:
    for at in range(len(data)):
        with pytest.raises(BadInput, match=r"bundle x\.edge: (damaged|not an \.edge file)"):
            Bundle(data[:at] + bytes((data[at] ^ 1,)) + data[at + 1 :], "x.edge")
        with pytest.raises(BadInput, match="build it again"):
            Bundle(data[:at], "x.edge")


def test_missing_files_entries_and_artifacts_are_named(data: bytes, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"nowhere\.edge: No such file"):
        Bundle.open(tmp_path / "nowhere.edge")
    with pytest.raises(BadInput, match=r"no 'arm\.so', only mips\.so, model\.tl"):
        Bundle(data).entry("arm.so")
    with pytest.raises(BadInput, match="built for mips, not for this machine"):
        _ = Bundle(data).engine
    with pytest.raises(BadInput, match="without a pipeline"):
        _ = Bundle(data).axis


def test_nothing_is_left_where_a_bundle_cannot_be_written(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "taken.edge").mkdir()
    with pytest.raises(BadInput, match="cannot be written"):
        Bundle(data).save(tmp_path / "taken.edge")
    assert [p.name for p in tmp_path.iterdir()] == ["taken.edge"]
