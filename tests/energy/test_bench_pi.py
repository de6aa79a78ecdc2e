"""`scripts/bench_pi` against an SSH server on loopback with an emulated bench: all of it but the board."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from edge_runtime.power import lab
from edge_runtime.power.lab import EMULATED_IDLE_A, EMULATED_WORK_A, Window, doubts, state, summarise
from edge_runtime.rig.sysfs import write
from tests.bench import bench_pi

needs_ssh = pytest.mark.skipif(
    shutil.which("ssh") is None or find_spec("asyncssh") is None,
    reason="needs an SSH client (apt-get install openssh-client) and asyncssh (pip install asyncssh)",
)


@pytest.fixture(scope="module")
def remote_tmp(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the server's shells make their temporary folders."""
    return tmp_path_factory.mktemp("remote")


@pytest.fixture(scope="module")
def ssh(tmp_path_factory: pytest.TempPathFactory, remote_tmp: Path) -> Iterator[str]:
    """A server on loopback; the command that reaches it."""
    folder = tmp_path_factory.mktemp("ssh")
    key = folder / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True)
    command = [sys.executable, str(Path(__file__).with_name("loopback_sshd.py")), f"{key}.pub"]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    environment = {**os.environ, "TMPDIR": str(remote_tmp)}
    with subprocess.Popen(command, text=True, env=environment, **pipes) as server:
        assert server.stdout is not None
        assert server.stdin is not None
        port = int(server.stdout.readline())
        options = (
            "-o BatchMode=yes -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o LogLevel=ERROR"
        )
        yield f"ssh -p {port} -i {key} {options}"
        server.stdin.close()


def arguments(ssh: str, bundle: Path, output: Path, *more: str) -> list[str]:
    return [
        "127.0.0.1", "--bundle", str(bundle), "--ssh", ssh, "--python", sys.executable, "--emulated",
        "--seconds", "0.5", "--output", str(output), *more,
    ]  # fmt: skip


@needs_ssh
def test_a_session_over_ssh(
    ssh: str, demo_path: Path, tmp_path: Path, remote_tmp: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    more = ("--json", "--session-windows", "2")
    assert bench_pi.main(arguments(ssh, demo_path, tmp_path, *more)) == 0
    printed = json.loads(capsys.readouterr().out)
    (result,) = tmp_path.glob("*.json")
    document = json.loads(result.read_text())
    assert document["source"] == "emulated"
    assert len(document["windows"]) == 5
    # The emulated board draws 5 V x 80 mA more while it works: the truth of every window follows.
    pairs = [w["work"] for w in document["windows"]]
    truth = sorted(
        (EMULATED_WORK_A - EMULATED_IDLE_A) * 5 * w["seconds"] / w["inferences"] * 1e6 for w in pairs
    )
    assert document["uj_per_inference_above_idle"] == pytest.approx(truth[2], rel=0.1)
    low, high = document["uj_per_inference_above_idle_interval"]
    assert low <= document["uj_per_inference_above_idle"] <= high
    assert document["idle_w"] == pytest.approx(EMULATED_IDLE_A * 5, rel=0.05)
    (recorded,) = tmp_path.glob("*.session.jsonl")
    for line in recorded.read_text().splitlines():
        window = json.loads(line)
        # The emulated board draws its working current throughout: the meter and the clocks are what is tested.
        assert window["energy_j"] == pytest.approx(5 * EMULATED_WORK_A * window["seconds"], rel=0.1)
        assert 0 < window["busy_s"] <= 1.2 * window["seconds"]
    (shown,) = tmp_path.glob("*.html")
    text = shown.read_text()
    assert text.count("<rect ") == 10
    assert "emulated" in text
    met = {goal["name"]: goal["met"] for goal in printed["goals"]}
    assert met == {"windows a side": True, "shortest window": False, "doubts": False}
    assert printed["rows"] == document["windows"]
    assert not list(remote_tmp.iterdir())


@needs_ssh
@pytest.mark.parametrize(
    ("change", "code", "says"),
    [
        ({"--python": "/nonesuch"}, 3, "/nonesuch"),
        ({"--windows": "2"}, 3, "take at least 5 windows"),
        ({"--bundle": "/nonesuch.edge"}, 2, "nonesuch.edge"),
        ({"--ssh": "/nonesuch"}, 2, "no /nonesuch; apt-get install openssh-client"),
    ],
)
def test_what_goes_wrong_is_one_line(
    ssh: str, demo_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], change: dict[str, str], code: int,
    says: str,
) -> None:  # fmt: skip
    more = [part for pair in change.items() for part in pair]
    assert bench_pi.main(arguments(ssh, demo_path, tmp_path / "out", *more)) == code
    message = capsys.readouterr().err
    assert says in message
    assert message.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_a_host_that_is_an_option_is_refused() -> None:
    with pytest.raises(Exception, match="not a host"):
        bench_pi.Remote("-oProxyCommand=x", ["ssh"])


def test_state_and_doubts(tmp_path: Path) -> None:
    write(tmp_path / "sys/devices/system/cpu/cpu0/cpufreq", {"scaling_governor": "ondemand"})
    write(tmp_path / "sys/class/thermal/thermal_zone0", {"temp": 81_500})
    seen = state(tmp_path)
    assert seen["governor"] == "ondemand"
    assert seen["celsius"] == 81.5
    found = doubts(seen, {**seen, "throttled": "0x50005"})
    assert found == [
        "the governor is ondemand; set performance",
        "82 C before the windows",
        "throttled or short of voltage (0x50005) after the windows",
        "82 C after the windows",
        "the board does not tell its throttled",
    ]
    fine = {"governor": "performance", "throttled": "0x0", "celsius": 45.0}
    assert doubts(fine, fine) == []


def test_summary_is_the_median_of_pairs() -> None:
    pairs: list[Any] = []
    for extra in (0.40, 0.41, 0.39, 0.40, 4.0):  # one window in which something else ran
        pairs.append((Window(0.6, 10, 0), Window(0.6 + extra, 10, 100_000)))
    document = summarise(pairs)
    assert document["uj_per_inference_above_idle"] == pytest.approx(40)
    assert document["uj_per_inference_gross"] == pytest.approx(100)
    assert document["us_per_inference"] == pytest.approx(100)
    assert document["idle_w"] == 0.6


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (["--seconds", "1"], "at least 5 windows of 10 s"),
        (["--seconds", "10", "--meter", "modelled"], "measures nothing"),
    ],
)
def test_a_session_that_would_prove_nothing(more: list[str], says: str, demo_path: Path) -> None:
    parser = bench_pi.console.Parser()
    lab.add_arguments(parser)
    args = parser.parse_args(["--bundle", str(demo_path), "--recording", "x", *more])
    with pytest.raises(Exception, match=says):
        lab.run(args)
