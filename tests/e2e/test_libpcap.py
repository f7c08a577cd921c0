"""Local devices: real servers and clients, real devices, libpcap."""

import json
import subprocess
import sys
import time
from collections import Counter

import pytest

from tests.e2e.lab import Lab
from tests.e2e.namespaces import Namespaces
from tests.e2e.program import ORDINARY_USER, Running, in_ledger, vxsniff

pytestmark = [pytest.mark.root, pytest.mark.timeout(120)]

READY = "rules: "


@pytest.fixture
def net():
    with Namespaces() as made:
        yield made


def capture(net, name, tmp_path, *options, env=None):
    options = ("--rules", "include debug", "--url", "calls.ndjson", *options)
    return Running(*options, cwd=tmp_path, prefix=net.within(name), ready=READY, env=env)


def serve(net, name, tmp_path, port=8080):
    """Python's own server, on all addresses, with files of several sizes."""
    folder = tmp_path / "www"
    folder.mkdir(exist_ok=True)
    for size in (10, 1000, 300_000):
        (folder / f"{size}.txt").write_text(("0123456789" * (size // 10))[:size])
    command = (sys.executable, "-m", "http.server", str(port), "--bind", "::", "--directory", str(folder))
    net.start(name, *command, stderr=subprocess.DEVNULL)
    net.wait_for_port(name, port)


def get(net, name, *urls):
    for url in urls:
        net.run(*net.within(name, "curl", "-sS", "-o", "/dev/null", "-g", url))


def shipped(running, tmp_path, count):
    """Paths and parameters of the calls in the file, once there are `count` and a moment has passed."""
    path = tmp_path / "calls.ndjson"
    for _ in range(200):
        lines = path.read_bytes().splitlines() if path.exists() else []
        if len(lines) >= count:
            break
        time.sleep(0.05)
    time.sleep(0.5)
    assert running.stop() == 0, running.log
    assert "does not close" not in running.log
    assert in_ledger(running.log, "kernel_dropped") == 0
    calls = [json.loads(line) for line in path.read_bytes().splitlines()]
    return [dict(call) for call in calls]


def numbers(calls):
    return Counter(call["request_param:n"] for call in calls)


def test_calls_on_loopback_are_captured_over_both_families_and_whole(net, tmp_path):
    net.add("a")
    serve(net, "a", tmp_path)
    serve(net, "a", tmp_path, 9090)
    with capture(net, "a", tmp_path, "--device", "lo", "--app-ports", "8080") as running:
        urls = [
            f"http://{host}:8080/{size}.txt?n={host}-{size}"
            for host in ("127.0.0.1", "[::1]")
            for size in (10, 300_000)
        ]
        get(net, "a", *urls, "http://127.0.0.1:9090/10.txt?n=other")
        calls = shipped(running, tmp_path, 4)
    assert numbers(calls) == Counter(url.partition("=")[2] for url in urls)
    assert sorted(len(call["response_body"]) for call in calls) == [10, 10, 300_000, 300_000]
    assert in_ledger(running.log, "pcap_received") > 0
    assert in_ledger(running.log, "port_filtered") == 0, "the kernel has left the other port out"


def test_a_servers_device_shows_its_clients_calls_with_offloading_on(net, tmp_path):
    net.add("a", "b")
    net.veth("a", "a0", "b", "b0")
    net.address("a", "a0", "10.90.0.1/24", "fd90::1/64")
    net.address("b", "b0", "10.90.0.2/24", "fd90::2/64")
    serve(net, "b", tmp_path)
    with capture(net, "b", tmp_path, "--device", "b0", "--app-ports", "8080") as running:
        get(net, "a", *(f"http://10.90.0.2:8080/300000.txt?n={n}" for n in range(5)))
        get(net, "a", *(f"http://[fd90::2]:8080/300000.txt?n=v6-{n}" for n in range(5)))
        calls = shipped(running, tmp_path, 10)
    assert len(numbers(calls)) == len(calls) == 10
    assert {len(call["response_body"]) for call in calls} == {300_000}
    assert all("custom_field:capture" not in call for call in calls)


@pytest.mark.parametrize("promiscuous", [True, False])
def test_a_call_that_passes_three_devices_of_a_host_is_shipped_once(net, tmp_path, promiscuous):
    net.add("host", "a", "b")
    net.ip("host", "link", "add", "br0", "type", "bridge")
    net.ip("host", "link", "set", "br0", "up")
    net.address("host", "br0", "10.90.0.1/24")
    for number, name in enumerate("ab", 2):
        net.veth("host", f"veth{name}", name, "eth0")
        net.ip("host", "link", "set", f"veth{name}", "master", "br0")
        net.address(name, "eth0", f"10.90.0.{number}/24")
    serve(net, "b", tmp_path)
    serve(net, "host", tmp_path)
    options = ("--engine", "libpcap", "--app-ports", "8080", *(["--promisc"] if promiscuous else []))
    with capture(net, "host", tmp_path, *options) as running:
        get(net, "a", *(f"http://10.90.0.3:8080/1000.txt?n=between-{n}" for n in range(5)))
        get(net, "a", *(f"http://10.90.0.1:8080/1000.txt?n=host-{n}" for n in range(5)))
        get(net, "host", *(f"http://10.90.0.3:8080/1000.txt?n=down-{n}" for n in range(5)))
        get(net, "host", *(f"http://10.90.0.1:8080/1000.txt?n=self-{n}" for n in range(5)))
        calls = shipped(running, tmp_path, 20)
    assert "capturing: all devices (br0, lo, vetha, vethb)" in running.log
    assert len(calls) == 20
    assert set(numbers(calls).values()) == {1}
    # That they were seen more than once is what makes this a test.
    assert in_ledger(running.log, "duplicate") >= (15 if promiscuous else 5) * 1000


def test_a_vxlan_device_that_a_mirror_sends_to_works_as_it_did(tmp_path):
    with Lab(tmp_path) as lab:
        lab.start_nginx()
        vxlan = ("type", "vxlan", "id", "123", "local", "10.98.0.2", "remote", "10.98.0.1", "dstport", "4789")
        lab.ip("t", "link", "add", "vx0", *vxlan)
        lab.ip("t", "link", "set", "vx0", "up")
        env = {"APP_PORT": "80", "VPC_MIRROR_DEVICE": "vx0", "USAGE_LOGGERS_RULES": "include debug"}
        options = {"cwd": tmp_path, "prefix": lab.within("t"), "ready": READY, "env": env}
        with Running("--url", "calls.ndjson", **options) as running:
            for n in range(10):
                lab.run(*lab.within("c", "curl", "-sS", "-o", "/dev/null", f"http://10.99.0.2/hello.txt?n={n}"))
            calls = shipped(running, tmp_path, 10)
        (tmp_path / "calls.ndjson").unlink()
        # The same mirror, captured before it is unwrapped by the kernel.
        with Running("--url", "calls.ndjson", "--device", "t0", "--vnis", "123", **options) as running:
            for n in range(10):
                lab.run(*lab.within("c", "curl", "-sS", "-o", "/dev/null", f"http://10.99.0.2/hello.txt?n={n}"))
            unwrapped = shipped(running, tmp_path, 10)
    assert numbers(calls) == numbers(unwrapped) == Counter(str(n) for n in range(10))


def test_tunnels_that_arrive_on_a_device_are_unwrapped(net, tmp_path):
    net.add("a")
    sender = """
import socket
from tests.builders import CLIENT, SERVER, Endpoint, answer, get, in_vxlan, talk
from vxsniff.demo.frames import in_geneve
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as out:
    for wrap, port in ((in_vxlan, 4789), (in_geneve, 6081)):
        for frame in talk((CLIENT, get(f"/?n={port}")), (SERVER, answer(b"x")), client=Endpoint("10.0.0.1", port)):
            out.sendto(wrap(frame, 123), ("127.0.0.1", port))
"""
    with capture(net, "a", tmp_path, "--device", "lo") as running:
        net.run(*net.within("a", sys.executable, "-c", sender))
        assert numbers(shipped(running, tmp_path, 2)) == {"4789": 1, "6081": 1}


def test_mirror_device_and_file_give_the_same_lines(tmp_path):
    """One run of traffic, captured at once through UDP, through libpcap, and by tcpdump for --read."""
    udp, pcap = tmp_path / "udp", tmp_path / "pcap"
    udp.mkdir()
    pcap.mkdir()
    with Lab(tmp_path) as lab:
        lab.start_nginx()
        command = ("tcpdump", "-i", "s0", "-w", str(tmp_path / "run.pcap"), "-U", "-s", "0", "tcp port 80")
        dump = lab.start("s", *command, stderr=subprocess.PIPE)
        while b"listening" not in dump.stderr.readline():
            assert dump.poll() is None
        options = ("--rules", "include debug", "--app-ports", "80", "--url", "calls.ndjson")
        mirror = Running(*options, "--vnis", "123", cwd=udp, prefix=lab.within("t"), port=4789)
        device = Running(*options, "--device", "s0", cwd=pcap, prefix=lab.within("s"), ready=READY)
        with mirror, device:
            for n in range(40):
                path = ("hello.txt", "big.json", "missing", "moved")[n % 4]
                head = ("-H", "Accept-Encoding: gzip") if n % 8 < 4 else ("-d", f"form={n}")
                lab.run(*lab.within("c", "curl", "-sS", "-o", "/dev/null", *head, f"http://10.99.0.2/{path}?n={n}"))
            by_mirror = shipped(mirror, udp, 40)
            by_device = shipped(device, pcap, 40)
        dump.terminate()
        dump.wait(10)
    done = vxsniff("--read", "run.pcap", *options[:-1], "-", cwd=tmp_path)
    by_file = [dict(json.loads(line)) for line in done.stdout.splitlines()]
    for calls in (by_mirror, by_device, by_file):
        for call in calls:
            for name in ("now", "interval", "host"):
                del call[name]
    assert len(by_mirror) == 40
    assert by_device == by_mirror
    assert by_file == by_mirror


def test_deliveries_are_never_calls_and_nothing_feeds_on_itself(net, tmp_path):
    net.add("a")
    serve(net, "a", tmp_path, 8081)
    command = (sys.executable, "-m", "tests.e2e.collector", "8080", str(tmp_path / "collected.ndjson"))
    collector = net.start("a", *command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    collector.stdout.readline()
    options = ("--device", "lo", "--app-ports", "8000-8100", "--url", "http://127.0.0.1:8080/message")
    with capture(net, "a", tmp_path, *options, "--batch-wait", "50ms") as running:
        for n in range(20):
            get(net, "a", f"http://127.0.0.1:8081/10.txt?n={n}")
        time.sleep(2)
        assert running.stop() == 0
    collected = [dict(json.loads(line)) for line in (tmp_path / "collected.ndjson").read_bytes().splitlines()]
    assert numbers(collected) == Counter(str(n) for n in range(20))
    assert in_ledger(running.log, "own") >= 1
    assert in_ledger(running.log, "accepted") == 20


def test_devices_that_come_and_go_are_followed(net, tmp_path):
    net.add("a", "b")
    serve(net, "a", tmp_path)
    with capture(
        net, "a", tmp_path, "--engine", "libpcap", "--app-ports", "8080", "--ignore-device", "ignored0"
    ) as running:
        for round_number in range(2):
            net.veth("a", "late0", "b", "b0")
            net.address("a", "late0", "10.90.0.1/24")
            net.address("b", "b0", "10.90.0.2/24")
            running.wait_for_log("device late0 has come: capturing")
            get(net, "b", *(f"http://10.90.0.1:8080/10.txt?n={round_number}-{n}" for n in range(3)))
            time.sleep(0.2)
            net.ip("a", "link", "del", "late0")
            running.wait_for_log("device late0 has gone")
            running.log = ""
        get(net, "a", "http://127.0.0.1:8080/10.txt?n=lo")
        calls = shipped(running, tmp_path, 7)
    assert len(numbers(calls)) == len(calls) == 7


def test_the_pseudo_device_any_works_where_it_is_asked_for(net, tmp_path):
    net.add("a")
    serve(net, "a", tmp_path)
    with capture(net, "a", tmp_path, "--device", "any", "--app-ports", "8080") as running:
        get(net, "a", *(f"http://127.0.0.1:8080/1000.txt?n={n}" for n in range(3)))
        assert len(numbers(shipped(running, tmp_path, 3))) == 3


def test_a_filter_of_ones_own_and_no_filter_at_all(net, tmp_path):
    net.add("a")
    serve(net, "a", tmp_path)
    serve(net, "a", tmp_path, 9090)
    for option, filtered in ((("--bpf", "tcp port 9090"), False), (("--no-filter", "--app-ports", "9090"), True)):
        with capture(net, "a", tmp_path, "--device", "lo", *option) as running:
            get(net, "a", "http://127.0.0.1:8080/10.txt?n=1", "http://127.0.0.1:9090/10.txt?n=2")
            assert numbers(shipped(running, tmp_path, 1)) == {"2": 1}
        assert (in_ledger(running.log, "port_filtered") > 0) == filtered
        (tmp_path / "calls.ndjson").unlink()


@pytest.mark.parametrize(
    ("arguments", "status", "texts"),
    [
        (["--device", "nope"], 3, ["there is no device 'nope': there are lo"]),
        (["--device", "lo", "--bpf", "tcp prt 80"], 2, ["SNIFFER_BPF_FILTER", "syntax error"]),
        (["--device", "lo", "--rf-monitor"], 3, ["device lo", "monitor mode"]),
    ],
)
def test_what_is_wrong_with_a_device_or_filter_is_one_line(net, tmp_path, arguments, status, texts):
    net.add("a")
    command = (*net.within("a", sys.executable), "-m", "vxsniff", *arguments, "--url", "-")
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=30)
    assert done.returncode == status, done.stderr
    (line,) = done.stderr.splitlines()
    assert line.startswith("vxsniff: ")
    for text in texts:
        assert text in line


def test_a_user_without_rights_is_told_the_way_out(tmp_path):
    command = (*ORDINARY_USER, sys.executable, "-m", "vxsniff", "--device", "lo", "--url", "-")
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=30)
    assert done.returncode == 3
    (line,) = done.stderr.splitlines()
    assert "setcap cap_net_raw,cap_net_admin+eip" in line
    assert "--cap-add NET_RAW" in line


def test_devices_are_listed_with_addresses_state_and_link_type(net, tmp_path):
    net.add("a", "b")
    net.veth("a", "a0", "b", "b0")
    net.address("a", "a0", "10.90.0.1/24")
    command = (*net.within("a", sys.executable), "-m", "vxsniff", "devices")
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=30)
    assert done.returncode == 0
    rows = {line.split()[0]: line.split() for line in done.stdout.splitlines()}
    assert rows["lo"][:5] == ["lo", "up", "Ethernet", "127.0.0.1", "::1"]
    assert rows["a0"][:4] == ["a0", "up", "Ethernet", "10.90.0.1"]


def test_off_and_on_close_and_open_devices(net, tmp_path):
    net.add("a")
    serve(net, "a", tmp_path)
    control = {"SNIFFER_CONTROL_SOCKET": str(tmp_path / "control.sock")}
    with capture(net, "a", tmp_path, "--device", "lo", "--app-ports", "8080", env=control) as running:
        get(net, "a", "http://127.0.0.1:8080/10.txt?n=1")
        time.sleep(0.3)
        assert vxsniff("off", cwd=tmp_path, env=control).returncode == 0
        get(net, "a", "http://127.0.0.1:8080/10.txt?n=2")
        done = vxsniff("on", cwd=tmp_path, env=control)
        assert b"on: capturing device lo" in done.stdout
        get(net, "a", "http://127.0.0.1:8080/10.txt?n=3")
        assert vxsniff("doctor", "--seconds", "0.5", cwd=tmp_path, env=control).returncode in (0, 1)
        assert set(numbers(shipped(running, tmp_path, 2))) == {"1", "3"}
