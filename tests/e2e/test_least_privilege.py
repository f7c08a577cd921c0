"""The VXLAN engine needs no privilege: an ordinary user without any capability, who can gain none."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.builders import CLIENT, SERVER, answer, get, in_vxlan, talk
from tests.e2e.collector import Collector
from tests.e2e.program import ORDINARY_USER, Running, in_ledger, vxsniff

BARE = ("setpriv", "--no-new-privs")


@pytest.mark.root
def test_it_captures_spools_and_is_switched_without_any_capability(tmp_path):
    who = (*ORDINARY_USER, *BARE) if os.geteuid() == 0 else BARE
    control, spool = tmp_path / "run" / "control.sock", tmp_path / "spool"
    options = ("--control", str(control), "--spool-dir", str(spool), "--spool-always", "--rules", "include debug")
    with Collector() as collector, Running("--url", collector.url, *options, cwd=tmp_path, prefix=who) as running:
        status = Path(f"/proc/{running.process.pid}/status").read_text()
        said = dict(re.findall(r"^(Cap\w+|NoNewPrivs):\s+(\w+)$", status, re.MULTILINE))
        assert {int(said[name], 16) for name in ("CapInh", "CapPrm", "CapEff", "CapAmb")} == {0}
        assert said["NoNewPrivs"] == "1"
        running.send([in_vxlan(frame, 7) for frame in talk((CLIENT, get("/a")), (SERVER, answer(b"x")))])
        assert collector.wait_for(1)
        for word in ("off", "on", "reload", "status"):
            assert vxsniff(word, cwd=tmp_path, env={"SNIFFER_CONTROL_SOCKET": str(control)}).returncode == 0
        assert running.stop() == 0
    assert in_ledger(running.log, "accepted") == 1
    assert "WARNING" not in running.log.replace("WARNING receive buffer", "")


@pytest.mark.root
def test_the_demo_needs_none_either(tmp_path):
    who = (*ORDINARY_USER, *BARE) if os.geteuid() == 0 else BARE
    command = [*who, sys.executable, "-m", "vxsniff", "demo", "--calls", "20", "--rate", "200"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert in_ledger(done.stderr, "shipped") == 20
