"""What single protocols do that the proofs of all do not cover: values, commands, clocks, real recordings."""

from __future__ import annotations

import os
import random
import struct
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_runtime.errors import BadInput
from edge_runtime.journal import VERDICT, JournalWriter, Kind, VerdictRecord
from edge_runtime.reasons import Reason
from edge_runtime.replay import Replay
from edge_runtime.resample import Resampler, resampled
from edge_runtime.scan import Axis, Happening, Scan
from edge_runtime.scanners import SCANNERS, framed, make
from edge_runtime.scanners.ath_spectral import AthSpectral
from edge_runtime.scanners.base import Battery, Can, Configuration, Damage, Heard, Identity, Scanner, Send
from edge_runtime.scanners.rf_explorer import RFExplorer, frequencies_command, points_command
from edge_runtime.scanners.sweep_text import SweepText
from edge_runtime.scanners.tinysa import TinySA, TinySAUltra, scanraw
from edge_runtime.scanners.uniden import Uniden, UnidenBCD
from tests.rig_run import clock_us
from tests.scanner_streams import STREAMS, int16s, powers_of

DATA = Path(__file__).parent / "data"
AXIS = Axis(433_795_000, 980, 256)


def all_of(scanner: Scanner, data: bytes) -> list[Heard]:
    return [*scanner.feed(data, 0), *scanner.end(0)]


@pytest.mark.parametrize("name", SCANNERS)
def test_scanners_do_what_they_declare_and_refuse_the_rest_in_one_line(name: str) -> None:
    scanner = make(name, AXIS)
    commands = {Can.PAUSE: "pause", Can.SLEEP: "sleep", Can.BATTERY: "battery"}
    for can, command in commands.items():
        if can in scanner.can:
            assert isinstance(getattr(scanner, command)(), bytes)
        elif name not in ("uniden", "uniden-bcd"):  # they pause by not being asked
            with pytest.raises(BadInput, match=scanner.name):
                getattr(scanner, command)()
    if Can.CONFIGURE in scanner.can:
        assert scanner.configure(AXIS)
    with pytest.raises(BadInput, match="choose of"):
        make("nonsense")


# RF Explorer: the bytes of its API document.


def test_rf_explorer_commands_to_the_byte() -> None:
    scanner = RFExplorer()
    assert scanner.start() == b"#\x04Cn#\x04C0"
    assert scanner.pause() == b"#\x04CH"
    assert scanner.sleep() == b"#\x04CH#\x04L0"
    assert scanner.wake() == b"#\x04L1#\x04C0"
    assert points_command(112) == b"#\x05CJ\x06"
    assert points_command(300) == b"#\x06Cj\x01\x2c"
    assert frequencies_command(AXIS) == b"#\x20C2-F:0433795,0434045,0000,-120"


@pytest.mark.parametrize("head", [b"$s\x00", b"$z\x10\x00"])
def test_rf_explorer_counts_of_4096(head: bytes) -> None:
    line = b"#C2-F:0433795,0000061,0000,-120,4096,0,000,0240000,0960000,0100000,00003,0000,000\r\n"
    events = all_of(RFExplorer(), line + head + bytes(range(256)) * 16 + b"\r\n")
    assert powers_of(events) == [int16s([-50 * b for b in range(256)] * 16)]


def test_rf_explorer_asks_again_after_a_reboot_and_when_the_axis_is_another() -> None:
    scanner = RFExplorer(AXIS)
    asks = Send(RFExplorer().configure(AXIS))
    line = b"#C2-F:0433795,0000980,0000,-120,0112,0,000,0240000,0960000,0100000,00003,0000,000\r\n"
    assert asks in scanner.feed(line, 0)
    assert asks not in scanner.feed(line, 0)  # asked once, then taken as it is
    assert Send(b"#\x04C0") in scanner.feed(b"(C) Ariel Rocholl 2009\r\n", 0)
    assert asks in scanner.feed(line, 0)


