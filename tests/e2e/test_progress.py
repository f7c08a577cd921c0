"""The progress bar while a long capture is read: on a terminal only, and gone at the end."""

import os
import pty
import subprocess
import sys
import time

from tests.builders import CLIENT, EPOCH_NS, MS, SERVER, answer, get, talk
from tests.capture.test_file import pcap_bytes
from tests.e2e.program import environment

FRAMES = talk((CLIENT, get("/a")), (SERVER, answer(b"one")))
FILE = pcap_bytes(frames=[(EPOCH_NS + n * MS, frame) for n, frame in enumerate(FRAMES * 200)])


def read_slowly(tmp_path, stderr):
    process = subprocess.Popen(
        [sys.executable, "-m", "vxsniff", "--read", "slow.fifo", "--url", "calls.ndjson"],
        cwd=tmp_path,
        env=environment(TERM="xterm", COLUMNS="120"),
        stderr=stderr,
    )
    half = len(FILE) // 2
    with open(tmp_path / "slow.fifo", "wb", buffering=0) as fifo:
        for part in (FILE[:half], FILE[half:]):
            fifo.write(part)
            time.sleep(1.0)
    return process


def test_a_terminal_sees_packets_and_calls_counted(tmp_path):
    os.mkfifo(tmp_path / "slow.fifo")
    ours, theirs = pty.openpty()
    process = read_slowly(tmp_path, theirs)
    os.close(theirs)
    seen = b""
    try:
        while part := os.read(ours, 65536):
            seen += part
    except OSError:
        pass  # the other end has closed: how a pty says so
    os.close(ours)
    assert process.wait(20) == 0
    assert b"reading" in seen
    assert b" packets, " in seen
    assert b"1 calls" in seen
    assert seen.rindex(b"ledger") > seen.rindex(b" packets, ")


def test_a_pipe_sees_none(tmp_path):
    os.mkfifo(tmp_path / "slow.fifo")
    process = read_slowly(tmp_path, subprocess.PIPE)
    seen = process.stderr.read()
    process.stderr.close()
    assert process.wait(20) == 0
    assert b"packets, " not in seen
