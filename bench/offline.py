"""Capture files through the pipeline, on one core: what each stage costs, and the whole beside other programs."""

from __future__ import annotations

import gc
import itertools
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from vxsniff.app.pipeline import Pipeline, ndjson_format
from vxsniff.call import policy
from vxsniff.call.record import RecordBuilder
from vxsniff.call.rules import parse_rules
from vxsniff.capture.file import read_frames
from vxsniff.delivery.batch import Batch
from vxsniff.flow.flow import Consumer
from vxsniff.flow.table import FlowTable
from vxsniff.http import sniff
from vxsniff.http.budget import Budget
from vxsniff.http.connection import HttpConnections
from vxsniff.wire.decode import Decoder
from vxsniff.wire.vxlan import VniFilter

STAGES = ("wire", "flow", "http", "call", "rules", "line", "compress")
RULES = ("debug", "standard", "strict")
REPEATS = 3
BATCH_BYTES = 512 * 1024


def load(path: Path, most: int | None = None) -> list[tuple[bytes, int]]:
    """The mirrored datagrams of a VXLAN capture file of `bench.traffic`, and their times; at most so many."""
    with open(path, "rb") as file:
        return [(frame.data[42:], frame.ts_ns) for frame in itertools.islice(read_frames(file), most)]


class _Nothing(Consumer):
    """A consumer that does nothing."""

    def data(self, side: int, seq: int, ack: int, ts_ns: int, payload: bytes) -> None: ...

    def gap(self, side: int, missing_bytes: int, cut: bool, ts_ns: int) -> None: ...

    def end(self, side: int, ts_ns: int) -> None: ...

    def closed(self, ts_ns: int) -> None: ...


def _upto(
    stage: str, rules: str, ship: Callable[[bytes], None]
) -> tuple[Callable[[bytes, int], None], Callable[[], int]]:
    """What takes datagrams as far as this stage; and what tells how many calls there were."""
    number = STAGES.index(stage)
    decoder = Decoder(VniFilter())
    if number == 0:
        return decoder.vxlan_datagram, lambda: 0  # type: ignore[return-value]
    counts = [0]
    if number == 1:
        nothing = _Nothing()
        table = FlowTable(lambda _flow: nothing, sniff.looks_like_start)
    else:
        rule_set = parse_rules(f"include {rules}\nallow_http_url")
        applied = policy.Policy(rule_set, lambda: 0)
        builder = RecordBuilder(applied)
        format_call = ndjson_format("bench")

        def on_exchange(exchange: Any, flow: Any) -> None:
            counts[0] += 1
            if number >= 3:
                record = builder.build(exchange, flow)
                if number >= 4:
                    applied.outcome(record.runs)
                    if number >= 5:
                        line = format_call(record)
                        if number >= 6:
                            ship(line)

        http = HttpConnections(on_exchange, Budget(256 << 20))
        table = FlowTable(http.connection, sniff.looks_like_start)

    def take(data: bytes, ts_ns: int) -> None:
        segment = decoder.vxlan_datagram(data, ts_ns)
        if segment is not None:
            table.segment(segment)

    return take, lambda: counts[0]


class Packer:
    """Batches, packed as for delivery."""

    def __init__(self) -> None:
        self._lines: list[bytes] = []
        self._size = 0
        self.packed_bytes = 0

    def __call__(self, line: bytes) -> None:
        self._lines.append(line)
        self._size += len(line)
        if self._size >= BATCH_BYTES:
            self.packed_bytes += len(Batch(len(self._lines), b"".join(self._lines)).packed)
            self._lines, self._size = [], 0


def stages(datagrams: list[tuple[bytes, int]], rules: str) -> dict[str, float]:
    """Microseconds a call for each stage, and the counts of packets and calls. Differences of the best of REPEATS."""
    spent: dict[str, float] = {}
    calls = 0
    before = 0.0
    for stage in STAGES:
        best = float("inf")
        for _ in range(REPEATS):
            take, count = _upto(stage, rules, Packer())
            gc.collect()
            started = time.process_time()
            for data, ts_ns in datagrams:
                take(data, ts_ns)
            best = min(best, time.process_time() - started)
            calls = count() or calls
        spent[stage] = best - before
        before = best
    return {
        **{stage: seconds / calls * 1e6 for stage, seconds in spent.items()},
        "calls": calls,
        "packets": len(datagrams),
    }


