"""macOS and Windows can't be run here; what they lack can be taken away. Every engine that remains starts and works."""

import json
import os
import subprocess
import sys
import time

import pytest

from tests.builders import CLIENT, EPOCH_NS, MS, SERVER, answer, get, in_vxlan, talk
from tests.capture.test_file import pcap_bytes
from tests.e2e.namespaces import Namespaces
from tests.e2e.program import Running, environment

FRAMES = talk((CLIENT, get("/a")), (SERVER, answer(b"one")))

# What is taken away before anything else is imported. `fcntl` and /proc with it on Windows.
HIDE = r"""
import builtins, os, select, signal, socket, sys, time, types
MISSING = {
    "bsd": [(select, ("epoll",)), (socket, ("SO_PEERCRED")), (time, ("CLOCK_BOOTTIME",)),
            (os, ("sched_getaffinity", "sched_setaffinity"))],
    "windows": [(select, ("epoll", "poll")), (socket, ("SO_PEERCRED", "AF_UNIX", "SO_REUSEPORT")),
                (time, ("CLOCK_BOOTTIME", "CLOCK_MONOTONIC", "clock_gettime", "clock_gettime_ns")),
                (signal, ("SIGHUP", "SIGUSR1", "pthread_sigmask")),
                (os, ("fork", "geteuid", "getuid", "sched_getaffinity", "sched_setaffinity", "O_CLOEXEC", "O_DIRECTORY"))],
}
for module, names in MISSING[sys.argv[1]]:
    for name in names:
        if hasattr(module, name):
            delattr(module, name)
real_open = builtins.open
def no_proc(file, *arguments, **options):
    if str(file).startswith("/proc"):
        raise FileNotFoundError(2, "hidden", file)
    return real_open(file, *arguments, **options)
builtins.open = no_proc
import vxsniff.capture.udp as udp
udp._IS_LINUX = False
if sys.argv[1] == "windows":
    import vxsniff.delivery.lock as lock
    lock.lock = lambda fd: True  # msvcrt's, which is not here
# psutil's own module for Linux needs Linux; what it says on other systems is said here in its place.
entry = types.SimpleNamespace(family=socket.AF_INET, address="127.0.0.1")
state = types.SimpleNamespace(isup=True, flags="")
sys.modules["psutil"] = types.SimpleNamespace(
    net_if_addrs=lambda: {"lo": [entry]}, net_if_stats=lambda: {"lo": state}
)
from vxsniff.app.cli import main
sys.argv[:2] = ["vxsniff"]
main()
"""


@pytest.fixture(params=["bsd", "windows"])
def system(request, tmp_path):
    script = tmp_path / "hide.py"
    script.write_text(HIDE)
    return (sys.executable, str(script), request.param)


def started(system, tmp_path, *arguments, **options):
    """A Running whose `python -m vxsniff` is replaced by the same behind the script."""
    env = options.pop("env", {})

    class Elsewhere(Running):
        command = system

    return Elsewhere(*arguments, cwd=tmp_path, env={"PYTHONPATH": os.getcwd(), **env}, **options)


def test_the_vxlan_socket_spools_and_delivers(system, tmp_path):
    options = ("--url", "http://127.0.0.1:9/message", "--rules", "include debug", "--spool-dir", "spool")
    with started(system, tmp_path, *options, env={"SNIFFER_CONTROL_SOCKET": "auto"}) as running:
        running.send([in_vxlan(frame, 7) for frame in FRAMES])
        time.sleep(1)
        assert running.stop() == 0
    assert "1 calls wait in the spool for the next start" in running.log
    with started(system, tmp_path, "--url", "calls.ndjson", "--rules", "include debug") as running:
        running.send([in_vxlan(frame, 7) for frame in FRAMES])
        assert running.stop() == 0
    assert len((tmp_path / "calls.ndjson").read_text().splitlines()) == 1
    assert "does not close" not in running.log


def test_capture_files_are_read(system, tmp_path):
    (tmp_path / "run.pcap").write_bytes(pcap_bytes(frames=[(EPOCH_NS + n * MS, f) for n, f in enumerate(FRAMES)]))
    command = (*system, "--read", "run.pcap", "--url", "-")
    env = environment(PYTHONPATH=os.getcwd())
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 1


def test_the_switches_say_what_is_missing(system, tmp_path):
    command = (*system, "status")
    env = environment(PYTHONPATH=os.getcwd(), SNIFFER_CONTROL_SOCKET=str(tmp_path / "c.sock"))
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=60)
    assert done.returncode in (2, 3)
    assert "Traceback" not in done.stderr
    (line,) = done.stderr.splitlines()
    assert ("no Unix sockets" in line) == (system[-1] == "windows")


@pytest.mark.root
def test_devices_are_captured_where_there_is_nothing_to_poll(system, tmp_path):
    with Namespaces() as net:
        net.add("a")
        server = (sys.executable, "-m", "http.server", "8080", "--bind", "127.0.0.1", "--directory", str(tmp_path))
        net.start("a", *server, stderr=subprocess.DEVNULL)
        net.wait_for_port("a", 8080)
        options = ("--device", "lo", "--app-ports", "8080", "--url", "calls.ndjson", "--rules", "include debug")
        with started(system, tmp_path, *options, prefix=net.within("a"), ready="rules: ") as running:
            net.run(*net.within("a", "curl", "-sS", "-o", "/dev/null", "http://127.0.0.1:8080/?n=1"))
            time.sleep(1)
            assert running.stop() == 0, running.log
    lines = (tmp_path / "calls.ndjson").read_text().splitlines()
    assert [dict(json.loads(line))["request_param:n"] for line in lines] == ["1"]
