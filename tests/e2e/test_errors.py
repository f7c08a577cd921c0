"""What goes wrong is told in one line that says what and what to do, with its exit status, and never a traceback."""

import json
import os
import signal
import socket
import subprocess
import sys
import time

import pytest

from tests.builders import CLIENT, EPOCH_NS, MS, SERVER, Endpoint, answer, get, in_vxlan, ipv4, talk, udp
from tests.capture.test_file import pcap_bytes
from tests.e2e.collector import Collector
from tests.e2e.program import Running, environment, free_udp_port, in_ledger, vxsniff
from vxsniff.demo.frames import in_geneve

CALLS = [(CLIENT, get("/a")), (SERVER, answer(b"one")), (CLIENT, get("/b")), (SERVER, answer(b"two"))]
FRAMES = talk(*CALLS)
DATAGRAMS = [in_vxlan(frame, 7) for frame in FRAMES]
FILE = pcap_bytes(frames=[(EPOCH_NS + n * MS, frame) for n, frame in enumerate(FRAMES)])


def one_line(done, status, *texts):
    error = done.stderr.decode()
    assert done.returncode == status, error
    assert "Traceback" not in error
    (line,) = error.splitlines()
    assert line.startswith("vxsniff: ")
    for text in texts:
        assert text in line


@pytest.mark.parametrize(
    ("arguments", "texts"),
    [
        (["--vnis", "12,abc"], ["--vnis", "'abc' is not a VNI"]),
        (["--port", "99999"], ["--port", "use a number from 1 to 65535"]),
        (["--rules", "/a/ rmove"], ["--rules", "line 1", "'/a/ rmove'"]),
        (["--rules", "/(/ remove"], ["--rules", "line 1"]),
        (["--url", "http://db.example/message"], ["--url", "allow_http_url"]),
        (["--url", "/no/such/folder/calls.ndjson"], ["can't be written: No such file or directory"]),
        (["--nonsense"], ["--nonsense", "vxsniff --help"]),
        (["--port"], ["--port", "vxsniff --help"]),
        (["nonsense"], ["nonsense", "vxsniff --help"]),
        (["health", "--metrics", "off"], ["there is no /healthz to ask"]),
        (["demo", "--to", "nowhere"], ["--to", "'nowhere'", "use HOST:PORT"]),
        (["rules", "check", "/no/such/file"], ["/no/such/file", "No such file or directory"]),
    ],
)
def test_wrong_settings_and_arguments_end_with_status_2(tmp_path, arguments, texts):
    one_line(vxsniff(*arguments, cwd=tmp_path), 2, *texts)


def test_a_wrong_variable_and_a_wrong_line_of_env_are_named(tmp_path):
    one_line(vxsniff(cwd=tmp_path, env={"SNIFFER_BODY_LIMIT": "much"}), 2, "SNIFFER_BODY_LIMIT: 'much'")
    (tmp_path / ".env").write_text("SNIFFER_MIRROR_VNIS=x\n")
    one_line(vxsniff(cwd=tmp_path), 2, "SNIFFER_MIRROR_VNIS in .env: 'x'")


def test_a_port_in_use_ends_with_status_3(tmp_path):
    port = free_udp_port()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("0.0.0.0", port))
        one_line(vxsniff("--port", str(port), "--url", "-", cwd=tmp_path), 3, f"UDP port {port} is in use", "--port")


@pytest.mark.root
def test_a_kernel_vxlan_device_on_the_port_is_named(tmp_path):
    name = f"vxe{os.getpid() % 10000}"
    subprocess.run(["ip", "netns", "add", name], check=True)
    try:
        inside = ["ip", "netns", "exec", name]
        subprocess.run(
            [*inside, "ip", "link", "add", "vx9", "type", "vxlan", "id", "9", "dstport", "4789", "external"],
            check=False,
        )
        subprocess.run(
            [*inside, "ip", "link", "add", "vx8", "type", "vxlan", "id", "8", "dstport", "4789"], check=False
        )
        for device in ("lo", "vx8", "vx9"):
            subprocess.run([*inside, "ip", "link", "set", device, "up"], check=False, capture_output=True)
        done = subprocess.run(
            [*inside, sys.executable, "-m", "vxsniff", "--url", "-"],
            cwd=tmp_path,
            env=environment(),
            capture_output=True,
            timeout=30,
        )
    finally:
        subprocess.run(["ip", "netns", "del", name], check=True)
    one_line(done, 3, "UDP port 4789 is in use", "a kernel vxlan device", "ip -d link show type vxlan")


