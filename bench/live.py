"""Mirrored packets over UDP at rising rates, until the kernel drops 0.1 %: the highest rate without loss; the delay.

The sender has one core, vxsniff the other; two workers share both with the sender. The `api` datagrams are sent as
often as it takes, each round with clients of its own, at a steady rate; what they are is made before, so that sending
costs little. A bare loop that only receives is the floor.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import zlib
from collections.abc import Iterator, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from bench import offline, traffic
from tests.e2e.namespaces import wait_until
from tests.e2e.program import free_tcp_port, free_udp_port, in_ledger

SECONDS = 4.0
FIRST_RATE = 20_000.0
STEP = 1.5
HALVINGS = 3
LOSS = 0.001
PACKETS = 200_000
"""Of the capture, at most; it is sent again as often as it takes, each time of other clients."""
DELAY_SECONDS = 6.0
_CLIENT = socket.inet_aton("10.99.0.1")
_COLLECTOR = """
daemon off; pid {folder}/collector.pid; error_log {folder}/collector.log; worker_processes 1; user root;
events {{ }}
http {{
  access_log off; client_max_body_size 64m; client_body_buffer_size 16m; keepalive_requests 1000000;
  client_body_temp_path {folder}/c1; proxy_temp_path {folder}/c2; fastcgi_temp_path {folder}/c3;
  uwsgi_temp_path {folder}/c4; scgi_temp_path {folder}/c5;
  server {{ listen 127.0.0.1:{port}; location / {{ return 204; }} }}
}}
"""
_BARE = """
import resource, socket, sys
receiver = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
receiver.setsockopt(socket.SOL_SOCKET, 33, 64 << 20)
receiver.bind(("127.0.0.1", int(sys.argv[1])))
receiver.settimeout(2.0)
print("ready", flush=True)
count = 0
try:
    while True:
        receiver.recv(65535)
        count += 1
except TimeoutError:
    pass
spent = resource.getrusage(resource.RUSAGE_SELF)
print(count, spent.ru_utime + spent.ru_stime)
"""


def run(folder: Path, compiled: str | None) -> dict[str, Any]:
    """Rates without loss by build, delay at half of it, processor time a call, and the floor."""
    here = Path(__file__).parents[1]
    trees = {"interpreted": here, **({"compiled": Path(compiled)} if compiled else {})}
    path = folder / "api.vxlan.pcap"
    found: dict[str, Any] = {"floor": _floor(path), "builds": {}}
    for name, tree in trees.items():
        found["builds"][name] = _highest(path, tree)
        found["builds"][name]["delay_ms"] = _delay(path, tree, found["builds"][name]["best"]["sent_per_s"] / 2)
    fastest = trees.get("compiled", here)
    found["workers"] = _highest(path, fastest, "--workers", "2", cores="0,1")
    with _nginx(folder) as url:
        found["posted"] = _highest(path, fastest, url=url)
    found["filter"] = {shape: filtered(folder, fastest, shape) for shape in (traffic.THINK, traffic.SLOW)}
    return found


def _highest(path: Path, tree: Path, *options: str, url: str = "/dev/null", cores: str = "0") -> dict[str, Any]:
    """Steps of rates, and the best of those without loss: where the loss begins, or the most that could be sent."""
    steps = [_step(path, tree, FIRST_RATE, url, cores, options)]
    low, high = 0.0, FIRST_RATE
    while steps[-1]["loss"] <= LOSS and steps[-1]["sent_per_s"] >= 0.9 * high:
        low, high = high, high * STEP
        steps.append(_step(path, tree, high, url, cores, options))
    for _ in range(HALVINGS if steps[-1]["loss"] > LOSS else 0):
        middle = (low + high) / 2
        steps.append(_step(path, tree, middle, url, cores, options))
        low, high = (middle, high) if steps[-1]["loss"] <= LOSS else (low, middle)
    steps.sort(key=lambda step: step["sent_per_s"])
    best = max((step for step in steps if step["loss"] <= LOSS), key=lambda step: step["sent_per_s"], default=steps[0])
    return {"steps": steps, "best": best}


@contextlib.contextmanager
def _nginx(folder: Path) -> Iterator[str]:
    """A collector that costs little: takes what is posted and answers 204. On the sender's core."""
    port = free_tcp_port()
    config = folder / "collector.conf"
    config.write_text(_COLLECTOR.format(folder=folder, port=port))
    command = ["taskset", "-c", "1", "nginx", "-c", str(config), "-e", str(folder / "collector.log")]
    process = subprocess.Popen(command)
    try:
        wait_until(lambda: socket.socket().connect_ex(("127.0.0.1", port)) == 0)
        yield f"http://127.0.0.1:{port}/message"
    finally:
        process.terminate()
        process.wait()


