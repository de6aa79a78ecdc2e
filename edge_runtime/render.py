"""The journal and its verdicts as text for people and as rows for programs."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from edge_runtime import journal
from edge_runtime.journal import Kind, VerdictRecord
from edge_runtime.power.base import Source
from edge_runtime.reasons import Reason
from edge_runtime.verdict import UNKNOWN, Rung

Row = dict[str, Any]


def verdict_row(record: VerdictRecord, classes: list[str]) -> Row:
    """A verdict as a flat row; `label` is the class's name, `confidence` a share, energies in microjoules."""
    named = record.best if record.label == UNKNOWN else record.label
    return {
        "sequence": record.sequence,
        "captured_us": record.captured_us,
        "latency_us": record.latency_us,
        "scan_crc32": record.scan_crc32,
        "label": classes[record.label] if record.label != UNKNOWN else "UNKNOWN",
        "nearest": classes[named] if named != UNKNOWN else None,
        "reason": Reason(record.reason).name,
        "rung": Rung(record.rung).name,
        "confidence": record.confidence_q16 / 65536,
        "novelty": record.novelty_q8 / 256,
        "margin": record.margin,
        "energy_uj": record.energy_nj / 1000,
        "energy_sigma_uj": record.energy_sigma_nj / 1000,
        "energy_source": Source(record.energy_source).name.lower(),
        "rail_mv": record.rail_mv,
    }


def verdict_line(row: Row) -> str:
    """A verdict as one line for people: the answer, how sure, why."""
    head = f"{row['sequence']:>7}  "
    if row["label"] == "UNKNOWN":
        nearest = f"; nearest {row['nearest']}" if row["nearest"] else ""
        return f"{head}UNKNOWN: {Reason[row['reason']].text}{nearest}"
    if row["reason"] != "OK":
        return f"{head}{row['label']} ({_rung(row)}): {Reason[row['reason']].text}"
    sure = f"  {100 * row['confidence']:3.0f} %" if row["confidence"] else ""
    return f"{head}{row['label']}{sure}  ({_rung(row)}, {row['energy_uj']:.0f} uJ {row['energy_source']})"


def _rung(row: Row) -> str:
    return str(row["rung"]).lower().replace("_", " ")


def journal_rows(directory: Path) -> Iterator[Row]:
    """Every record of a journal as a row with its `kind`. Damaged stretches are rows too."""
    classes: list[str] = []
    for frame in journal.read(directory):
        if frame.kind == 0:
            yield {"kind": "TORN" if frame.torn else "DAMAGE", "bytes": len(frame.payload)}
        elif frame.kind == Kind.VERDICT:
            yield {"kind": "VERDICT"} | verdict_row(journal.verdict_record(frame.payload), classes)
        elif frame.kind in (Kind.RUN, Kind.EVENT, Kind.END, Kind.PLAN):
            row = json.loads(frame.payload)
            classes = row.get("classes", classes)
            yield {"kind": Kind(frame.kind).name} | row
        else:
            yield {"kind": _kind_name(frame.kind), "bytes": len(frame.payload)}


def _kind_name(kind: int) -> str:
    # A newer runtime may have written kinds that this one does not know.
    return next((k.name for k in Kind if k == kind), f"KIND_{kind}")


def journal_line(row: Row) -> str:
    """One journal row as a line for people."""
    if row["kind"] == "VERDICT":
        return verdict_line(row)
    rest = ", ".join(f"{k} {v}" for k, v in row.items() if k != "kind" and not isinstance(v, dict | list))
    return f"   --    {row['kind'].lower()}: {rest}"


def export(directory: Path, form: str, out: IO[str]) -> None:
    """Write every verdict of a journal as JSON lines or as CSV."""
    rows = (
        {k: v for k, v in row.items() if k != "kind"}
        for row in journal_rows(directory)
        if row["kind"] == "VERDICT"
    )
    if form == "jsonl":
        for row in rows:
            out.write(json.dumps(row) + "\n")
        return
    writer: csv.DictWriter[str] | None = None
    for row in rows:
        if writer is None:
            writer = csv.DictWriter(out, row.keys(), lineterminator="\n")
            writer.writeheader()
        writer.writerow(row)
