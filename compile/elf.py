"""A reader for the ELF files that the toolchain makes: sections, segments, symbols; 32 and 64 bit.

System V ABI, chapter 4 (object files) and 5 (program loading); the numbers are those of <elf.h>.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from edge_runtime.errors import BadInput

EM_386, EM_ARM, EM_X86_64, EM_AARCH64 = 3, 40, 62, 183
ET_REL, ET_EXEC, ET_DYN = 1, 2, 3
_SHT_SYMTAB, _SHT_RELA, _SHT_REL, _SHT_DYNSYM = 2, 4, 9, 11
_SHF_WRITE, _SHF_ALLOC, _SHF_EXECINSTR = 1, 2, 4
_PT_LOAD = 1
_UNDEFINED = 0
_LOCAL, _DEFAULT_VISIBILITY = 0, 0
_BOOKKEEPING = frozenset(
    {
        ".dynsym",
        ".dynstr",
        ".hash",
        ".gnu.hash",
        ".gnu.version",
        ".gnu.version_r",
        ".eh_frame",
        ".eh_frame_hdr",
    }
)


class Section(NamedTuple):
    """One section header; `address` is 0 in a relocatable object."""

    name: str
    type: int
    flags: int
    address: int
    offset: int
    size: int
    link: int
    entry_size: int

    @property
    def is_code(self) -> bool:
        """Whether it holds instructions."""
        return bool(self.flags & _SHF_EXECINSTR)

    def content(self, data: bytes) -> bytes:
        """Its bytes in the file that it is of."""
        return data[self.offset : self.offset + self.size]


class Segment(NamedTuple):
    """What a loader maps: `data` at `address`, zeros up to `memory_size` bytes."""

    address: int
    data: bytes
    memory_size: int


class Symbol(NamedTuple):
    """One named address. On ARM bit 0 of a function's value says Thumb."""

    name: str
    value: int
    size: int
    defined: bool
    exported: bool


@dataclass(frozen=True, slots=True)
class Elf:
    """One parsed file."""

    machine: int
    type: int
    is_64: bool
    sections: tuple[Section, ...]
    segments: tuple[Segment, ...]
    symbols: tuple[Symbol, ...]

    @property
    def text_bytes(self) -> int:
        """Size of the executable sections, in bytes."""
        return sum(s.size for s in self.sections if s.flags & _SHF_EXECINSTR)

    @property
    def rodata_bytes(self) -> int:
        """Size of the constant tables, in bytes; the dynamic linker's own tables are not counted."""
        return sum(
            s.size
            for s in self.sections
            if s.flags & (_SHF_WRITE | _SHF_ALLOC | _SHF_EXECINSTR) == _SHF_ALLOC
            and s.name not in _BOOKKEEPING
            and not s.name.startswith((".ARM.", ".rel", ".note"))
        )

    @property
    def writable_bytes(self) -> int:
        """Size of variables (.data, .bss) in bytes: state, which an artifact must not have."""
        state = (".data", ".bss", ".tdata", ".tbss")
        relocated = ".data.rel.ro"  # constants that hold pointers
        return sum(
            s.size for s in self.sections if s.name.startswith(state) and not s.name.startswith(relocated)
        )

    @property
    def relocation_count(self) -> int:
        """How many places the loader (or, for an object, the linker) has to patch."""
        tables = (s for s in self.sections if s.type in (_SHT_REL, _SHT_RELA))
        return sum(s.size // s.entry_size for s in tables)

    @property
    def exports(self) -> Mapping[str, int]:
        """Symbols that others may call, with their addresses (bit 0 set for Thumb)."""
        return {s.name: s.value for s in self.symbols if s.defined and s.exported}

    @property
    def undefined(self) -> tuple[str, ...]:
        """Symbols that somebody else has to supply, sorted."""
        return tuple(sorted({s.name for s in self.symbols if not s.defined and s.name}))


class _Layout(NamedTuple):
    """The two classes of ELF differ in field widths and order only."""

    header: struct.Struct
    section: struct.Struct
    segment: struct.Struct
    symbol: struct.Struct


_ELF32 = _Layout(
    struct.Struct("<HHIIIIIHHHHHH"), struct.Struct("<10I"), struct.Struct("<8I"), struct.Struct("<IIIBBH")
)
_ELF64 = _Layout(
    struct.Struct("<HHIQQQIHHHHHH"),
    struct.Struct("<IIQQQQIIQQ"),
    struct.Struct("<IIQQQQQQ"),
    struct.Struct("<IBBHQQ"),
)


def parse(data: bytes, *, what: str = "artifact") -> Elf:
    """Read an ELF file. `what` names it in errors. Raises BadInput where it is not one, or is cut short."""
    if data[:4] != b"\x7fELF" or len(data) < 52 or data[4] not in (1, 2) or data[5] != 1:
        raise BadInput(f"{what}: not a little-endian ELF file; build it again")
    try:
        return _parse(data, is_64=data[4] == 2)
    except (struct.error, ValueError, IndexError) as e:
        raise BadInput(f"{what}: damaged ELF file ({e}); build it again") from e


def _parse(data: bytes, *, is_64: bool) -> Elf:
    layout = _ELF64 if is_64 else _ELF32
    kind, machine, _, _, ph_at, sh_at, _, _, _, ph_count, _, sh_count, names_at = layout.header.unpack_from(
        data, 16
    )
    sections = _sections(data, layout, sh_at, sh_count, names_at)
    segments = tuple(
        segment
        for k in range(ph_count)
        if (segment := _segment(data, layout, ph_at + k * layout.segment.size, is_64)) is not None
    )
    return Elf(machine, kind, is_64, sections, segments, _symbols(data, layout, sections, is_64))


def _sections(data: bytes, layout: _Layout, at: int, count: int, names: int) -> tuple[Section, ...]:
    rows = [layout.section.unpack_from(data, at + k * layout.section.size) for k in range(count)]
    if not rows:
        return ()
    name_table = rows[names][4]
    return tuple(
        Section(_string(data, name_table + name), kind, flags, address, offset, size, link, entry)
        for name, kind, flags, address, offset, size, link, _, _, entry in rows
    )


def _segment(data: bytes, layout: _Layout, at: int, is_64: bool) -> Segment | None:
    if is_64:
        kind, _, offset, address, _, file_size, memory_size, _ = layout.segment.unpack_from(data, at)
    else:
        kind, offset, address, _, file_size, memory_size, _, _ = layout.segment.unpack_from(data, at)
    if kind != _PT_LOAD:
        return None
    if offset + file_size > len(data):
        raise ValueError("a segment reaches beyond the end")
    return Segment(address, data[offset : offset + file_size], memory_size)


def _symbols(data: bytes, layout: _Layout, sections: tuple[Section, ...], is_64: bool) -> tuple[Symbol, ...]:
    tables = [s for s in sections if s.type == _SHT_SYMTAB] or [s for s in sections if s.type == _SHT_DYNSYM]
    found = []
    for table in tables:
        names = sections[table.link].offset
        for at in range(table.offset, table.offset + table.size, layout.symbol.size):
            if is_64:
                name, info, other, section, value, size = layout.symbol.unpack_from(data, at)
            else:
                name, value, size, info, other, section = layout.symbol.unpack_from(data, at)
            exported = info >> 4 != _LOCAL and other & 3 == _DEFAULT_VISIBILITY
            found.append(Symbol(_string(data, names + name), value, size, section != _UNDEFINED, exported))
    return tuple(found)


def _string(data: bytes, at: int) -> str:
    return data[at : data.index(b"\0", at)].decode()