def start(tree: Path, port: int, url: str, log: Any, *options: str, cores: str = "0") -> subprocess.Popen[bytes]:
    """A vxsniff that is ready."""
    command = ["taskset", "-c", cores, sys.executable, "-m", "vxsniff", "--port", str(port), "--address", "127.0.0.1"]
    command += ["--rules", "include debug", "--url", url, "--metrics", "off", "--control", "off", "--spool-dir", "off"]
    process = subprocess.Popen([*command, *options], cwd=tree, stderr=log, env={**os.environ, "PYTHONPATH": str(tree)})
    for _ in range(200):
        if "receive buffer" in Path(log.name).read_text():
            time.sleep(
                1.0 if "--workers" in options else 0.0
            )  # what comes before they are up waits, and is no fair load
            return process
        time.sleep(0.05)
    raise RuntimeError("vxsniff did not start")


def _send(path: Path, port: int, rate: float, seconds: float) -> dict[str, float]:
    command = ["taskset", "-c", "1", sys.executable, "-m", "bench.live", str(path), str(port), str(rate), str(seconds)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=Path(__file__).parents[1])
    return dict(json.loads(done.stdout))


def _step(path: Path, tree: Path, rate: float, url: str, cores: str, options: Sequence[str]) -> dict[str, float]:
    port = free_udp_port()
    with tempfile.NamedTemporaryFile("w") as log:
        process = start(tree, port, url, log, *options, cores=cores)
        try:
            sent = _send(path, port, rate, SECONDS)
            time.sleep(1.0)
            peak = offline.peak_mib(process.pid)
            process.send_signal(signal.SIGTERM)
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
        finally:
            process.kill()
        text = Path(log.name).read_text()
    calls = in_ledger(text, "shipped")
    undelivered = calls - in_ledger(text, "accepted")
    return {
        **sent,
        # What was not delivered is lost, too.
        "loss": in_ledger(text, "kernel_dropped") / sent["sent"] + undelivered / max(1, calls),
        "filtered": in_ledger(text, "kernel_filtered") / sent["sent"],
        "calls_per_s": calls / sent["sent"] * sent["sent_per_s"],
        "gbit_per_s": sent["bytes"] * 8 / sent["seconds"] / 1e9,
        "cpu_us_per_call": (usage.ru_utime + usage.ru_stime) / max(1, calls) * 1e6,
        "peak_mib": peak,
    }


def _delay(path: Path, tree: Path, rate: float) -> dict[str, float]:
    """From a call's last packet to the collector, by the clock that both have: median and 99th percentile."""
    delays: list[float] = []
    lock = threading.Lock()

    class Collector(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            now_ms = time.time() * 1000
            if self.headers.get("Content-Encoding") == "deflated":
                body = zlib.decompress(body)
            ends = re.findall(rb'\["now","(\d+)"\],\["interval","(\d+)"\]', body)
            with lock:
                delays.extend(now_ms - int(now) - int(interval) for now, interval in ends)
            self.send_response(204)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Collector)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    port = free_udp_port()
    try:
        with tempfile.NamedTemporaryFile("w") as log:
            process = start(tree, port, f"http://127.0.0.1:{server.server_address[1]}/message", log)
            try:
                _send(path, port, rate, DELAY_SECONDS)
                time.sleep(1.5)
            finally:
                process.terminate()
                process.wait(20)
    finally:
        server.shutdown()
        server.server_close()
    ordered = statistics.quantiles(delays, n=100)
    return {"median": ordered[49], "p99": ordered[98], "calls": len(delays)}


