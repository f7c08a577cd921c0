"""Under the worst traffic that we can make, memory stays under the limit and 150 MiB, and the ledger closes."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.property.worst_traffic import SCENARIOS

LIMIT_MIB = 64
ROOT = Path(__file__).parents[2]


@pytest.mark.timeout(120)
@pytest.mark.parametrize("name", SCENARIOS)
def test_memory_stays_within_its_limit(name):
    done = subprocess.run(
        [sys.executable, "-m", "tests.property.worst_traffic", name, str(LIMIT_MIB)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=110,
    )
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert said["peak_mib"] < LIMIT_MIB + 150
    assert said["open_equations"] == []
    assert said["errors"] == []
    assert said["left"] == [0, 0, 0], "memory that nobody gave back"
