"""What holds for every decoder: pieces of any size, any input, and any damage to a good stream.

EDGE_FUZZ_INPUTS sets the number of inputs that each decoder is fuzzed with: 50,000 unless set, 1,000,000 in a
nightly run.
"""

from __future__ import annotations

import os
import random
import sys
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_runtime.scan import Scan
from edge_runtime.scanners.base import Damage, Heard, Scanner
from edge_runtime.scanners.rf_explorer import RFExplorer
from tests.scanner_streams import STREAMS, Stream, powers_of

FUZZ_INPUTS = int(os.environ.get("EDGE_FUZZ_INPUTS", "50000"))
EVERY = pytest.mark.parametrize("stream", STREAMS, ids=str)
FRAMES = 20


def feed(scanner: Scanner, data: bytes, cuts: list[int]) -> list[Heard]:
    """Feed `data` cut at `cuts`."""
    events: list[Heard] = []
    for start, end in zip([0, *cuts], [*cuts, len(data)], strict=True):
        events += scanner.feed(data[start:end], 0)
    return events


def whole(stream: Stream, count: int) -> tuple[bytes, list[bytes]]:
    frames = stream.frames(count)
    return stream.opening + b"".join(f for f, _ in frames), [p for _, p in frames]


@EVERY
def test_a_good_stream_loses_nothing_in_pieces_of_any_size(stream: Stream) -> None:
    data, powers = whole(stream, FRAMES)
    chance = random.Random(5)
    at_random = [sorted(chance.choices(range(len(data) + 1), k=chance.randrange(1, 60))) for _ in range(20)]
    frame_by_frame = [len(stream.opening)]
    for frame, _ in stream.frames(FRAMES):
        frame_by_frame.append(frame_by_frame[-1] + len(frame))
    for cuts in ([], list(range(1, len(data))), frame_by_frame, *at_random):
        scanner = stream.make()
        events = [*feed(scanner, data, cuts), *scanner.end(0)]
        assert powers_of(events) == powers
        assert not [e for e in events if type(e) is Damage]


@EVERY
@settings(max_examples=150, deadline=None, derandomize=True)
@given(st.data())
def test_any_bytes_give_the_same_events_in_pieces_of_any_size(stream: Stream, data: st.DataObject) -> None:
    pieces = st.binary(max_size=80) | st.sampled_from([*stream.tokens, *(f for f, _ in stream.frames(3))])
    noise = stream.opening + b"".join(data.draw(st.lists(pieces, max_size=8)))
    cuts = data.draw(st.lists(st.integers(0, len(noise)), max_size=12).map(sorted))
    one, many, bytewise = stream.make(), stream.make(), stream.make()
    expected = feed(one, noise, [])
    assert feed(many, noise, cuts) == expected
    assert feed(bytewise, noise, list(range(1, len(noise)))) == expected
    assert [*many.end(0)] == [*bytewise.end(0)] == [*one.end(0)]


def damaged(data: bytes) -> Iterator[bytes]:
    """Every single bit flipped, every byte cut, and every byte doubled."""
    for at in range(len(data)):
        for bit in range(8):
            yield data[:at] + bytes((data[at] ^ 1 << bit,)) + data[at + 1 :]
        yield data[:at] + data[at + 1 :]
        yield data[:at] + data[at : at + 1] + data[at:]


