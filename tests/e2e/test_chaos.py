"""No call is lost: collectors that fail, vxsniff that is ended and killed, and started again, under steady traffic."""

import contextlib
import re
import signal
import time
import urllib.request

import pytest

from tests.e2e.chaos import Arrived, Flaky, Traffic
from tests.e2e.program import Running, free_udp_port, in_ledger

pytestmark = pytest.mark.timeout(180)

PER_S = 300


def start(tmp_path, collector, *options, port=None):
    return Running(
        *("--url", collector.url, "--rules", "include debug", "--spool-dir", str(tmp_path / "spool"), *options),
        cwd=tmp_path,
        port=port,
    )


def metric(port: int, name: str) -> float:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
        found = re.search(rf"^{re.escape(name)} (\S+)$", answer.read().decode(), re.MULTILINE)
    return float(found[1]) if found else 0.0


def ended_well(running):
    assert running.stop(signal.SIGTERM) == 0
    assert "does not close" not in running.log
    assert "Traceback" not in running.log
    assert in_ledger(running.log, "kernel_dropped") == 0
    assert in_ledger(running.log, "dropped") == 0


def test_calls_outlive_a_failing_collector_and_restarts(tmp_path):
    port = free_udp_port()
    with Flaky() as collector, contextlib.closing(Traffic(port)) as traffic:
        for round_number in range(4):
            with start(tmp_path, collector, port=port) as running:
                traffic.send(1.0, PER_S)
                if round_number == 1:
                    collector.kill()
                traffic.send(1.0, PER_S)
                if round_number == 2:
                    collector.come_back()
                if round_number == 3:
                    collector.heal()
                    assert collector.wait_for(len(traffic.sent))
                ended_well(running)
        arrived = Arrived(collector.lines)
    # SIGTERM loses nothing, and a fault costs copies at most, never order.
    assert sorted(arrived.numbers) == [number for number, _ in traffic.sent]
    arrived.assert_in_order()
    assert arrived.copies > 0
    assert in_ledger(running.log, "spool_found") > 0


@pytest.mark.parametrize("always", [False, True])
def test_a_kill_loses_the_last_second_at_most_and_nothing_that_was_taken(tmp_path, always):
    port, metrics = free_udp_port(), free_udp_port()
    options = ["--metrics", f"127.0.0.1:{metrics}"] + (["--spool-always"] if always else [])
    with Flaky(seed=5) as collector, contextlib.closing(Traffic(port)) as traffic:
        lost: list[tuple[int, float]] = []
        taken = 0
        for round_number in range(3):
            with start(tmp_path, collector, *options, port=port) as running:
                first = len(traffic.sent)
                traffic.send(2.5, PER_S)
                kept = metric(metrics, 'vxsniff_deliveries_open{state="spooled"}')
                kept += metric(metrics, 'vxsniff_deliveries_ended_total{outcome="accepted"}')
                kept -= metric(metrics, "vxsniff_spool_found_total")
                taken = first + int(kept)
                killed_s = time.monotonic()
                running.process.kill()
                running.process.wait()
            numbers = {number for number, _ in traffic.sent[first:]}
            if round_number == 0:
                collector.kill()
            elif round_number == 1:
                collector.come_back()
            lost.append((taken, killed_s))
            assert numbers
        with start(tmp_path, collector, *options, port=port) as running:
            collector.heal()
            traffic.send(0.5, PER_S)
            time.sleep(1.0)
            ended_well(running)
        arrived = Arrived(collector.lines)
    missing = sorted({number for number, _ in traffic.sent} - set(arrived.numbers))
    sent_s = dict(traffic.sent)
    for number in missing:
        # Only calls of the last second before a kill, and only such as were not yet taken.
        taken, killed_s = min((entry for entry in lost if entry[1] >= sent_s[number]), key=lambda entry: entry[1])
        assert killed_s - sent_s[number] < 1.0
        assert number >= taken
    arrived.assert_in_order()
