"""The whole program in bounded memory: a flood of calls for a collector that never takes one."""

import pytest

from tests.builders import CLIENT, SERVER, Endpoint, answer, get, in_vxlan, talk
from tests.e2e.program import Running, in_ledger, memory_mib

CALLS = 400
BODY = "".join(f"{number} " for number in range(120_000)).encode()[:500_000]  # text, and hard enough to pack


@pytest.mark.timeout(120)
@pytest.mark.parametrize("spool", ["off", "on"])
def test_a_flood_that_nobody_takes_stays_within_memory_and_disk(tmp_path, spool):
    folder = tmp_path / "spool"
    options = ("--url", "http://127.0.0.1:9/message", "--rules", "include debug", "--memory-limit", "64MiB")
    options += ("--spool-dir", "off" if spool == "off" else str(folder), "--spool-limit", "8MiB")
    with Running(*options, cwd=tmp_path) as running:
        for number in range(CALLS):
            frames = talk((CLIENT, get("/")), (SERVER, answer(BODY)), client=Endpoint("10.0.0.1", 1024 + number))
            running.send([in_vxlan(frame, 7) for frame in frames])
        peak_mib = memory_mib("VmHWM", running.process.pid)
        assert running.stop() == 0
    assert "does not close" not in running.log
    assert in_ledger(running.log, "shipped") == CALLS
    dropped, spooled = in_ledger(running.log, "dropped"), in_ledger(running.log, "spooled")
    assert dropped + spooled == CALLS
    assert peak_mib < 64 + 150
    if spool == "on":
        assert spooled > 0
        assert sum(path.stat().st_size for path in folder.iterdir()) < 10 << 20