def new_pipeline(rules: str, **options: Any) -> Pipeline:
    """As a worker has it, down to packed batches."""
    return Pipeline(
        VniFilter(),
        parse_rules(f"include {rules}\nallow_http_url"),
        Packer(),
        format_call=ndjson_format("bench"),
        draw=lambda: 0,
        on_error=_raise,
        **options,
    )


def whole(datagrams: list[tuple[bytes, int]], rules: str) -> float:
    """Calls a second of one core, from datagrams in memory to packed batches; bounds, ledger and all."""
    best = float("inf")
    calls = 0
    for _ in range(REPEATS):
        pipeline = new_pipeline(rules)
        gc.collect()
        started = time.process_time()
        take = pipeline.vxlan_datagram
        for data, ts_ns in datagrams:
            take(data, ts_ns)
        best = min(best, time.process_time() - started)
        calls = pipeline.counters.shipped
    return calls / best


def _raise(error: Exception) -> None:
    raise error


# ---- beside others, each as a process of its own on one core


def peak_mib(pid: int) -> float:
    """What a running process had in memory at most (proc(5), VmHWM): wait4 tells the parent's, where that was more."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) / 1024
    return 0.0  # it has ended


def _timed(command: list[str], **options: Any) -> tuple[float, float, str]:
    """Processor seconds, peak MiB, and what it printed."""
    core = str(sorted(os.sched_getaffinity(0))[-1])
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as said:
        process = subprocess.Popen(["taskset", "-c", core, *command], stdout=out, stderr=said, **options)
        peak = 0.0
        while True:
            peak = max(peak, peak_mib(process.pid))
            done, status, usage = os.wait4(process.pid, os.WNOHANG)
            if done:
                break
            time.sleep(0.05)
        process.returncode = os.waitstatus_to_exitcode(status)
        said.seek(0)
        if process.returncode:
            raise RuntimeError(f"{command[0]} ended with {process.returncode}: {said.read()}")
        out.seek(0)
        return usage.ru_utime + usage.ru_stime, peak, out.read()


def ours(path: Path, rules: str = "debug", tree: Path = Path(__file__).parents[1]) -> dict[str, float]:
    """The program as its user starts it, from the build in `tree`."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "calls.ndjson"
        command = [
            sys.executable,
            "-m",
            "vxsniff",
            "--read",
            str(path),
            "--rules",
            f"include {rules}",
            "--url",
            str(out),
        ]
        spent, peak, _ = _timed(command, cwd=tree, env={**os.environ, "PYTHONPATH": str(tree)})
        with open(out, "rb") as lines:
            return {"seconds": spent, "peak_mib": peak, "calls": sum(1 for _ in lines)}


def tshark(path: Path) -> dict[str, float]:
    if shutil.which("tshark") is None:
        return {}
    fields = ("http.request.method", "http.request.uri", "http.response.code", "http.time")
    command = ["tshark", "-r", str(path), "-Y", "http.response", "-T", "fields"]
    spent, peak, out = _timed([*command, *(word for field in fields for word in ("-e", field))])
    return {"seconds": spent, "peak_mib": peak, "calls": len(out.splitlines())}


_SURICATA = """%YAML 1.1
---
vars: {{ address-groups: {{ HOME_NET: any, EXTERNAL_NET: any }}, port-groups: {{ HTTP_PORTS: 80 }} }}
default-log-dir: {folder}
outputs:
  - eve-log:
      enabled: yes
      filetype: regular
      filename: eve.json
      types: [ {{ http: {{ extended: yes, dump-all-headers: both }} }} ]
app-layer: {{ protocols: {{ http: {{ enabled: yes, memcap: 1gb }} }} }}
decoder: {{ vxlan: {{ enabled: true, ports: 4789 }} }}
flow: {{ memcap: 1gb, hash-size: 65536, prealloc: 10000 }}
stream: {{ memcap: 1gb, checksum-validation: no, midstream: true, reassembly: {{ memcap: 2gb, depth: 0 }} }}
"""


def suricata(path: Path) -> dict[str, float]:
    if shutil.which("suricata") is None:
        return {}
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / "suricata.yaml"
        config.write_text(_SURICATA.format(folder=folder))
        command = [
            "suricata",
            "-r",
            str(path),
            "--runmode",
            "single",
            "-c",
            str(config),
            "-l",
            folder,
            "-k",
            "none",
            "-S",
            "/dev/null",
        ]
        spent, peak, _ = _timed(command)
        with open(Path(folder) / "eve.json") as events:
            return {
                "seconds": spent,
                "peak_mib": peak,
                "calls": sum('"event_type":"http"' in event for event in events),
            }
