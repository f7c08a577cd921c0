"""Batches on disk: order, limits, dead letters, and files that are damaged, foreign, locked or gone."""

import os
import sqlite3
import stat
import subprocess
import sys

import pytest

from vxsniff.delivery.batch import Batch
from vxsniff.delivery.spool import Spool, SpoolError, numbers


@pytest.fixture
def spool(tmp_path):
    opened = Spool(tmp_path / "state")
    assert opened.open() == ""
    yield opened
    opened.close()


def batch(number, size=10, calls=1):
    return Batch(calls, b"line %05d " % number + os.urandom(size) + b"\n")


def reopened(spool):
    spool.close()
    again = Spool(spool.path.parent)
    assert again.open() == ""
    return again


def drained(spool):
    lines = []
    while (oldest := spool.oldest()) is not None:
        lines.append(oldest.lines[:10].decode())
        assert spool.remove(oldest)
    return lines


def test_what_was_appended_comes_back_oldest_first_and_survives_a_restart(spool):
    spool.append([batch(1), batch(2)])
    spool.append([batch(3)])
    again = reopened(spool)
    assert again.changes() == (3, 3)
    assert drained(again) == ["line 00001", "line 00002", "line 00003"]
    again.close()


def test_what_is_in_the_spool_is_private(spool):
    spool.append([batch(1)])
    assert stat.S_IMODE(spool.path.parent.stat().st_mode) == 0o700
    for path in spool.path.parent.iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, path


def test_a_kill_loses_nothing_that_was_appended(tmp_path):
    script = (
        "import os, sys\n"
        "from pathlib import Path\n"
        "from vxsniff.delivery.batch import Batch\n"
        "from vxsniff.delivery.spool import Spool\n"
        f"spool = Spool(Path({str(tmp_path)!r})); spool.open()\n"
        "for n in range(50): spool.append([Batch(1, b'line %05d ' % n)])\n"
        "os.kill(os.getpid(), 9)\n"
    )
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == -9
    spool = Spool(tmp_path)
    assert spool.open() == ""
    assert len(drained(spool)) == 50
    spool.close()


def test_beyond_the_limit_the_oldest_go_and_the_file_stays_within(tmp_path):
    limit = 1 << 20
    spool = Spool(tmp_path, limit_bytes=limit)
    spool.open()
    dropped = 0
    for number in range(60):
        dropped += spool.append([batch(number, 60_000)]).calls
        assert spool.contents().used_bytes <= limit
    contents = spool.contents()
    assert dropped == 60 - contents.calls > 30
    assert drained(spool)[0] == f"line {dropped:05d}"
    spool.close()
    assert spool.path.stat().st_size < limit + 200_000


def test_small_batches_count_with_all_that_they_cost(tmp_path):
    spool = Spool(tmp_path, limit_bytes=1 << 20)
    spool.open()
    dropped = sum(spool.append([batch(n * 100 + i, 2100) for i in range(100)]).calls for n in range(10))
    assert dropped > 0
    assert spool.contents().used_bytes <= 1 << 20
    spool.close()


def test_the_batch_that_is_being_delivered_is_not_dropped_for_room(tmp_path):
    spool = Spool(tmp_path, limit_bytes=1 << 20)
    spool.open()
    spool.append([batch(0, 60_000)])
    under_way = spool.oldest()
    for number in range(1, 40):
        spool.append([batch(number, 60_000)])
    assert spool.remove(under_way)
    spool.close()


def test_dead_letters_go_for_room_before_what_waits(tmp_path):
    spool = Spool(tmp_path, limit_bytes=1 << 20)
    spool.open()
    for number in range(5):
        spool.bury(batch(number, 60_000), 400, "no")
    rooms = [spool.append([batch(number, 60_000)]) for number in range(17)]
    assert sum(room.dead_calls for room in rooms) == 5
    assert spool.contents().dead_calls == 0
    spool.close()


def test_a_dead_letter_keeps_the_answer_and_can_be_read_tried_again_and_purged(spool):
    spool.append([batch(1, calls=7), batch(2), batch(3)])
    assert spool.bury(spool.oldest(), 413, "too large " * 1000)[0]
    assert spool.bury(spool.oldest(), 400, "bad")[0]
    first, second = spool.entries(dead=True)
    assert (first.status, first.calls, len(first.answer)) == (413, 7, 2048)
    assert (second.status, second.answer) == (400, "bad")
    assert spool.read(first.id, dead=True).lines.startswith(b"line 00001")
    assert spool.retry([first.id, 99]) == 7
    assert spool.purge([second.id, 99], dead=True) == 1
    assert spool.entries(dead=True) == []
    assert drained(spool) == ["line 00003", "line 00001"]


