"""The cross compiler's promises: self-contained, stateless, the same bytes; and refusals in one line."""

from __future__ import annotations

from pathlib import Path

import pytest

from compile import elf
from compile.targets import TARGETS, Form, Target
from compile.toolchain import CompileError, build, image
from edge_runtime.errors import BadInput

API = '__attribute__((visibility("default"))) '
RUNTIME_USER = f"""
#include <stdint.h>
typedef struct {{ int32_t v[200]; }} big;
{API}int64_t edge_divide(int64_t a, int64_t b) {{ return a / b; }}
{API}void edge_copy(big *to, const big *from) {{ *to = *from; }}
{API}double edge_mean(const float *x) {{ return ((double)x[0] + x[1]) / 3.0; }}
static int hidden(int x) {{ return x; }}
{API}int edge_same(int x) {{ return hidden(x); }}
"""


@pytest.fixture(params=sorted(TARGETS))
def target(request: pytest.FixtureRequest) -> Target:
    return TARGETS[request.param]


def test_an_artifact_is_self_contained_and_bears_only_its_exports(target: Target) -> None:
    data = build({"m.c": RUNTIME_USER}, target)
    parsed = elf.parse(data)
    assert set(parsed.exports) == {"edge_divide", "edge_copy", "edge_mean", "edge_same"}
    assert parsed.writable_bytes == 0
    assert parsed.text_bytes > 0
    if target.form is Form.SHARED:
        assert parsed.undefined == ()
        assert parsed.relocation_count == 0
    else:
        assert all(name.startswith(("__aeabi_", "mem")) for name in parsed.undefined)
        linked = elf.parse(image(data, target))
        assert linked.undefined == ()
        assert set(parsed.exports) <= set(linked.exports)


def test_equal_sources_give_equal_bytes_wherever_they_are_built(
    target: Target, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sources = {"a.c": f'#include "a.h"\n{API}int edge_f(int x) {{ return x + N; }}', "a.h": "#define N 3\n"}
    first = build(sources, target)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    assert build(dict(reversed(sources.items())), target) == first
    assert str(tmp_path).encode() not in first
    assert build(sources | {"a.h": "#define N 4\n"}, target) != first


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("int f( {", "bad.c:1:8: error: expected parameter declarator"),
        (f"int g(int); {API}int f(int x) {{ return g(x); }}", "nothing defines g"),
        (f"static int n; {API}int f(void) {{ return n++; }}", "4 bytes of variables"),
        ('#include "nowhere.h"', "'nowhere.h' file not found"),
    ],
)
def test_what_is_no_artifact_is_refused_in_one_line(source: str, message: str, target: Target) -> None:
    with pytest.raises(CompileError) as caught:
        build({"bad.c": source}, target)
    assert message in str(caught.value)
    assert target.name in str(caught.value)
    assert "\n" not in str(caught.value)


def test_pointer_tables_are_refused_in_shared_libraries() -> None:
    table = "static int a(int x) { return x * x; } static int b(int x) { return -x; }"
    table += f"static int (*const t[])(int) = {{a, b}}; {API}int f(int i) {{ return t[i](i); }}"
    with pytest.raises(CompileError, match="2 relocations"):
        build({"t.c": table}, TARGETS["aarch64"])


def test_the_compiler_may_be_named_and_must_fit_the_target(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGE_CC_CORTEX_M4", "no-such-compiler")
    with pytest.raises(CompileError, match="no-such-compiler: No such file"):
        build({"m.c": RUNTIME_USER}, TARGETS["cortex-m4"])
    assert build({"m.c": RUNTIME_USER}, TARGETS["cortex-m0"])


def test_source_names_stay_in_their_folder() -> None:
    with pytest.raises(BadInput, match="has a path in it"):
        build({"../m.c": ""}, TARGETS["aarch64"])


def test_a_cache_that_cannot_be_written_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGE_CACHE", "/proc/nowhere")
    with pytest.raises(BadInput, match=r"/proc/nowhere/zig .*set EDGE_CACHE"):
        build({"m.c": RUNTIME_USER}, TARGETS["aarch64"])


@pytest.mark.parametrize("cut", [0, 4, 40, 200, 1000])
def test_a_damaged_elf_file_is_refused(cut: int) -> None:
    data = build({"m.c": RUNTIME_USER}, TARGETS["armv7"])
    with pytest.raises(BadInput, match="ELF file"):
        elf.parse(data[:cut])