def test_rf_explorer_tells_why_a_sweep_is_missing() -> None:
    stream = next(s for s in STREAMS if s.name == "rf-explorer-S")
    frame, _ = stream.frame(0)
    cases = {
        Reason.NO_CONFIG: frame,
        Reason.ABORTED: stream.opening + frame[:20] + b"\xff\xfe\xff\xfe\x00",
        Reason.TRUNCATED: stream.opening + frame[:20] + frame,
        Reason.BAD_LENGTH: stream.opening + b"$S\x10" + bytes(16) + b"\r\n",
        Reason.GARBAGE: stream.opening + b"\x01\x02\x03" + frame,
    }
    for reason, data in cases.items():
        events = all_of(RFExplorer(), data)
        assert [e.reason for e in events if type(e) is Damage] == [reason]


def test_an_rf_explorers_sweep_given_up_in_pieces_is_told_at_once() -> None:
    decoder, stream = RFExplorer(), next(s for s in STREAMS if s.name == "rf-explorer-S")
    frame, _ = stream.frame(0)
    decoder.feed(stream.opening + frame, 0)
    assert [len(decoder.feed(piece, 1)) for piece in (frame[:9], frame[9:20], frame[20:])] == [0, 0, 1]
    events = [e for piece in (frame[:9], b"\xff\xfe\xff", b"\xfe\x00") for e in decoder.feed(piece, 2)]
    assert [e.reason for e in events if type(e) is Damage] == [Reason.ABORTED]


def test_rf_explorer_sees_an_early_end_whatever_was_waited_for_before() -> None:
    """Found by fuzzing: how far one sweep was searched had outlived it."""
    stream = next(s for s in STREAMS if s.name == "rf-explorer-S")
    first, _ = stream.frame(0)
    second = stream.frame(1)[0]
    given_up = second[:8] + b"\xff\xfe\xff\xfe\x00" + second[13:]
    scanner = RFExplorer()
    scanner.feed(stream.opening, 0)
    events = [e for cut in (first[:30], first[30:] + given_up) for e in scanner.feed(cut, 0)]
    assert [e.reason for e in events if type(e) is Damage] == [Reason.ABORTED]
    assert powers_of(events) == [stream.frame(0)[1]]


# tinySA


