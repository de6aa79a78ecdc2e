"""`--dump forest|ranks|asm`: the intermediate form of a model or a bundle, and what was made of it, as text."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from compile import elf, forest_file, frontends
from compile.build import HEAT_ROWS
from compile.check import FIXED_ENTRY
from compile.emit.trees import emit
from compile.forest import Forest
from compile.matrix import Matrix
from compile.quantise import fixed
from compile.ranks import rank_forest
from compile.targets import TARGETS, Target
from edge_runtime.bundle import Bundle
from edge_runtime.errors import BadInput

WHAT = ("forest", "ranks", "asm")


def of_model(what: str, model: object, target: Target, mode: str | None, data: Path | None) -> Iterator[str]:
    """A model's forest, its ranks, or the source emitted for a target; mode None is "exact"."""
    forest = frontends.load(model).forest
    features = None if data is None else Matrix.load(data).features
    if features is not None:
        forest = forest.counted(features[:HEAT_ROWS])
    quantised = fixed(forest, features) if mode in {"fixed", "compact"} else None
    if what != "asm":
        yield from _form(what, forest if quantised is None else quantised.forest)
        return
    code = emit(forest, target, mode=mode or "exact", quantised=quantised)
    yield from _files({"edge_model.c": code.c, **code.files})


def of_bundle(what: str, bundle: Bundle, name: str) -> Iterator[str]:
    """A bundle's forest or ranks, as a target computes them, or its source; disassembled where only code is kept."""
    artifact = bundle.manifest["artifacts"].get(name)
    if artifact is None:
        held = ", ".join(bundle.manifest["artifacts"])
        raise BadInput(f"bundle {bundle.origin}: holds nothing for {name}, only {held}; name one in --target")
    if what == "asm":
        yield from _code(bundle, artifact, TARGETS[name])
        return
    entry = "model.forest" if artifact["mode"] == "exact" else FIXED_ENTRY
    if entry not in bundle.entries:
        raise BadInput(f"bundle {bundle.origin}: holds no trees, so no {what}; --dump asm shows its code")
    yield from _form(what, forest_file.from_bytes(bundle.entry(entry)))


def _form(what: str, forest: Forest) -> Iterator[str]:
    return forest.dump() if what == "forest" else rank_forest(forest).dump()


def _files(files: Mapping[str, str]) -> Iterator[str]:
    for name, text in files.items():
        yield f"==> {name} <=="
        yield text.rstrip("\n")


def _code(bundle: Bundle, artifact: Mapping[str, Any], target: Target) -> Iterator[str]:
    sources = [entry for entry in artifact["sources"] if entry.endswith((".c", ".S"))]
    if sources:
        yield from _files({entry: bundle.entry(entry).decode() for entry in sources})
    else:
        yield from _disassembled(bundle.entry(artifact["entry"]), target)


def _disassembled(data: bytes, target: Target) -> Iterator[str]:
    import capstone  # noqa: PLC0415 - only here, and where x86's instructions are counted

    kinds = {
        "x86_64": (capstone.CS_ARCH_X86, capstone.CS_MODE_64),
        "aarch64": (capstone.CS_ARCH_ARM64, capstone.CS_MODE_ARM),
        "armv7": (capstone.CS_ARCH_ARM, capstone.CS_MODE_ARM),
    }
    parsed = elf.parse(data, what=target.name)
    names = {address & ~1: name for name, address in parsed.exports.items()}
    thumb = any(address & 1 for address in parsed.exports.values())
    arch, mode = kinds[target.machine]
    decoder = capstone.Cs(arch, capstone.CS_MODE_THUMB if thumb else mode)
    decoder.skipdata = True  # literals lie between the instructions
    for section in parsed.sections:
        if section.is_code:
            for at, _, name, operands in decoder.disasm_lite(
                data[section.offset :][: section.size], section.address
            ):
                if at in names:
                    yield f"{names[at]}:"
                yield f"{at:8x}  {name} {operands}"
