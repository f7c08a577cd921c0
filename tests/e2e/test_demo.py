"""`vxsniff demo`, as a newcomer runs it; and its relay as the tests' mirror with faults."""

import json
import re
import signal
import socket
import subprocess
import sys
import time

import pytest

from tests.e2e.program import Running, environment, free_udp_port, in_ledger, vxsniff

LINE = re.compile(r"\d\d:\d\d:\d\d\.\d{3}  vni 123 +[A-Z]+ +\d{3} +\d+ ms  shop\.example/\S*  [\d.]+ k?B > [\d.]+ k?B")


def test_the_first_call_shows_within_two_seconds_and_ctrl_c_prints_the_ledger(tmp_path):
    started_s = time.monotonic()
    demo = subprocess.Popen(
        [sys.executable, "-m", "vxsniff", "demo", "--port", str(free_udp_port())],
        cwd=tmp_path,
        env=environment(SNIFFER_MIRROR_VNIS="9", USAGE_LOGGERS_URL="http://db.example/"),  # the demo is its own default
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        first = demo.stdout.readline()
        took_s = time.monotonic() - started_s
        lines = [first, demo.stdout.readline()]
        demo.send_signal(signal.SIGINT)
        out, err = demo.communicate(timeout=20)
    finally:
        demo.kill()
    # The promise is two seconds; a machine that runs other tests beside gets some more.
    assert took_s < 4
    lines += out.splitlines(keepends=True)
    assert all(LINE.match(line) for line in lines), lines
    assert demo.returncode == 0
    assert "ledger\n" in err
    assert "does not close" not in err
    assert "Traceback" not in err


def test_a_demo_of_so_many_calls_ends_by_itself_and_shows_each_once(tmp_path):
    done = vxsniff("demo", "--calls", "40", "--rate", "100", "--port", "0", "--url", "calls.ndjson", cwd=tmp_path)
    assert done.returncode == 0, done.stderr.decode()
    calls = [dict(map(tuple, json.loads(line))) for line in (tmp_path / "calls.ndjson").read_bytes().splitlines()]
    assert len(calls) == 40
    assert {call["request_header:host"] for call in calls} == {"shop.example"}
    assert not any("custom_field:capture" in call for call in calls)
    assert in_ledger(done.stderr, "accepted") == 40


@pytest.mark.parametrize("fault", [("--repeat", "0.5"), ("--reorder", "0.3"), ("--repeat", "0.3", "--reorder", "0.5")])
def test_packets_that_come_twice_or_late_change_nothing(tmp_path, fault):
    done = vxsniff("demo", "--calls", "60", "--rate", "200", "--port", "0", "--url", "-", *fault, cwd=tmp_path)
    assert done.returncode == 0
    calls = [dict(map(tuple, json.loads(line))) for line in done.stdout.splitlines()]
    assert len(calls) == 60
    assert not any("gap" in call.get("custom_field:capture", "") for call in calls)


def test_lost_and_cut_packets_are_named(tmp_path):
    done = vxsniff(
        "demo", "--calls", "150", "--rate", "300", "--port", "0", "--url", "-", "--lose", "0.1", cwd=tmp_path
    )
    assert done.returncode == 0
    assert in_ledger(done.stderr, "lost_bytes") > 0
    assert 40 < len(done.stdout.splitlines()) < 150
    done = vxsniff(
        "demo", "--calls", "30", "--rate", "200", "--port", "0", "--url", "-", "--truncate", "200", cwd=tmp_path
    )
    assert in_ledger(done.stderr, "cut_bytes") > 0


def test_a_port_in_use_ends_the_demo_with_its_line(tmp_path):
    port = free_udp_port()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("127.0.0.1", port))
        done = vxsniff("demo", "--port", str(port), cwd=tmp_path)
    assert done.returncode == 3
    assert done.stderr.decode().splitlines()[-1].startswith(f"vxsniff: UDP port {port} is in use")


def test_the_demo_mirrors_to_a_vxsniff_elsewhere(tmp_path):
    with Running("--vnis", "123", "--url", "calls.ndjson", "--rules", "include debug", cwd=tmp_path) as running:
        target = f"localhost:{running.port}"
        done = vxsniff("demo", "--to", target, "--address", "x", cwd=tmp_path)
        assert done.returncode == 2  # what it does not have
        done = vxsniff("demo", "--to", target, "--calls", "10", "--rate", "100", cwd=tmp_path)
        assert (done.returncode, done.stdout) == (0, b"")
        assert done.stderr.decode() == f"mirroring calls to {target}, VNI 123; Ctrl-C ends it\n10 calls were made\n"
        assert running.stop() == 0
    assert len((tmp_path / "calls.ndjson").read_bytes().splitlines()) == 10