def filtered(folder: Path, tree: Path, shape: str) -> dict[str, Any]:
    """Calls with time between them, with and without the kernel's filter: packets that reach Python, and the calls."""
    path = folder / f"{shape}.vxlan.pcap"
    count = len(offline.load(path))
    found: dict[str, Any] = {}
    lines: dict[str, set[bytes]] = {}
    for name, options in (("filter", ()), ("no filter", ("--no-filter",))):
        port = free_udp_port()
        with tempfile.TemporaryDirectory() as out, tempfile.NamedTemporaryFile("w") as log:
            process = start(tree, port, f"{out}/calls.ndjson", log, *options)
            try:
                _send(path, port, count / 4, 4.0)
                time.sleep(1.0)
                process.send_signal(signal.SIGTERM)
                _, status, usage = os.wait4(process.pid, 0)
                process.returncode = os.waitstatus_to_exitcode(status)
            finally:
                process.kill()
            text = Path(log.name).read_text()
            # When a call was, and for how long, is as the run had it.
            times = re.compile(rb'\["(?:now|interval)","\d+"\],')
            lines[name] = {times.sub(b"", line) for line in Path(out, "calls.ndjson").read_bytes().splitlines()}
        found[name] = {
            "frames": in_ledger(text, "frames"),
            "calls": in_ledger(text, "shipped"),
            "cpu_us_per_call": (usage.ru_utime + usage.ru_stime) / in_ledger(text, "shipped") * 1e6,
        }
    return {**found, "same_lines": lines["filter"] == lines["no filter"]}


def _floor(path: Path) -> dict[str, float]:
    """Processor time a datagram of a loop that receives and does nothing."""
    port = free_udp_port()
    bare = subprocess.Popen(["taskset", "-c", "0", sys.executable, "-c", _BARE, str(port)], stdout=subprocess.PIPE)
    assert bare.stdout is not None
    bare.stdout.readline()
    sent = _send(path, port, 100_000, 2.0)
    count, spent = map(float, bare.stdout.read().split())
    bare.wait()
    return {"us_per_datagram": spent / count * 1e6, "received": count, "sent": sent["sent"]}


def show(found: dict[str, Any]) -> None:
    print("\nUDP, api, one worker on one core: the highest rate at which 0.1 % at most was lost")
    print(
        f"{'build':<12} {'packets/s':>10} {'calls/s':>8} {'Gbit/s':>7} {'us/call':>8} {'delay: median':>14} {'p99':>8}"
    )
    for name, figures in found["builds"].items():
        best, delay = figures["best"], figures["delay_ms"]
        print(
            f"{name:<12} {best['sent_per_s']:10,.0f} {best['calls_per_s']:8,.0f} {best['gbit_per_s']:7.2f} "
            f"{best['cpu_us_per_call']:8.1f} {delay['median']:11.0f} ms {delay['p99']:5.0f} ms"
        )
    for name, title in (("workers", "2 workers, sender on their cores"), ("posted", "1 worker, posted")):
        best = found[name]["best"]
        print(
            f"{title}: {best['sent_per_s']:,.0f} packets/s, {best['calls_per_s']:,.0f} calls/s, "
            f"{best['gbit_per_s']:.2f} Gbit/s, {best['cpu_us_per_call']:.1f} us a call"
        )
    for shape, rows in found["filter"].items():
        for name in ("filter", "no filter"):
            row = rows[name]
            print(
                f"{shape}, {name}: {row['frames']:,} packets reach Python for {row['calls']:,} calls, "
                f"{row['cpu_us_per_call']:.0f} us a call"
            )
        print(f"the lines are {'the same' if rows['same_lines'] else 'NOT the same'}")
    print(f"a bare loop that only receives: {found['floor']['us_per_datagram']:.2f} us a datagram")


def of_client(data: bytes, number: int) -> bytes:
    """The same datagram of another client."""
    client = bytes((10, 100 + number // 256, number % 256, 1))
    return data[:34] + client + data[38:] if data[34:38] == _CLIENT else data[:38] + client + data[42:]


def main() -> None:
    """The sender."""
    parser = argparse.ArgumentParser()
    parser.add_argument("path", type=Path)
    parser.add_argument("port", type=int)
    parser.add_argument("rate", type=float)
    parser.add_argument("seconds", type=float)
    chosen = parser.parse_args()
    wanted = int(chosen.rate * chosen.seconds)
    captured = [data for data, _ in offline.load(chosen.path, min(wanted, PACKETS))]
    datagrams = list(captured)
    for turn in range(1, -(-wanted // len(captured))):
        datagrams += [of_client(data, turn) for data in captured]
    datagrams = datagrams[:wanted]
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as out:
        out.connect(("127.0.0.1", chosen.port))
        send = out.send
        started_s = time.monotonic()
        for number, data in enumerate(datagrams):
            send(data)
            if number % 32 == 31:
                left_s = started_s + number / chosen.rate - time.monotonic()
                if left_s > 0:
                    time.sleep(left_s)
        took_s = time.monotonic() - started_s
    sent_bytes = sum(map(len, datagrams))
    print(json.dumps({"sent": wanted, "seconds": took_s, "sent_per_s": wanted / took_s, "bytes": sent_bytes}))


if __name__ == "__main__":
    main()