@given(st.lists(st.integers(0, 0xFFFF), min_size=1, max_size=40), st.integers(-20, 250))
@settings(max_examples=200, deadline=None, derandomize=True)
def test_tinysa_powers_are_exact(counts: list[int], zero: int) -> None:
    scanner = TinySA(Axis(1, 1, len(counts)))
    body = b"".join(struct.pack("<BH", 0x78, c) for c in counts)
    for _ in range(2):  # the slow way, and the way of the steady state
        events = (scanner.feed(b"%ddBm\r\n" % zero, 0) and []) or scanner.feed(b"{" + body + b"}", 0)
        exact = [max(-0x8000, min(0x7FFF, (25 * c + 4) // 8 - 100 * zero)) for c in counts]
        assert powers_of(events) == [int16s(exact)]


def test_tinysa_conversation() -> None:
    scanner = TinySAUltra(Axis(433_000_000, 10_000, 4))
    answers = {
        b"\r": b"\r\nch> ",
        b"version\r": b"version\r\ntinySA4_v1.4-143-g864bb27\r\nHW Version:V0.4.5.1 \r\nch> ",
        b"zero\r": b"zero\r\nusage: zero {level}\r\n170dBm\r\nch> ",
        scanraw(
            Axis(433_000_000, 10_000, 4)
        ): b"scanraw 433000000 433040000 4 3\r\n{x\0\x0ax\0\x0ax\0\x0ax\0\x0a}",
    }
    say, heard = scanner.start(), []
    for _ in range(4):
        events = scanner.feed(answers[say], 0)
        heard += events
        say = next((e.data for e in events if type(e) is Send), b"")
    assert Identity("tinySA4", "v1.4-143-g864bb27", "V0.4.5.1") in heard
    assert Configuration(Axis(433_000_000, 10_000, 4), "scanraw 433000000 433040000 4 3") in heard
    assert powers_of(heard) == [int16s([100 * (0xA00 // 32 - 170)] * 4)]
    assert Battery(4112) in scanner.feed(b"}vbat\r\n4112 mV\r\nch> "[1:], 0)
    assert scanner.feed(b"foo?\r\nch> ", 0) == [Send(scanraw(Axis(433_000_000, 10_000, 4)))]
    scanner.pause()
    assert scanner.feed(b"pause\r\nch> ", 0) == []


def test_tinysa_text_sweeps() -> None:
    scanner = TinySA()
    rows = b"scan 100 300 2 7\r\n100 -9.0e+01 -8.0e+01\r\n200 -1.25e+01 0.0\r\nch> "
    (scan,) = [e for e in scanner.feed(rows, 0) if type(e) is Scan]
    assert scan == Scan(int16s([-9000, -1250]), Axis(100, 100, 2), 0)
    (scan,) = [e for e in scanner.feed(b"data 1\r\n-5.0e+01\r\n-6.0e+01\r\nch> ", 0) if type(e) is Scan]
    assert scan.power_cdbm == int16s([-5000, -6000])
    short = scanner.feed(b"data 1\r\n-5.0e+01\r\nch> ", 0)
    assert [e.reason for e in short if type(e) is Damage] == [Reason.BAD_LENGTH]


LOGS = os.environ.get("EDGE_CAPTURES", "")


@pytest.mark.skipif(
    not LOGS, reason="EDGE_CAPTURES names no folder with tinysa/*.bin (their licence is unknown)"
)
@pytest.mark.parametrize(("name", "points"), [("100pt", 100), ("25pt", 25)])
def test_tinysa_logs_parse_whole(name: str, points: int) -> None:
    data = Path(LOGS, "tinysa", f"ultra_scanraw_865-867MHz_{name}.bin").read_bytes()
    size = 3 * points + 2
    for scanner in (TinySAUltra(), TinySAUltra(Axis(865_000_000, 2_000_000 // points, points))):
        events = list(scanner.feed(data, 0))
        assert len(events) == len(data) // size
        for k in (0, len(events) // 2, len(events) - 1):
            counts = struct.unpack("<" + "xH" * points, data[k * size + 1 : (k + 1) * size - 1])
            assert powers_of(events[k : k + 1]) == [int16s([(25 * c + 4) // 8 - 17_400 for c in counts])]
        assert [e for e in scanner.end(0) if type(e) is Damage and e.reason == Reason.GARBAGE] == []


# ath9k and ath10k: first and last sample of each file as FFT_eval's published tables have them.


@pytest.mark.parametrize(
    ("name", "count", "first", "totals"),
    [
        (
            "ar9280_analog_camera_ch1",
            283,
            [-120.37, -125.42, -132.94, -118.53, -119.87, -124.15],
            (-6788.22, -6434.61),
        ),
        ("ath10k_20mhz", 128, [-70.3] * 6, (-4405.26, -4283.01)),
    ],
)
def test_ath_dumps(name: str, count: int, first: list[float], totals: tuple[float, float]) -> None:
    events = all_of(AthSpectral(), (DATA / f"{name}.dump").read_bytes())
    scans = [e for e in events if type(e) is Scan]
    assert len(scans) == count
    assert not [e for e in events if type(e) is Damage]
    rows = [struct.unpack(f"<{s.axis.points}h", s.power_cdbm) for s in scans]
    assert [v / 100 for v in rows[0][:6]] == pytest.approx(first, abs=0.006)
    for row, total in zip((rows[0], rows[-1]), totals, strict=True):
        assert sum(row) / 100 == pytest.approx(total, abs=0.006 * len(row))


def test_ath_crash_file_is_damage_and_no_crash() -> None:
    events = all_of(AthSpectral(), (DATA / "crash_1.dump").read_bytes())
    assert events == [Damage(Reason.BAD_LENGTH, 4095)]


# Sweeps of rows


def test_rows_with_empty_bins_are_refused_and_comments_passed_over() -> None:
    good = b"2026-11-24, 10:00:01, 100000, 130000, 10000, 4, -1, -2, -3\n"
    for cell in (b"nan", b"-inf", b"inf", b"x", b""):
        events = all_of(SweepText(), b"# comment\n\n" + good + good.replace(b"-2", cell) + good)
        assert powers_of(events) == [int16s([-100, -200, -300])] * 2
        assert [e.size for e in events if type(e) is Damage] == [len(good.replace(b"-2", cell))]


def test_a_sweep_is_given_when_its_last_hop_is_there_once_the_shape_is_known() -> None:
    stream = next(s for s in STREAMS if s.name == "hackrf-sweep")
    scanner = SweepText()
    for k in range(3):
        scanner.feed(stream.frame(k)[0], 0)
    assert powers_of(scanner.feed(stream.frame(3)[0], 0)) == [stream.frame(3)[1]]


# Uniden


def test_uniden_answers_of_both_kinds() -> None:
    scanner = Uniden()
    assert scanner.start() == b"MDL\rVER\rGSI\r"
    events = scanner.feed(b"MDL,SDS100\rVER,Version 1.23.07\rGSI,ERR,6\r", 0)
    assert events == [Identity("SDS100"), Identity("SDS100", "Version 1.23.07")]
    volts = (
        b'GSI,<XML>,\r<ScannerInfo>\r<C Freq=" 162.550000MHz" />\r<Property Rssi="0.403" />\r</ScannerInfo>\r'
    )
    told, scan, again = scanner.feed(volts, 0)
    assert told == Configuration(Axis(162_550_000, 12_500, 1), "162550000 Hz, V")
    assert scan == Scan(int16s([40]), Axis(162_550_000, 12_500, 1), 0)
    assert again == Send(b"GSI\r")
    bcd = UnidenBCD()
    assert powers_of(bcd.feed(b"PWR,412,01550400\r", 0)) == [int16s([412])]


# Framed


def test_framed_numbers_repeats_gaps_and_restarts() -> None:
    def sweep(sequence: int) -> bytes:
        return framed.frame(framed.SWEEP, sequence, 0, framed.AXIS.pack(1, 1, 2) + b"abcd")

    scanner = framed.Framed()
    events = [*scanner.feed(sweep(65_535) + sweep(0) + sweep(3) + sweep(3) + sweep(4), 0)]
    losses = [e for e in events if type(e) is Damage]
    assert losses == [Damage(Reason.SKIPPED, 2), Damage(Reason.REPEATED, len(sweep(3)))]
    hello = framed.frame(framed.HELLO, 0, 0, b"model\x001.0\x00serial")
    assert scanner.feed(hello + sweep(1), 0)[0] == Identity("model", "1.0", "serial")
    assert not [e for e in scanner.feed(sweep(2), 0) if type(e) is Damage]


@settings(max_examples=30, deadline=None, derandomize=True)
@given(st.integers(0, 0xFFFF_FFFF), st.integers(-100, 100), st.integers(1, 1000))
def test_framed_time_of_measurement_follows_the_senders_clock(began: int, drift_ppm: int, seed: int) -> None:
    """Transfers are late by 1 to 30 ms; the estimate is off by less than the quickest, and follows the drift."""
    chance = random.Random(seed)
    scanner = framed.Framed()
    scanner.byte_us = 0
    worst = 0
    for k in range(400):
        true_us = 10_000_000 + 200_000 * k
        sender_us = (began + round(200_000 * k * (1 + drift_ppm / 1e6))) & 0xFFFF_FFFF
        late_us = 1000 + round(chance.expovariate(1 / 4000))
        frame = framed.frame(framed.SWEEP, k, sender_us, framed.AXIS.pack(1, 1, 1) + b"ab")
        (scan,) = [e for e in scanner.feed(frame, true_us + late_us) if type(e) is Scan]
        if k > 50:
            worst = max(worst, abs(scan.measured_us - true_us))
    assert worst < 9_000


@given(st.binary(max_size=2000))
@settings(max_examples=200, deadline=None, derandomize=True)
def test_framed_stuffing_round_trip_and_no_delimiter(packet: bytes) -> None:
    stuffed = framed.stuff(packet)
    assert stuffed.count(b"\n") == 1
    assert framed.unstuff(stuffed[:-1]) == packet
    assert len(stuffed) <= len(packet) + len(packet) // 254 + 2


# Resampling, against the definition by exact fractions


@settings(max_examples=200, deadline=None, derandomize=True)
@given(
    st.integers(0, 1000),
    st.integers(1, 50),
    st.integers(1, 30),
    st.integers(0, 1000),
    st.integers(1, 50),
    st.integers(1, 30),
    st.sampled_from(["nearest", "peak"]),
)
def test_resampling_is_what_it_says(
    start: int, step: int, points: int, want_start: int, want_step: int, want_points: int, mode: str
) -> None:
    have, want = Axis(start, step, points), Axis(want_start, want_step, want_points)
    values = [random.Random(start).randrange(-9000, 0) for _ in range(points)]
    expected = []
    for k in range(want_points):
        place = want_start + k * want_step
        if not 2 * (start - place) <= step or not 2 * (place - (start + (points - 1) * step)) < step:
            with pytest.raises(BadInput):
                Resampler(have, want, mode)
            return
        nearest = min(range(points), key=lambda i: (abs(start + i * step - place), -i))
        near = [i for i in range(points) if -want_step <= 2 * (start + i * step - place) < want_step]
        expected.append(max(values[i] for i in near) if mode == "peak" and near else values[nearest])
    assert Resampler(have, want, mode)(int16s(values)) == int16s(expected)


def test_resampling_is_declared_once_and_refused_where_the_contract_forbids() -> None:
    want = Axis(0, 10, 3)
    other, far = Axis(0, 5, 8), Axis(900, 5, 8)
    items = [
        Scan(int16s(range(3)), want, 0),
        *([Scan(int16s(range(8)), axis, 0) for axis in (other, other, far)]),
    ]
    out = list(resampled(items, want, "nearest"))
    assert [i.reason for i in out if type(i) is Happening] == [Reason.RESAMPLED, Reason.AXIS]
    assert [i.axis for i in out if type(i) is Scan] == [want, want, want, far]
    near = Scan(int16s(range(3)), Axis(1, 9, 3), 0)
    assert list(resampled([near], want, "nearest", slack_hz=1)) == [near]
    brought = list(resampled([near], want, "nearest"))
    assert [i.axis for i in brought if type(i) is Scan] == [want]
    forbidden = list(resampled(items, want, "forbid"))
    assert [i.axis for i in forbidden if type(i) is Scan] == [want, other, other, far]


# Replay


def kept(folder: Path, count: int, apart_us: int) -> None:
    writer = JournalWriter(folder)
    for k in range(count):
        record = VerdictRecord(k, 5_000_000 + k * apart_us, 1, 0, -1, 0, 16, 2, 0, 0, 0, 0, 0, 0, 0.0)
        writer.append(Kind.VERDICT, VERDICT.pack(*record))
        writer.append(Kind.SCAN, k.to_bytes(4, "little") + int16s([-k, -2 * k]))
    writer.close()


def test_a_journal_plays_at_full_and_at_recorded_speed(tmp_path: Path) -> None:
    kept(tmp_path / "j", 5, 50_000)
    axis = Axis(100, 10, 2)
    for query, least_us, most_us in (
        ("", 0, 40_000),
        ("?speed=1", 199_000, 400_000),
        ("?speed=10", 19_000, 90_000),
    ):
        took_us = []
        while not took_us or (
            took_us[-1] > most_us and len(took_us) < 20
        ):  # a busy machine may stall any of them
            began = clock_us()
            with Replay(f"{tmp_path / 'j'}{query}", axis, clock_us) as replay:
                scans = [item for item in replay if type(item) is Scan]
            took_us.append(clock_us() - began)
            assert [scan.power_cdbm for scan in scans] == [int16s([-k, -2 * k]) for k in range(5)]
        assert least_us <= min(took_us) <= most_us
    with Replay(f"{tmp_path / 'j'}?speed=0.001", axis, clock_us) as replay:
        for _ in replay:
            replay.stop()


def test_a_journal_without_sweeps_or_with_a_bad_speed_is_refused(tmp_path: Path) -> None:
    JournalWriter(tmp_path / "empty").close()
    kept(tmp_path / "j", 1, 1)
    for url in ("empty", "nowhere", "j?speed=fast", "j?speed=-1", "j?pace=1"):
        with pytest.raises(BadInput):
            Replay(str(tmp_path / url), AXIS, clock_us)
