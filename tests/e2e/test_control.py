"""A running vxsniff is switched, asked and reloaded, and only by those who may."""

import contextlib
import json
import os
import signal
import socket
import stat
import subprocess
import sys
import time

import pytest

from tests.builders import CLIENT, SERVER, Endpoint, answer, get, in_vxlan, talk
from tests.e2e.collector import Collector
from tests.e2e.program import ORDINARY_USER, Running, environment, in_ledger, vxsniff


@pytest.fixture
def control(tmp_path):
    return tmp_path / "run" / "control.sock"


def started(tmp_path, control, *options, **more):
    return Running("--control", str(control), "--url", "calls.ndjson", *options, cwd=tmp_path, **more)


def tell(tmp_path, control, *words):
    return vxsniff(*words, cwd=tmp_path, env={"SNIFFER_CONTROL_SOCKET": str(control)})


def call(path, vni=7, sport=40000):
    frames = talk((CLIENT, get(path)), (SERVER, answer(b"x")), client=Endpoint("10.0.0.1", sport))
    return [in_vxlan(frame, vni) for frame in frames]


def delivered(tmp_path, count):
    """The paths of the calls in the output file, once there are so many."""
    path = tmp_path / "calls.ndjson"
    for _ in range(200):
        lines = path.read_bytes().splitlines() if path.exists() else []
        if len(lines) >= count:
            return [dict(json.loads(line))["request_url"].removeprefix("http://shop.example") for line in lines]
        time.sleep(0.05)
    raise AssertionError(lines)


def test_off_closes_the_socket_and_on_opens_it_again(tmp_path, control):
    with started(tmp_path, control, "--rules", "include debug") as running:
        running.send(call("/before"))
        delivered(tmp_path, 1)
        done = tell(tmp_path, control, "off")
        assert done.stdout == b"off: nothing is captured, what was captured is delivered\n"
        assert b"capturing: nothing, it is switched off" in tell(tmp_path, control, "status").stdout
        assert tell(tmp_path, control, "off").stdout == b"it is off already\n"
        with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as other:
            other.bind(("::", running.port))  # the port is free
            refused = tell(tmp_path, control, "on")
            assert refused.returncode == 2
            assert b"it stays off: UDP port" in refused.stderr
        assert b"on: capturing VXLAN on UDP" in tell(tmp_path, control, "on").stdout
        running.send(call("/after"))
        assert delivered(tmp_path, 2) == ["/before", "/after"]
        assert running.stop() == 0
    assert "switched off" in running.log
    assert "switched on" in running.log
    assert "does not close" not in running.log
    assert in_ledger(running.log, "switches") == 2


def test_off_delivers_what_was_captured_and_what_lies_behind(tmp_path, control):
    with (
        Collector(statuses=[500, 500]) as collector,
        started(tmp_path, control, "--rules", "include debug", "--url", collector.url) as running,
    ):
        running.send(call("/a")[:-3])  # a connection that is still open
        tell(tmp_path, control, "off")
        assert collector.wait_for(1)
        assert running.stop() == 0


def test_status_tells_what_it_does_and_the_ledger(tmp_path, control):
    with started(tmp_path, control, "--vnis", "7,8") as running:
        running.send(call("/a"))
        delivered(tmp_path, 1)
        for command in (["-m", "vxsniff", "status"], ["-c", "from vxsniff.app.cli import sniffer; sniffer()"]):
            done = subprocess.run(
                [sys.executable, *command],
                env=environment(SNIFFER_CONTROL_SOCKET=str(control)),
                cwd=tmp_path,
                capture_output=True,
                text=True,
            )
            assert done.returncode == 0, done.stderr
            for text in (f":{running.port}", "VNIs: 7, 8", "calls.ndjson", "include default", "ledger\n"):
                assert text in done.stdout, text
            assert in_ledger(done.stdout, "shipped") == 1


def test_the_words_of_the_all_in_one_image_are_understood(tmp_path, control):
    def sniffer(*words):
        code = f"import sys; sys.argv[1:] = {list(words)!r}; from vxsniff.app.cli import sniffer; sniffer()"
        env = environment(SNIFFER_CONTROL_SOCKET=str(control))
        return subprocess.run([sys.executable, "-c", code], env=env, cwd=tmp_path, capture_output=True, text=True)

    assert sniffer("on").returncode == 3
    assert "no vxsniff is running here" in sniffer("on").stderr
    with started(tmp_path, control):
        assert sniffer("off").stdout.startswith("off:")
        assert sniffer("on").stdout.startswith("on:")
        assert sniffer().stdout.startswith("vxsniff ")
        assert "'dance' is not known" in sniffer("dance").stderr


@pytest.mark.parametrize("how", ["reload", "SIGHUP"])
def test_reload_applies_the_rules_the_vnis_and_env_anew(tmp_path, control, how):
    rules = tmp_path / "rules.txt"
    rules.write_text("include debug\n")
    (tmp_path / ".env").write_text(f"USAGE_LOGGERS_RULES=file://{rules}\nSNIFFER_MIRROR_VNIS=7\n")

    def reload(text):
        if how == "reload":
            assert tell(tmp_path, control, "reload").returncode == 0
        else:
            running.process.send_signal(signal.SIGHUP)
        running.wait_for_log(text)

    with started(tmp_path, control) as running:
        running.send(call("/one"))
        delivered(tmp_path, 1)
        rules.write_text("include debug\n!.*! stop\n")
        reload("reload: USAGE_LOGGERS_RULES is now file://")
        running.send(call("/stopped", sport=2))
        rules.write_text("include debug\n")
        (tmp_path / ".env").write_text(
            f"USAGE_LOGGERS_RULES=file://{rules}\nSNIFFER_MIRROR_VNIS=8\nSNIFFER_MEMORY_LIMIT=64MiB\n"
        )
        time.sleep(0.3)
        reload("SNIFFER_MEMORY_LIMIT has changed: that takes effect at the next start")
        assert "SNIFFER_MIRROR_VNIS is now 8" in running.log
        running.send(call("/filtered", vni=7, sport=3))
        running.send(call("/two", vni=8, sport=4))
        assert delivered(tmp_path, 2) == ["/one", "/two"]
        assert running.stop() == 0
    assert in_ledger(running.log, "reloads") == 2
    assert in_ledger(running.log, "stopped") == 1
    assert in_ledger(running.log, "kernel_filtered") > 0