def mutate(stream: Stream) -> tuple[int, int]:
    """Damage every frame of a stream in every single way; how many were tried, and gave a wrong value.

    Asserts that no frame after the damage is lost, nor one before it. Where a record is told to be whole by its
    successor only, the one before the damage may be lost with it.
    """
    frames, powers = [f for f, _ in stream.frames(FRAMES)], [p for _, p in stream.frames(FRAMES)]
    tried = wrong = 0
    for hit in range(FRAMES):
        first, last = max(0, hit - 2), hit + 4
        before, after = b"".join(frames[first:hit]), b"".join(frames[hit + 1 : last])
        good_before, good_after = powers[first : max(first, hit - 1)], powers[hit + 1 : last]
        before_it = powers[hit - 1 : hit] if hit else []
        for mutant in damaged(frames[hit]):
            scanner = stream.make()
            heard = powers_of([*scanner.feed(stream.opening + before + mutant + after, 0), *scanner.end(0)])
            assert heard[: len(good_before)] == good_before, mutant
            assert heard[len(heard) - len(good_after) :] == good_after, mutant
            between = heard[len(good_before) : len(heard) - len(good_after)]
            assert len(between) <= len(before_it) + 1, mutant
            assert stream.chained or between[: len(before_it)] == before_it, mutant
            others = [p for p in between if p not in before_it and p != powers[hit]]
            assert len(others) <= 1, mutant
            tried += 1
            wrong += len(others)
    return tried, wrong


@EVERY
def test_every_single_damage_costs_the_frame_it_hits_and_none_after_it(stream: Stream) -> None:
    """What passes with a wrong value where there is no checksum is a figure of scripts/bench_scanners."""
    tried, wrong = mutate(stream)
    assert tried >= 10 * FRAMES * 10
    assert wrong == 0 or not stream.checked


@EVERY
def test_frames_are_found_again_within_two_after_any_garbage(stream: Stream) -> None:
    frames = stream.frames(6)
    chance = random.Random(9)
    for _ in range(300):
        garbage = chance.randbytes(chance.randrange(1, 400))
        if chance.random() < 0.5:
            garbage += chance.choice([*stream.tokens, frames[0][0][: len(frames[0][0]) // 2]])
        scanner = stream.make()
        scanner.feed(stream.opening, 0)
        heard = powers_of([*scanner.feed(garbage + b"".join(f for f, _ in frames), 0), *scanner.end(0)])
        assert [p for _, p in frames[2:]] == heard[len(heard) - 4 :]


@EVERY
def test_endless_noise_is_counted_and_takes_bounded_memory(stream: Stream) -> None:
    """Fuzzing: mutated frames, tokens and noise, fed to one decoder without an end. Nothing is raised."""
    chance = random.Random(3)
    scanner = stream.make()
    scanner.feed(stream.opening, 0)
    stock = [*stream.tokens, *(f for f, _ in stream.frames(8))]
    largest = 0
    for k in range(FUZZ_INPUTS):
        kind = chance.random()
        if kind < 0.4:
            piece = chance.randbytes(chance.randrange(1, 24))
        else:
            piece = chance.choice(stock)
            if kind < 0.8:
                at = chance.randrange(len(piece))
                piece = piece[:at] + chance.randbytes(chance.randrange(3)) + piece[at + chance.randrange(3) :]
        for event in scanner.feed(piece, 0):
            if type(event) is Scan:
                assert len(event.power_cdbm) == 2 * event.axis.points
            elif type(event) is Damage:
                assert event.size > 0
        if k % 64 == 0:
            largest = max(largest, held(scanner))
    assert largest < 1_000_000


def held(scanner: Scanner) -> int:
    """Bytes that a decoder keeps, its buffers and lists included."""
    lists = [v for v in vars(scanner).values() if isinstance(v, list)]
    return sum(map(sys.getsizeof, [*vars(scanner).values(), *(item for one in lists for item in one)]))


def test_an_rf_explorer_takes_nothing_for_nothing() -> None:
    """An empty read is no sweep, neither before the first nor after another configuration made the size unknown."""
    decoder = RFExplorer()
    assert not decoder.feed(b"", 0)
    stream = next(s for s in STREAMS if s.name == "rf-explorer-S")
    decoder.feed(stream.opening + stream.frames(1)[0][0], 1)
    decoder.feed(stream.opening.replace(b"F:0", b"F:1"), 2)
    assert decoder.frame_bytes == 0
    assert not decoder.feed(b"", 3)
