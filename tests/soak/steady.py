"""Steady mixed traffic at half of what the machine can take: what came of it, and how memory went."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from tests.e2e.program import Running, free_udp_port, memory_mib

PROBE_S = 5.0
PROBE_CALLS_PER_S = 300.0
SAMPLE_S = 0.5
LIMIT = "32MiB"  # the table of connections is full, and lets some go, long before the second quarter
ROOT = Path(__file__).parents[2]


@dataclass
class Outcome:
    capacity_calls_per_s: float
    sent: dict[str, int]
    collected: dict[str, object]
    resident_mib: list[float]
    log: str
    status: int

    def peak_mib(self, quarter: int) -> float:
        """Of quarter 0 to 3 of the run."""
        size = len(self.resident_mib) // 4
        return max(self.resident_mib[quarter * size : (quarter + 1) * size])

    @property
    def closes(self) -> bool:
        return "does not close" not in self.log


def run(folder: Path, seconds: float) -> Outcome:
    """Finds out what the machine can take, then sends half of that. `folder` is for the spool."""
    probe = _once(folder, PROBE_S, PROBE_CALLS_PER_S)
    capacity = probe[1]
    sent, _, collected, resident_mib, log, status = _once(folder, seconds, capacity / 2)
    return Outcome(capacity, sent, collected, resident_mib, log, status)


def _once(folder: Path, seconds: float, calls_per_s: float):
    report, port = folder / "collected.json", free_udp_port()  # what is free for UDP is as good as any for TCP
    collector = subprocess.Popen(
        [sys.executable, "-m", "tests.soak.counting", str(port), str(report)], cwd=ROOT, stdout=subprocess.PIPE
    )
    assert collector.stdout is not None
    collector.stdout.readline()
    options = ("--url", f"http://127.0.0.1:{port}/message", "--rules", "include debug", "--memory-limit", LIMIT)
    resident_mib: list[float] = []
    try:
        with Running(*options, "--spool-dir", str(folder / "spool"), cwd=folder) as running:
            arguments = (str(running.port), str(seconds), str(calls_per_s), "7")
            sender = subprocess.Popen(
                [sys.executable, "-m", "tests.soak.mixture", *arguments], cwd=ROOT, stdout=subprocess.PIPE, text=True
            )
            while sender.poll() is None:
                resident_mib.append(memory_mib("VmRSS", running.process.pid))
                time.sleep(SAMPLE_S)
            sent = json.loads(sender.communicate()[0])
            time.sleep(1)
            capacity = sent["calls"] / _cpu_s(running.process.pid)
            status = running.stop()
    finally:
        collector.terminate()
        collector.wait()
        collector.stdout.close()
    return sent, capacity, json.loads(report.read_text()), resident_mib, running.log, status


def _cpu_s(pid: int) -> float:
    """Processor time of a process so far, without that of its start (proc(5))."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
