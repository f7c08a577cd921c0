"""`make soak`. Ten minutes of mixed traffic at half of the machine's capacity, then five of chaos."""

import contextlib
import os
import random
import signal
import time

import pytest

from tests.e2e.chaos import Arrived, Flaky, Traffic
from tests.e2e.program import Running, free_udp_port, in_ledger
from tests.soak import steady

SECONDS = float(os.environ.get("SOAK_SECONDS", "600"))
CHAOS_SECONDS = float(os.environ.get("CHAOS_SECONDS", "300"))
PER_S = 300


@pytest.mark.timeout(SECONDS + 120)
def test_memory_is_flat_and_nothing_is_unexplained(tmp_path):
    outcome = steady.run(tmp_path, SECONDS)
    peaks = [outcome.peak_mib(quarter) for quarter in range(4)]
    log = outcome.log
    print(f"capacity {outcome.capacity_calls_per_s:,.0f} calls/s; sent {outcome.sent}")
    print("peak of each quarter in MiB:", *(f"{peak:.1f}" for peak in peaks))
    print(log[log.index("ledger") :])
    assert outcome.status == 0
    assert outcome.closes
    assert in_ledger(log, "kernel_dropped") == in_ledger(log, "dropped") == in_ledger(log, "errors") == 0
    assert in_ledger(log, "frames") + in_ledger(log, "kernel_filtered") == outcome.sent["datagrams"]
    assert outcome.collected["by_path"]["whole"] == outcome.sent["calls"]
    assert sum(outcome.collected["by_path"].values()) == outcome.collected["ids"] == in_ledger(log, "accepted")
    assert outcome.collected["complaints"] == []
    assert peaks[3] <= peaks[1] * 1.05


@pytest.mark.timeout(CHAOS_SECONDS + 300)
def test_no_call_is_lost_in_a_long_run_of_chaos(tmp_path):
    draw, port = random.Random(11), free_udp_port()
    options = ("--rules", "include debug", "--spool-dir", str(tmp_path / "spool"), "--spool-always")
    end_s = time.monotonic() + CHAOS_SECONDS
    kills = terms = 0
    is_up = True
    with Flaky(seed=9) as collector, contextlib.closing(Traffic(port)) as traffic:
        unsure: set[int] = set()
        while time.monotonic() < end_s:
            with Running("--url", collector.url, *options, cwd=tmp_path, port=port) as running:
                for _ in range(draw.randrange(2, 6)):
                    traffic.send(draw.uniform(0.5, 2), PER_S)
                    if draw.random() < 0.4:
                        (collector.kill if is_up else collector.come_back)()
                        is_up = not is_up
                if draw.random() < 0.5:
                    kills += 1
                    since_s = time.monotonic() - 1
                    running.process.kill()
                    running.process.wait()
                    unsure |= {number for number, sent_s in traffic.sent if sent_s > since_s}
                else:
                    terms += 1
                    assert running.stop(signal.SIGTERM) == 0
                    assert "does not close" not in running.log
                    assert in_ledger(running.log, "dropped") == in_ledger(running.log, "kernel_dropped") == 0
        if not is_up:
            collector.come_back()
        collector.heal()
        with Running("--url", collector.url, *options, cwd=tmp_path, port=port) as running:
            wanted = {number for number, _ in traffic.sent} - unsure
            assert collector.wait_for(len(wanted), timeout_s=120)
            time.sleep(2)
            assert running.stop(signal.SIGTERM) == 0
        arrived = Arrived(collector.lines)
    missing = {number for number, _ in traffic.sent} - set(arrived.numbers)
    print(
        f"{len(traffic.sent):,} calls, {kills} kills, {terms} ends, {arrived.copies} copies, {len(missing)} lost at kills"
    )
    assert missing <= unsure
    assert kills > 0
    assert terms > 0
    arrived.assert_in_order()