def test_changes_of_another_process_are_seen(spool):
    spool.append([batch(1), batch(2, calls=5), batch(3)])
    assert spool.changes() == (3, 3 + 4) or spool.changes() == (0, 0)
    guest = Spool(spool.path.parent, as_guest=True)
    guest.open()
    guest.purge([2], dead=False)
    assert spool.changes() == (-1, -5)
    assert spool.changes() == (0, 0)
    gone = Batch(5, b"x", row=2)
    assert not spool.remove(gone)
    guest.close()


def test_only_one_owns_a_spool_and_guests_may_look(spool):
    with pytest.raises(SpoolError, match="another vxsniff uses it"):
        Spool(spool.path.parent).open()
    spool.append([batch(1)])
    guest = Spool(spool.path.parent, as_guest=True)
    guest.open()
    assert guest.contents().calls == 1
    guest.close()
    assert drained(spool) == ["line 00001"]


def test_a_guest_makes_no_spool(tmp_path):
    with pytest.raises(SpoolError, match="there is none"):
        Spool(tmp_path / "none", as_guest=True).open()
    assert not (tmp_path / "none").exists()


def overwritten(path):
    path.write_bytes(b"something else entirely\n" * 500)


def foreign(path):
    path.unlink(missing_ok=True)
    with sqlite3.connect(path) as db:
        db.execute("CREATE TABLE precious (x)")
        db.execute("INSERT INTO precious VALUES (1)")


def newer(path):
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA user_version = 2")


def torn(path):
    data = bytearray(path.read_bytes())
    data[4096 : 4096 + 4096 * 3] = os.urandom(4096 * 3)
    path.write_bytes(data)


