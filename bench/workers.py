"""One worker and two of them, with both cores for themselves: how fast they empty sockets that were filled before.

There is no core left for a sender here, so nothing is sent while time is taken: workers are halted, their sockets
filled, and looked at while they are emptied. The rate is that of the time in which all workers have work, as under load
that goes on: when one has waked and when one has nothing left is no part of it. One and two take turns.
"""

from __future__ import annotations

import contextlib
import operator
import os
import signal
import socket
import statistics
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

from bench import live, offline
from tests.e2e.program import free_udp_port, in_ledger

ROUNDS = 12
EACH = 40_000
"""Datagrams for each worker and round: most of what a socket holds."""
COPIES = 32
"""Of the traffic, with clients of their own: enough connections for equal shares."""


def run(folder: Path, tree: Path) -> dict[str, Any]:
    """Datagrams a second by number of workers, and how many times the one are the other."""
    datagrams = [data for data, _ in offline.load(folder / "api.vxlan.pcap", 2 * EACH // COPIES)]
    rates: dict[int, list[float]] = {1: [], 2: []}
    with contextlib.ExitStack() as stack:
        running = {}
        for workers in rates:
            log = stack.enter_context(tempfile.NamedTemporaryFile("w"))
            port = free_udp_port()
            process = live.start(tree, port, "/dev/null", log, "--workers", str(workers), cores="0,1")
            stack.callback(process.kill)
            running[workers] = process, port, Path(log.name)
        for number in range(ROUNDS):
            for workers, (process, port, _) in running.items():
                rates[workers].append(_round(process, port, datagrams, workers, number))
        for workers, (process, _, log_path) in running.items():
            process.terminate()
            process.wait(20)
            text = log_path.read_text()
            sent = ROUNDS * EACH * workers
            if in_ledger(text, "frames") + in_ledger(text, "kernel_filtered") != sent:
                raise RuntimeError(f"of {sent} datagrams {in_ledger(text, 'kernel_dropped')} were lost")
            calls_a_datagram = in_ledger(text, "shipped") / sent
    medians = {str(workers): statistics.median(of) for workers, of in rates.items()}
    return {
        "datagrams_per_s": medians,
        "calls_per_s": {workers: median * calls_a_datagram for workers, median in medians.items()},
        "times": medians["2"] / medians["1"],
    }


def _round(process: subprocess.Popen[bytes], port: int, datagrams: list[bytes], workers: int, number: int) -> float:
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    pids = [int(pid) for pid in children] or [process.pid]
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as out:
        out.connect(("127.0.0.1", port))
        for place in range(EACH * workers):
            turn, copy = divmod(place, COPIES)
            out.send(live.of_client(datagrams[turn], number * COPIES + copy + 1))
    full = _queued_bytes(port)
    for pid in pids:
        os.kill(pid, signal.SIGCONT)
    begun = last = (0.0, full)
    while sum(left := _queued_bytes(port)):
        now = time.monotonic(), left
        if begun[1] == full and all(map(operator.lt, left, full)):
            begun = now
        if all(left):
            last = now
        time.sleep(0.005)  # a look costs something on the cores that are measured
    time.sleep(0.3)
    if last[0] <= begun[0]:
        raise RuntimeError("the workers were never seen at work together")
    took_bytes = sum(begun[1]) - sum(last[1])
    return EACH * workers * took_bytes / sum(full) / (last[0] - begun[0])


def _queued_bytes(port: int) -> list[int]:
    """What lies in each socket of a port (proc(5), /proc/net/udp)."""
    rows = [line.split() for line in Path("/proc/net/udp").read_text().splitlines()[1:]]
    return [int(row[4].split(":")[1], 16) for row in rows if int(row[1].split(":")[1], 16) == port]


def show(found: dict[str, Any]) -> None:
    print("\ncompiled, emptying sockets that were filled before, both cores free")
    for workers, rate in found["datagrams_per_s"].items():
        print(f"{workers} worker(s): {rate:10,.0f} packets/s {found['calls_per_s'][workers]:10,.0f} calls/s")
    print(f"two are {found['times']:.2f} times one")
