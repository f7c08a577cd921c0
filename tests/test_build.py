"""One source, two builds: which one runs is known and said."""

import os
import subprocess
import sys

import vxsniff.wire.decode
from tests.e2e.program import environment

EXPECTED = os.environ.get("VXSNIFF_BUILD", "interpreted")


def test_these_tests_run_over_the_build_that_they_are_meant_for():
    assert vxsniff.wire.decode.__file__.endswith(".so" if EXPECTED == "compiled" else ".py")


def test_the_program_says_which_build_it_is(tmp_path):
    command = [sys.executable, "-m", "vxsniff", "--version"]
    done = subprocess.run(command, cwd=tmp_path, env=environment(), capture_output=True, text=True)
    assert done.stdout == f"vxsniff {vxsniff.__version__} ({EXPECTED})\n"
