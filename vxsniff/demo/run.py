"""`vxsniff demo`: the shop, its customers, the mirroring relay, and a real vxsniff started beside them."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import IO, Final

from vxsniff.demo.customers import Customers
from vxsniff.demo.relay import Faults, Mirror, Relay
from vxsniff.demo.shop import Shop

_START_S: Final = 20.0
_END_S: Final = 15.0
_SETTLE_S: Final = 0.6
"""What the mirror still holds, and what vxsniff still waits for, is over after this time."""


def run_demo(calls: int, rate: float, vni: int, port: int, url: str, rules: str, faults: Faults) -> int:
    """Runs until `calls` calls were made (0: until a signal comes); returns vxsniff's exit status."""
    stop = _stopped_by_signals()
    port = port or _free_udp_port()
    with tempfile.TemporaryDirectory(prefix="vxsniff-demo-") as folder:
        # A folder without .env and an environment without settings: the demo is the same everywhere.
        child = subprocess.Popen(
            [
                *(sys.executable, "-m", "vxsniff", "--vnis", str(vni), "--port", str(port), "--address", "127.0.0.1"),
                *("--url", url if url in ("-", "tty") or "://" in url else os.path.abspath(url)),
                *("--rules", rules, "--metrics", "off", "--control", "off", "--spool-dir", "off"),
            ],
            cwd=folder,
            env=_environment(),
            stderr=subprocess.PIPE,
            start_new_session=True,  # Ctrl-C is for us: we stop the traffic first, then vxsniff
        )
        assert child.stderr is not None
        ready = threading.Event()
        copier = threading.Thread(target=_copy_log, args=(child.stderr, ready), daemon=True)
        copier.start()
        try:
            if ready.wait(_START_S) and child.poll() is None:
                mirror = Mirror(("127.0.0.1", port), vni, faults)
                _trade(calls, rate, mirror, stop, lambda: child.poll() is None)
        finally:
            if child.poll() is None:
                child.terminate()
            try:
                status = child.wait(_END_S)
            except subprocess.TimeoutExpired:
                child.kill()
                status = child.wait()
            copier.join(2.0)
    return status


def run_traffic(calls: int, rate: float, vni: int, target: tuple[str, int], faults: Faults) -> None:
    """Shop, customers and mirror without a vxsniff: mirrors to `target`, until `calls` calls or a signal.

    Raises OSError when the target has no address.
    """
    address = socket.getaddrinfo(*target, type=socket.SOCK_DGRAM)[0][4]
    stop = _stopped_by_signals()
    print(f"mirroring calls to {target[0]}:{target[1]}, VNI {vni}; Ctrl-C ends it", file=sys.stderr, flush=True)
    made = _trade(calls, rate, Mirror((str(address[0]), int(address[1])), vni, faults), stop, lambda: True)
    print(f"{made} calls were made", file=sys.stderr)


def _stopped_by_signals() -> threading.Event:
    stop = threading.Event()

    def on_signal(number: int, frame: FrameType | None) -> None:
        del number, frame
        stop.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, on_signal)
    return stop


def _trade(calls: int, rate: float, mirror: Mirror, stop: threading.Event, may_go_on: Callable[[], bool]) -> int:
    """Has calls made; how many those were."""
    shop = Shop()
    relay = Relay(shop.port, mirror)
    customers = Customers(relay.port, rate, calls)
    while not stop.wait(0.1) and may_go_on() and not customers.done.is_set():
        pass
    customers.close()
    stop.wait(_SETTLE_S)
    relay.close()
    shop.close()
    return customers.calls


def _copy_log(stream: IO[bytes], ready: threading.Event) -> None:
    """Passes vxsniff's log on, and notes when it says that it captures, or ends."""
    for line in stream:
        sys.stderr.buffer.write(line)
        sys.stderr.buffer.flush()
        if b" capturing: " in line:
            ready.set()
    ready.set()


def _environment() -> dict[str, str]:
    own = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("SNIFFER_", "USAGE_LOGGERS_", "APP_PORT"))
    }
    package = str(Path(__file__).resolve().parents[2])
    own["PYTHONPATH"] = os.pathsep.join(filter(None, (package, os.environ.get("PYTHONPATH", ""))))
    return own


def _free_udp_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
