"""One wrong threshold, leaf or child in emitted code: what verification has to notice."""

from __future__ import annotations

import dataclasses
import random
import re
from collections.abc import Container, Iterator

import numpy as np

from compile import toolchain
from compile.check import WITNESS_ROWS, verify_bundle
from compile.emit.trees import TreeCode, emit
from compile.forest import Forest
from compile.modes import alone
from compile.targets import target
from compile.witness import observable_splits, witness_rows
from edge_runtime.bundle import Bundle, pack
from edge_runtime.errors import CheckFailed


def caught_by_verify(bundle: Bundle, forest: Forest, number: int, seed: int = 0) -> Iterator[tuple[str, str]]:
    """What was done to the code of a bundle's only target, and what verification said: "" if it let it pass.

    Only tests are changed that some row tells from the changed ones: the leaves before a test may decide for all.
    """
    (name,) = bundle.manifest["artifacts"]
    listed = bundle.manifest["artifacts"][name]
    on = target(name)
    code = emit(forest, on, mode=listed["mode"])
    if toolchain.build(alone(forest, code), on) != bundle.entry(listed["entry"]):
        raise ValueError(f"the bundle's code for {name} is not what the forest gives now")
    rows = witness_rows(forest, WITNESS_ROWS)
    trees = np.searchsorted(forest.roots, np.arange(len(forest.feature)), "right") - 1
    splits = {f".Lt{trees[n]}n{n - forest.roots[trees[n]]}" for n in observable_splits(forest, rows)}
    entries = {entry: bundle.entry(entry) for entry in bundle.entries}
    for what, mutant in mutants(code, number, seed, splits):
        wrong = toolchain.build(alone(forest, mutant), on)
        try:
            verify_bundle(Bundle(pack(bundle.manifest, entries | {listed["entry"]: wrong})), None, 100)
        except CheckFailed as e:
            yield what, str(e)
        else:
            yield what, ""


def mutants(
    code: TreeCode, number: int, seed: int = 0, splits: Container[str] | None = None
) -> Iterator[tuple[str, TreeCode]]:
    """`number` codes that differ in one place each, and what was done to them.

    splits: labels of the tests that may be changed; None for all. A test may have a neighbour that
    no row tells from it, because the leaves before it decide for all that would.
    """
    rng = random.Random(seed)
    name = "trees.S" if code.files else ""
    text = code.files[name] if name else code.c
    places = _assembly(text, splits) if name else _tables(text)
    for start, end, new, what in rng.sample(places, min(number, len(places))):
        changed = text[:start] + new + text[end:]
        if name:
            yield what, dataclasses.replace(code, files={**code.files, name: changed})
        else:
            yield what, dataclasses.replace(code, c=changed)


Place = tuple[int, int, str, str]


def _assembly(text: str, splits: Container[str] | None) -> list[Place]:
    """Tests of another bit or rank, branches on the opposite, leaves that differ by a millionth."""
    begin = text.index(".Ltrees:")
    end = text.find(".section", begin)
    body = text[begin : end if end > 0 else len(text)]
    places: list[Place] = []

    def add(pattern: str, replace: object, what: str) -> None:
        for match in re.finditer(pattern, body, re.MULTILINE):
            new = replace(match)  # type: ignore[operator]
            label = body.rfind("\n.Lt", 0, match.start()) + 1
            known = splits is None or body[label : body.find(":", label)] in splits
            if new is not None and (known or what == "leaf"):
                places.append(
                    (begin + match.start(1), begin + match.end(1), new, f"{what}: {match.group(0).strip()}")
                )

    add(r"tbn?z x\d+, #(\d+), \.Lt", lambda m: str(int(m[1]) + 1) if int(m[1]) < 62 else None, "threshold")
    add(r"cmp r\d+, #(\d+)$", lambda m: str(int(m[1]) + 1) if int(m[1]) < 255 else None, "threshold")
    swaps = {"tbz": "tbnz", "tbnz": "tbz", "bls": "bhi", "bhi": "bls", "b.ls": "b.hi", "b.hi": "b.ls"}
    add(r"^ +(tbn?z|b\.?ls|b\.?hi) ", lambda m: swaps[m[1]], "child")
    for before in ("", "0x[0-9a-f]+, "):  # a leaf of two values has them side by side
        add(rf"\.xword {before}(0x[0-9a-f]+)", lambda m: _other_bits(int(m[1], 16)), "leaf")
    # Of a double in two words, one that is not zero: the sum's rounding would swallow what is next to it.
    add(r"^    \.word (0x[0-9a-f]+), 0x[1-9a-f]", lambda m: hex(int(m[1], 16) ^ 1 << 30), "leaf")
    add(r"(?:addw|subw) r12, r12, #(\d+)", lambda m: str(int(m[1]) ^ 1), "leaf")
    return places


def _other_bits(double: int) -> str:
    """Another double; for zero one that the rounding of a sum does not swallow."""
    return hex(double ^ 1 << 30 if double & ~(1 << 63) else 0x3EB0_0000_0000_0000)


def _tables(text: str) -> list[Place]:
    """Entries of the tables that a bit-vector walk reads."""
    places: list[Place] = []
    for table, change, what in (
        ("edge_leaves", _other_double, "leaf"),
        ("edge_masks", _other_side, "child"),
        ("edge_trees", lambda t: str(int(t) ^ 1), "threshold"),
    ):
        match = re.search(rf"{table}\[\d+\] = {{(.*?)}};", text, re.DOTALL)
        if match:
            for entry in re.finditer(r"/\*.*?\*/|([^\s,]+)", match[1]):
                if entry[1]:
                    at = match.start(1) + entry.start(1)
                    places.append((at, at + len(entry[1]), change(entry[1]), f"{what}: {table} {entry[1]}"))
    return places


def _other_side(text: str) -> str:
    """A mask that clears the other leaves: the split's children are swapped."""
    wide = text.endswith("ll")
    return hex(int(text.rstrip("ul"), 16) ^ ((1 << (64 if wide else 32)) - 1)) + ("ull" if wide else "u")


def _other_double(text: str) -> str:
    """Another leaf; in float32 by so much that the rounding of a sum does not swallow it."""
    single = text.endswith("f")
    value = float.fromhex(text.rstrip("f"))
    change = 2**-12 if single else 2**-20
    return (value * (1 + change) if value else change).hex() + ("f" if single else "")