def cut_off(path):
    os.truncate(path, path.stat().st_size // 2)


def without_its_table(path):
    with sqlite3.connect(path) as db:
        db.execute("DROP TABLE dead")


@pytest.mark.parametrize("harm", [overwritten, foreign, newer, torn, cut_off, without_its_table])
def test_a_damaged_or_foreign_file_is_set_aside_whole_and_a_new_one_is_used(tmp_path, harm):
    spool = Spool(tmp_path)
    spool.open()
    spool.append([batch(n, 30_000) for n in range(5)])
    spool.close()
    harm(spool.path)
    before = spool.path.read_bytes()
    said = spool.open()
    assert "it is kept as" in said
    assert "\n" not in said
    (kept,) = [
        path for path in tmp_path.iterdir() if ".damaged-" in path.name and path.name[-4:] not in ("-wal", "-shm")
    ]
    assert kept.read_bytes() == before
    spool.append([batch(9)])
    assert drained(spool) == ["line 00009"]
    spool.close()


def test_damage_while_it_is_open_is_told_as_such(spool):
    spool.append([batch(n, 30_000) for n in range(5)])
    spool._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    with open(spool.path, "r+b") as file:
        file.write(os.urandom(os.path.getsize(spool.path)))
    spool._db.execute("PRAGMA cache_size = 0")
    with pytest.raises(SpoolError) as caught:
        spool.append([batch(1)])
    assert caught.value.is_damaged


def test_rows_of_a_new_file_are_never_those_of_the_one_that_was_set_aside(tmp_path):
    spool = Spool(tmp_path)
    spool.open()
    spool.append([batch(n) for n in range(5)])
    spool.close()
    overwritten(spool.path)
    assert spool.open()
    later = batch(7)
    spool.append([later])
    assert later.row > 5
    spool.close()


def test_a_lock_of_another_process_is_told_as_such(spool, monkeypatch):
    monkeypatch.setattr("vxsniff.delivery.spool.BUSY_TIMEOUT_S", 0.1)
    other = sqlite3.connect(spool.path)
    other.execute("BEGIN IMMEDIATE")
    spool._db.execute("PRAGMA busy_timeout = 50")
    with pytest.raises(SpoolError, match="another process holds its lock"):
        spool.append([batch(1)])
    other.execute("COMMIT")
    other.close()
    spool.append([batch(1)])
    assert drained(spool) == ["line 00001"]


def test_what_was_delivered_is_not_delivered_again_when_it_could_not_be_deleted(spool):
    spool.append([batch(1), batch(2)])
    other = sqlite3.connect(spool.path)
    other.execute("BEGIN IMMEDIATE")
    spool._db.execute("PRAGMA busy_timeout = 50")
    assert spool.remove(spool.oldest())
    assert spool.oldest().lines.startswith(b"line 00002")
    other.execute("COMMIT")
    other.close()
    assert spool.remove(spool.oldest())
    assert spool.contents().batches == 0


def test_deleted_room_is_given_back_to_the_disk_in_quiet_times(spool):
    spool.append([batch(n, 100_000) for n in range(30)])
    full = spool.tidy()
    drained(spool)
    assert full > 3_000_000
    assert spool.tidy() < 100_000
    assert spool.path.stat().st_size < 100_000


@pytest.mark.parametrize("name", ["/proc/nothing/here", "/dev/null/spool"])
def test_a_folder_that_can_not_be_made_is_told_as_such(tmp_path, name):
    from pathlib import Path

    with pytest.raises(SpoolError) as caught:
        Spool(Path(name)).open()
    assert not caught.value.is_damaged


def left_behind(folder, number, *batches, dead=()):
    """A spool of a worker that is there no more."""
    former = Spool(folder, number)
    former.open()
    former.append(batches)
    for one in dead:
        former.bury(one, 413, "too large")
    former.close()
    return former


def test_what_former_workers_left_is_taken_over_once_each_by_one_of_those_there_are(tmp_path):
    left_behind(tmp_path, 2, batch(3), batch(4), dead=[batch(9)])
    left_behind(tmp_path, 3, batch(5))
    left_behind(tmp_path, 4, batch(6, calls=7))
    left_behind(tmp_path, 0, batch(1), batch(2))
    first, second = Spool(tmp_path, 0), Spool(tmp_path, 1)
    first.open()
    second.open()
    assert first.adopt(2) == [f"took over {n} batches of spool-{i}.sqlite" for n, i in ((2, 2), (1, 4))]
    assert second.adopt(2) == ["took over 1 batches of spool-3.sqlite"]
    assert first.adopt(2) == second.adopt(2) == []
    assert numbers(tmp_path) == [0, 1]
    assert first.changes() == (5, 11)
    assert [(entry.status, entry.answer) for entry in first.entries(dead=True)] == [(413, "too large")]
    assert drained(first) == [f"line {n:05d}" for n in (1, 2, 3, 4, 6)]
    assert drained(second) == ["line 00005"]
    first.close()
    second.close()


def test_a_spool_that_another_vxsniff_uses_is_not_taken_over(tmp_path):
    other = Spool(tmp_path, 1)
    other.open()
    other.append([batch(1)])
    mine = Spool(tmp_path, 0)
    mine.open()
    (said,) = mine.adopt(1)
    assert "spool-1.sqlite of a former worker is left alone: another vxsniff uses it" in said
    assert drained(other) == ["line 00001"]
    other.close()
    mine.close()


def test_a_damaged_spool_of_a_former_worker_is_set_aside(tmp_path):
    overwritten(left_behind(tmp_path, 1, batch(1)).path)
    mine = Spool(tmp_path, 0)
    mine.open()
    (said,) = mine.adopt(1)
    assert "it is kept as" in said
    assert numbers(tmp_path) == [0]
    assert len(list(tmp_path.glob("spool-1.sqlite.damaged-*"))) >= 1
    mine.close()


def test_what_lies_in_a_spool_when_its_share_becomes_smaller_stays(tmp_path):
    great = Spool(tmp_path, 0, 4 << 20)
    great.open()
    great.append([batch(n, 50_000) for n in range(50)])
    great.close()
    share = Spool(tmp_path, 0, 1 << 20, total_bytes=4 << 20)
    share.open()
    assert share.append([batch(50, 100)]).calls <= 1
    share.close()
    lowered = Spool(tmp_path, 0, 1 << 20)  # by who set a lower limit for all
    lowered.open()
    assert lowered.append([batch(51, 100)]).calls > 25
    lowered.close()


def test_what_is_taken_over_counts_into_the_share_until_it_is_delivered(tmp_path):
    great = Spool(tmp_path, 2, 2 << 20)
    great.open()
    great.append([batch(n, 60_000) for n in range(30)])
    great.close()
    mine = Spool(tmp_path, 0, 1 << 20, total_bytes=4 << 20)
    mine.open()
    mine.adopt(2)
    assert mine.append([batch(30)]).calls <= 1
    for _ in range(28):
        assert mine.remove(mine.oldest())
    mine.tidy()
    assert mine.append([batch(n, 60_000) for n in range(40)]).calls > 20, "then it is the share again"
    mine.close()
