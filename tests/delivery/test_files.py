"""Lines to a file and to a stream."""

import os
import stat
import threading
import time

import pytest

from vxsniff.delivery import outlet
from vxsniff.delivery.batch import Batch
from vxsniff.delivery.files import FileOutlet, StreamOutlet
from vxsniff.delivery.lock import wait_for_lock


def test_lines_are_appended_and_the_file_is_private(tmp_path):
    path = tmp_path / "calls.ndjson"
    for _ in range(2):
        file = FileOutlet(str(path))
        assert file.send(Batch(1, b"line\n"), 1).kind == outlet.ACCEPTED
        file.close()
    assert path.read_bytes() == b"line\nline\n"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_file_that_was_rotated_away_is_created_anew(tmp_path):
    path = tmp_path / "calls.ndjson"
    file = FileOutlet(str(path))
    file.send(Batch(1, b"one\n"), 1)
    path.rename(tmp_path / "calls.1")
    file.send(Batch(1, b"two\n"), 1)
    file.close()
    assert ((tmp_path / "calls.1").read_bytes(), path.read_bytes()) == (b"one\n", b"two\n")


def test_a_file_that_can_not_be_opened_raises(tmp_path):
    with pytest.raises(OSError, match="No such file"):
        FileOutlet(str(tmp_path / "no" / "calls.ndjson"))


def test_a_full_disk_is_tried_again_and_leaves_no_half_line(tmp_path, monkeypatch):
    path = tmp_path / "calls.ndjson"
    file = FileOutlet(str(path))
    file.send(Batch(1, b"whole\n"), 1)
    write = os.write

    def full(fd, data):
        if len(data) > 3:
            return write(fd, bytes(data)[:3])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    outcome = file.send(Batch(1, b"half\n"), 1)
    monkeypatch.undo()
    assert (outcome.kind, outcome.reason) == (outlet.RETRY, "No space left on device")
    assert path.read_bytes() == b"whole\n"
    assert file.send(Batch(1, b"half\n"), 1).kind == outlet.ACCEPTED
    file.close()
    assert path.read_bytes() == b"whole\nhalf\n"


def test_a_stream_whose_reader_has_gone_is_gone():
    reader, writer = os.pipe()
    stream = StreamOutlet(writer)
    assert stream.send(Batch(1, b"line\n"), 1).kind == outlet.ACCEPTED
    os.close(reader)
    assert stream.send(Batch(1, b"line\n"), 1).kind == outlet.GONE
    os.close(writer)


def test_who_shares_a_file_waits_while_another_writes(tmp_path):
    path = str(tmp_path / "calls")
    first, second = FileOutlet(path, is_shared=True), FileOutlet(path, is_shared=True)
    with wait_for_lock(first._fd, 5):
        writing = threading.Thread(target=second.send, args=(Batch(1, b"second\n"), 5))
        writing.start()
        time.sleep(0.2)
        assert (tmp_path / "calls").read_bytes() == b""
    writing.join(5)
    assert first.send(Batch(1, b"first\n"), 5).kind == outlet.ACCEPTED
    assert (tmp_path / "calls").read_bytes() == b"second\nfirst\n"