@pytest.mark.root
def test_no_permission_for_a_low_port_ends_with_status_3(tmp_path):
    """As an ordinary user: setpriv (util-linux) drops root."""
    os.chmod(tmp_path, 0o755)
    command = [
        "setpriv",
        "--reuid",
        "65534",
        "--regid",
        "65534",
        "--clear-groups",
        "--inh-caps=-all",
        "--bounding-set=-all",
    ]
    script = (
        "import socket, vxsniff.capture.udp as udp\n"
        "try:\n    udp.UdpSource('127.0.0.1', [udp.Port(80)], None)\n"
        "except udp.CaptureError as error:\n    print(error)"
    )
    name = f"vxp{os.getpid() % 10000}"
    subprocess.run(["ip", "netns", "add", name], check=True)
    try:
        inside = ["ip", "netns", "exec", name]
        subprocess.run([*inside, "ip", "link", "set", "lo", "up"], check=True)
        subprocess.run([*inside, "sysctl", "-qw", "net.ipv4.ip_unprivileged_port_start=1024"], check=True)
        done = subprocess.run(
            [*inside, *command, sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, timeout=30
        )
    finally:
        subprocess.run(["ip", "netns", "del", name], check=True)
    assert "no permission to bind UDP port 80: use a port from 1024 on" in done.stdout, done.stderr


def test_a_truncated_capture_file_delivers_what_comes_before_and_ends_with_status_1(tmp_path):
    (tmp_path / "cut.pcap").write_bytes(FILE[:-20])
    done = vxsniff("--read", "cut.pcap", "--url", "-", "--rules", "include debug", cwd=tmp_path)
    assert done.returncode == 1
    assert [dict(map(tuple, json.loads(line)))["response_body"] for line in done.stdout.splitlines()] == ["one", "two"]
    assert b"cut.pcap: ends in the middle of packet" in done.stderr
    assert b"Traceback" not in done.stderr


@pytest.mark.parametrize(("data", "text"), [(b"<html></html>", b"is no capture file"), (b"", b"is empty")])
def test_a_foreign_capture_file_ends_with_status_1(tmp_path, data, text):
    (tmp_path / "page.html").write_bytes(data)
    done = vxsniff("--read", "page.html", "--url", "-", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (1, b"")
    assert text in done.stderr
    assert b"Traceback" not in done.stderr


def test_a_capture_file_that_is_not_there_ends_with_status_1(tmp_path):
    done = vxsniff("--read", "no.pcap", "--url", "-", cwd=tmp_path)
    assert done.returncode == 1
    assert b"no.pcap: can't be read: No such file or directory" in done.stderr


def test_several_files_and_standard_input_are_read(tmp_path):
    (tmp_path / "a.pcap").write_bytes(pcap_bytes(frames=[(EPOCH_NS + n * MS, f) for n, f in enumerate(FRAMES)][:6]))
    rest = pcap_bytes(frames=[(EPOCH_NS + n * MS, f) for n, f in enumerate(FRAMES)][6:])
    for arguments, stdin in ((["a.pcap", "-"], rest), (["-", "a.pcap"], rest)):
        done = vxsniff("--read", *arguments, "--url", "-", "--rules", "include debug", cwd=tmp_path, stdin=stdin)
        assert done.returncode == 0, done.stderr
        assert len(done.stdout.splitlines()) == 2


def test_standard_input_twice_is_refused(tmp_path):
    one_line(vxsniff("--read", "-", "-", "--url", "-", cwd=tmp_path), 2, "standard input can be read once")


def test_standard_input_that_is_closed_is_told(tmp_path):
    command = [sys.executable, "-m", "vxsniff", "--read", "-", "--url", "calls.ndjson"]
    done = subprocess.run(
        ["sh", "-c", 'exec "$@" <&-', "sh", *command], cwd=tmp_path, env=environment(), capture_output=True
    )
    assert done.returncode == 1
    assert b"standard input: can't be read: it is closed" in done.stderr
    assert b"Traceback" not in done.stderr


def test_a_file_whose_calls_a_collector_refuses_ends_with_status_4(tmp_path):
    (tmp_path / "a.pcap").write_bytes(FILE)
    with Collector(statuses=[403] * 9) as collector:
        done = vxsniff("--read", "a.pcap", "--url", collector.url, cwd=tmp_path)
    assert done.returncode == 4
    assert b"403 Forbidden: 2 calls were refused for good" in done.stderr
    assert in_ledger(done.stderr, "dead") == 2


def test_a_file_waits_for_a_collector_that_comes_back(tmp_path):
    (tmp_path / "a.pcap").write_bytes(FILE)
    with Collector(statuses=[503, 503]) as collector:
        done = vxsniff("--read", "a.pcap", "--url", collector.url, "--rules", "include debug", cwd=tmp_path)
        assert len(collector.lines) == 2
    assert done.returncode == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_reading_of_a_pipe_that_gives_nothing(tmp_path, number):
    reader = subprocess.Popen(
        [sys.executable, "-m", "vxsniff", "--read", "-", "--url", "calls.ndjson", "--rules", "include debug"],
        cwd=tmp_path,
        env=environment(),
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    reader.stdin.write(FILE)
    reader.stdin.flush()
    for _ in range(200):  # the calls show before the pipe ends
        if (tmp_path / "calls.ndjson").exists() and (tmp_path / "calls.ndjson").read_bytes().count(b"\n") == 2:
            break
        time.sleep(0.05)
    else:
        raise AssertionError("no calls came")
    reader.send_signal(number)
    _, error = reader.communicate(timeout=10)
    assert reader.returncode == 0
    assert in_ledger(error, "accepted") == 2
    assert b"Traceback" not in error


def test_geneve_and_both_families_are_received_live(tmp_path):
    geneve_port = free_udp_port()
    options = ("--geneve-port", str(geneve_port), "--url", "calls.ndjson", "--rules", "include debug", "--vnis", "7")
    with Running(*options, cwd=tmp_path) as running:
        assert f"GENEVE on UDP [::]:{geneve_port}" in running.log
        for host, family in (("::1", socket.AF_INET6), ("127.0.0.1", socket.AF_INET)):
            with socket.socket(family, socket.SOCK_DGRAM) as sender:
                for frame in talk(*CALLS, client=Endpoint("10.0.0.9", family)):
                    sender.sendto(in_geneve(ethernet_in_vxlan(frame), 0, b"\0" * 32, 0x0800), (host, geneve_port))
        assert running.stop() == 0
    assert len((tmp_path / "calls.ndjson").read_bytes().splitlines()) == 4


def ethernet_in_vxlan(frame):
    return ipv4(udp(in_vxlan(frame, 7)), proto=17)


def test_a_disabled_vxsniff_counts_and_delivers_nothing(tmp_path):
    with Running(cwd=tmp_path, env={"USAGE_LOGGERS_DISABLE": "true", "USAGE_LOGGERS_URL": "calls.ndjson"}) as running:
        running.send(DATAGRAMS)
        assert running.stop() == 0
    assert in_ledger(running.log, "disabled") == 2
    assert not (tmp_path / "calls.ndjson").exists()


def test_live_calls_reach_the_collector_and_both_signals_end_with_status_0(tmp_path):
    for number in (signal.SIGTERM, signal.SIGINT):
        with Collector() as collector:
            with Running("--vnis", "7", "--url", collector.url, "--rules", "include debug", cwd=tmp_path) as running:
                running.send(DATAGRAMS)
                assert running.stop(number) == 0
            assert [dict(map(tuple, call))["response_body"] for call in collector.calls()] == ["one", "two"]
            assert in_ledger(running.log, "accepted") == 2


def test_a_collector_that_is_not_there_does_not_stop_the_capture(tmp_path):
    with Running("--url", "http://127.0.0.1:9/message", "--batch-wait", "50ms", cwd=tmp_path) as running:
        running.send(DATAGRAMS)
        running.wait_for_log("connection refused: 2 calls wait, trying again")
        started_s = time.monotonic()
        assert running.stop() == 0
        assert time.monotonic() - started_s < 10
    assert "2 calls were not delivered to http://127.0.0.1:9/message" in running.log
    assert "Traceback" not in running.log


def test_a_collector_that_hangs_does_not_hold_up_the_end(tmp_path):
    with Collector(statuses=["hang"] * 20) as collector:
        with Running("--url", collector.url, "--batch-wait", "50ms", cwd=tmp_path) as running:
            running.send(DATAGRAMS)
            time.sleep(0.5)
            started_s = time.monotonic()
            assert running.stop() == 0
            assert time.monotonic() - started_s < 10
        collector.release.set()
    assert in_ledger(running.log, "dropped") == 2


def test_a_reader_of_standard_output_that_leaves_ends_the_run_quietly(tmp_path):
    (tmp_path / "a.pcap").write_bytes(FILE)
    shell = f"{sys.executable} -m vxsniff --read a.pcap --url - --rules 'include debug' --batch-size 1 | head -c 20"
    done = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {shell}"], cwd=tmp_path, env=environment(), capture_output=True, timeout=30
    )
    assert done.returncode == 0, done.stderr
    assert len(done.stdout) == 20
    assert b"Traceback" not in done.stderr


def test_the_vni_file_is_applied_without_a_restart(tmp_path):
    (tmp_path / "vnis").write_text("99\n")
    with Running("--vnis-file", "vnis", "--url", "calls.ndjson", "--rules", "include debug", cwd=tmp_path) as running:
        running.send(DATAGRAMS)
        (tmp_path / "new").write_text("7")
        (tmp_path / "new").rename(tmp_path / "vnis")  # as a mounted ConfigMap changes
        running.wait_for_log("VNIs are now: 7")
        running.send(DATAGRAMS)
        (tmp_path / "vnis").write_text("seven")
        running.wait_for_log("'seven' is not a VNI")
        assert running.stop() == 0
    assert len((tmp_path / "calls.ndjson").read_bytes().splitlines()) == 2
    assert in_ledger(running.log, "kernel_filtered") >= len(DATAGRAMS)


def test_a_rule_that_a_later_python_may_read_otherwise_is_taken_without_a_word(tmp_path):
    done = vxsniff("rules", "check", "-", cwd=tmp_path, stdin=b"/[[a]/ remove\n")  # found by fuzzing
    assert (done.returncode, done.stderr) == (0, b"")


def test_rules_check_prints_what_was_understood(tmp_path):
    (tmp_path / "rules").write_text("# mine\ninclude standard\n/request_url/ stop_if_found /health/\n")
    done = vxsniff("rules", "check", "rules", cwd=tmp_path)
    assert done.returncode == 0
    lines = done.stdout.decode().splitlines()
    assert lines[0] == "line 2: names matching ^request_header:cookie|response_header:set-cookie$: remove"
    assert lines[-1] == "line 3: names matching ^request_url$: stop_if_found health"
    done = vxsniff("rules", "check", "-", cwd=tmp_path, stdin=b"include debug\n/x/ oops\n")
    one_line(done, 2, "line 2", "'/x/ oops'")
    done = vxsniff("rules", "check", cwd=tmp_path, env={"USAGE_LOGGERS_RULES": "sample 20"})
    assert done.stdout == b"line 1: sample 20 %\n"


def test_metrics_that_were_asked_for_and_can_not_be_served_end_with_status_3(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        done = vxsniff("--metrics", address, "--port", str(free_udp_port()), "--url", "-", cwd=tmp_path)
    one_line(done, 3, f"metrics can't be served on {address}", "or off")


def test_an_error_of_our_own_is_one_line_too(tmp_path):
    script = "import sys, vxsniff.app.cli as cli; sys.argv = ['vxsniff', '--url', '-']; cli.Worker = lambda *_: 1 / 0; cli.main()"
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, env=environment(), capture_output=True, timeout=30
    )
    one_line(done, 70, "ZeroDivisionError at ", "please report it")