@pytest.mark.parametrize(
    "line",
    [
        "USAGE_LOGGERS_RULES=/a/ rmove",
        "USAGE_LOGGERS_RULES=file:///no/such/file",
        "SNIFFER_MIRROR_VNIS=abc",
        "USAGE_LOGGERS_URL=http://elsewhere.example/message",
    ],
)
def test_a_bad_new_value_is_refused_and_the_old_ones_stay(tmp_path, control, line):
    (tmp_path / ".env").write_text("USAGE_LOGGERS_RULES=include debug\n")
    with Running("--control", str(control), cwd=tmp_path, env={"USAGE_LOGGERS_URL": ""}) as running:
        (tmp_path / ".env").write_text(f"{line}\nSNIFFER_DEBUG_ENABLED=true\n")
        done = tell(tmp_path, control, "reload")
        assert done.returncode == 2
        (told,) = done.stderr.decode().splitlines()
        assert told.startswith("vxsniff: refused, all stays as it was: ")
        assert line.partition("=")[0] in told
        assert b"include debug" in tell(tmp_path, control, "status").stdout
        assert running.stop() == 0
    assert "reload refused" in running.log
    assert in_ledger(running.log, "reloads_refused") == 1


def test_a_new_url_takes_what_waits(tmp_path, control):
    with Collector(statuses=[500] * 1000) as down, Collector() as up:
        (tmp_path / ".env").write_text(f"USAGE_LOGGERS_URL={down.url}\nUSAGE_LOGGERS_RULES=include debug\n")
        with Running("--control", str(control), cwd=tmp_path) as running:
            running.send(call("/a"))
            running.wait_for_log("500 Internal Server Error")
            (tmp_path / ".env").write_text(f"USAGE_LOGGERS_URL={up.url}\nUSAGE_LOGGERS_RULES=include debug\n")
            assert up.url.encode() in tell(tmp_path, control, "reload").stdout
            assert up.wait_for(1)
            assert running.stop() == 0
        assert down.lines == []


def test_only_the_owner_may_use_the_socket(tmp_path, control):
    os.chmod(tmp_path, 0o755)
    with started(tmp_path, control):
        assert stat.S_IMODE(control.stat().st_mode) == 0o600
        assert stat.S_IMODE(control.parent.stat().st_mode) == 0o700
        if os.geteuid() != 0:
            return
        # Even someone who gets at the file is turned away.
        os.chmod(control.parent, 0o755)
        os.chmod(control, 0o666)
        for folder in list(control.parents)[:-1]:
            os.chmod(folder, os.stat(folder).st_mode | 0o055)
        code = (
            "import os, socket; os.setgid(65534); os.setuid(65534); s = socket.socket(socket.AF_UNIX); "
            f"s.connect({str(control)!r}); s.sendall(b'off\\n'); print(s.recv(1000).decode())"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        assert done.stdout.startswith("error\nonly the owner"), done.stderr
        assert b"switched off" not in tell(tmp_path, control, "status").stdout


def test_a_socket_left_by_a_crash_is_replaced_and_one_in_use_is_not(tmp_path, control):
    with started(tmp_path, control) as running:
        running.process.kill()
        running.process.wait()
    assert control.exists()
    with started(tmp_path, control) as running:
        with started(tmp_path, control) as second:
            assert "another vxsniff listens there; going on without it" in second.log
            assert second.stop() == 0
        assert f":{running.port}".encode() in tell(tmp_path, control, "status").stdout
        assert running.stop() == 0
    assert not control.exists()


@pytest.mark.parametrize("data", [b"", b"\n", b"\xff\xfe\n", b"x" * 100_000, b"on off\n", b"reload now please\n"])
def test_nonsense_on_the_socket_harms_nothing(tmp_path, control, data):
    with started(tmp_path, control) as running:
        with socket.socket(socket.AF_UNIX) as client, contextlib.suppress(ConnectionError):
            client.connect(str(control))
            client.sendall(data)
            client.shutdown(socket.SHUT_WR)
            assert client.recv(1000).startswith(b"error\n")
        assert tell(tmp_path, control, "status").returncode == 0
        assert running.stop() == 0
    assert "Traceback" not in running.log


def test_a_place_where_no_socket_can_be_made_is_a_warning(tmp_path):
    (tmp_path / "file").write_text("precious")
    with started(tmp_path, tmp_path / "file") as running:
        assert "there is something else than a socket; going on without it" in running.log
        assert running.stop() == 0
    assert (tmp_path / "file").read_text() == "precious"


@pytest.mark.root
def test_a_folder_of_another_user_is_not_trusted_with_the_socket(tmp_path):
    folder = tmp_path / "run"
    folder.mkdir(mode=0o777)
    folder.chmod(0o777)
    os.chown(folder, 12345, 12345)
    with started(tmp_path, folder / "control.sock", prefix=ORDINARY_USER) as running:
        assert "is another user's" in running.log
        assert running.stop() == 0
