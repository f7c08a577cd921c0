"""`vxsniff doctor` as its user runs it: with a running vxsniff, without one, and on a file."""

import signal
import socket
import subprocess
import sys
import threading
import time

import pytest

from tests.builders import CLIENT, EPOCH_NS, MS, SERVER, Endpoint, answer, get, in_vxlan, talk
from tests.capture.test_file import pcap_bytes
from tests.e2e.collector import Collector
from tests.e2e.program import Running, environment, free_udp_port, in_ledger, vxsniff

FRAMES = talk((CLIENT, get("/a")), (SERVER, answer(b"one")))


class Traffic:
    """Calls at a port, until the block ends: each a connection of its own."""

    def __init__(self, port, vni=7) -> None:
        self._port = port
        self._vni = vni
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *error) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        number = 0
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            while not self._stop.wait(0.02):
                number += 1
                client = Endpoint("10.0.0.1", 1024 + number)
                for frame in talk((CLIENT, get("/a")), (SERVER, answer(b"one")), client=client):
                    sender.sendto(in_vxlan(frame, self._vni), ("127.0.0.1", self._port))


def test_it_watches_the_port_itself_where_no_vxsniff_runs(tmp_path):
    port = free_udp_port()
    with Traffic(port), Collector() as collector:
        done = vxsniff("doctor", "--seconds", "1.5", "--port", str(port), "--url", collector.url, cwd=tmp_path)
    text = done.stdout.decode()
    assert done.returncode == 0, text
    assert f"watched for 1.5 s, VXLAN on UDP [::]:{port}" in text
    for part in ("VNIs 7 (", "HTTP/1 ", "servers' ports: 80 (", " to be shipped", f"{collector.url} answers 204 in"):
        assert part in text
    assert "->" not in text
    assert collector.lines == [], "no call is delivered for it"


def test_a_running_vxsniff_watches_with_its_own_settings_and_goes_on(tmp_path):
    control = tmp_path / "control.sock"
    with Collector() as collector:
        with Running("--control", str(control), "--vnis", "5", "--url", collector.url, cwd=tmp_path) as running:
            with Traffic(running.port):
                env = {"SNIFFER_CONTROL_SOCKET": str(control)}
                done = vxsniff("doctor", "--seconds", "1", cwd=tmp_path, env=env)
                ended = vxsniff("doctor", "--seconds", "1", cwd=tmp_path, env=env)
            text = done.stdout.decode()
            assert done.returncode == ended.returncode == 1
            assert f"in the vxsniff that is running here: VXLAN on UDP [::]:{running.port}, process" in text
            assert "problem  none of them is in a VNI that is captured: 5" in text
            assert "-> set --vnis to those of your mirror sessions: 7" in text
            assert running.stop() == 0
        assert collector.lines == []
    assert in_ledger(running.log, "vni_filtered") > 0
    assert "does not close" not in running.log


def test_one_doctor_at_a_time(tmp_path):
    control = tmp_path / "control.sock"
    env = environment(SNIFFER_CONTROL_SOCKET=str(control))
    with Running("--control", str(control), "--url", "calls.ndjson", cwd=tmp_path) as running:
        command = [sys.executable, "-m", "vxsniff", "doctor", "--seconds", "3"]
        with subprocess.Popen(command, cwd=tmp_path, env=env, stdout=-1, stderr=-1) as first:
            assert first.stderr.readline() == b"watching for 3 s ...\n"
            time.sleep(0.5)
            second = vxsniff("doctor", "--seconds", "0.1", cwd=tmp_path, env=env)
            first.communicate(timeout=20)
        assert second.returncode == 2
        assert b"another doctor is watching" in second.stderr
        assert vxsniff("doctor", "--seconds", "0.1", cwd=tmp_path, env=env).returncode == 1
        assert running.stop() == 0


def test_a_running_vxsniff_that_is_switched_off_says_so(tmp_path):
    control = tmp_path / "control.sock"
    env = {"SNIFFER_CONTROL_SOCKET": str(control)}
    with Running("--control", str(control), "--url", "calls.ndjson", cwd=tmp_path) as running:
        vxsniff("off", cwd=tmp_path, env=env)
        done = vxsniff("doctor", "--seconds", "1", cwd=tmp_path, env=env)
        assert done.returncode == 2
        assert b"capturing is switched off: `vxsniff on` first" in done.stderr
        assert running.stop() == 0


@pytest.mark.parametrize(
    ("options", "status", "texts"),
    [
        ([], 0, ["watched in run.pcap", "1 calls, 1 to be shipped"]),
        (["--rules", "!.*! stop"], 1, ["1 calls, and none is shipped: stopped by a rule 1", "vxsniff rules check"]),
        (["--vnis", "999"], 1, ["none of them is in a VNI that is captured: 999"]),
        (["--app-ports", "8080"], 1, ["none of it is on an application port: 8080; seen are 80"]),
    ],
)
def test_a_file_is_looked_at_with_the_settings_given(tmp_path, options, status, texts):
    (tmp_path / "run.pcap").write_bytes(pcap_bytes(frames=[(EPOCH_NS + n * MS, f) for n, f in enumerate(FRAMES)]))
    done = vxsniff("doctor", "--read", "run.pcap", *options, cwd=tmp_path)
    assert done.returncode == status, done.stdout
    for text in texts:
        assert text in done.stdout.decode()


def test_what_can_not_be_watched_is_told_in_one_line(tmp_path):
    done = vxsniff("doctor", "--read", "missing.pcap", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (2, b"vxsniff: missing.pcap: can't be read: No such file or directory\n")
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as other:
        other.bind(("::", 0))
        done = vxsniff("doctor", "--port", str(other.getsockname()[1]), "--seconds", "1", cwd=tmp_path)
    assert done.returncode == 3
    (line,) = done.stderr.decode().splitlines()
    assert "is in use" in line


def test_silence_and_a_collector_that_is_down_are_problems(tmp_path):
    url = "http://127.0.0.1:9/message"
    options = ("--seconds", "0.5", "--port", str(free_udp_port()), "--url", url)
    done = vxsniff("doctor", *options, cwd=tmp_path)
    text = done.stdout.decode()
    assert done.returncode == 1
    assert "problem  no packet came" in text
    assert f"problem  {url} can't be reached: " in text
    assert "Traceback" not in done.stderr.decode()


def test_a_signal_ends_the_watching_early_with_what_was_seen(tmp_path):
    command = [sys.executable, "-m", "vxsniff", "doctor", "--seconds", "60", "--port", str(free_udp_port())]
    with subprocess.Popen(command, cwd=tmp_path, env=environment(), stdout=-1, stderr=-1, text=True) as process:
        assert process.stderr.readline().startswith("watching VXLAN on UDP")
        time.sleep(0.2)
        process.send_signal(signal.SIGINT)
        out, error = process.communicate(timeout=10)
    assert process.returncode == 1
    assert "no packet came" in out
    assert "Traceback" not in error
