"""`vxsniff spool`: list, show, retry and purge, beside a vxsniff that runs and without one."""

import json

import pytest

from tests.builders import CLIENT, SERVER, answer, get, in_vxlan, talk
from tests.e2e.collector import Collector
from tests.e2e.program import Running, in_ledger, vxsniff
from vxsniff.delivery.batch import Batch
from vxsniff.delivery.spool import Spool


@pytest.fixture
def folder(tmp_path):
    """A spool with two batches that wait and two dead letters."""
    spool = Spool(tmp_path / "spool")
    spool.open()
    for number in range(4):
        spool.append([Batch(number + 1, b'[["n","%d"]]\n' % number * (number + 1))])
    spool.bury(spool.oldest(), 413, "too large\x1b[31m\nreally")
    spool.bury(spool.oldest(), 400, "")
    spool.close()
    return tmp_path


def run(folder, *arguments, **options):
    return vxsniff("spool", *arguments, cwd=folder, env={"SNIFFER_SPOOL_DIR": str(folder / "spool")}, **options)


def test_list_names_what_waits_and_what_was_refused(folder):
    done = run(folder, "list")
    assert done.returncode == 0
    lines = done.stdout.decode().splitlines()
    assert [line.split()[0] for line in lines] == ["3", "4", "d1", "d2", "7"]
    assert "3 calls" in lines[0]
    assert lines[0].endswith("waits")
    assert lines[2].endswith("answered 413 too large [31m really")
    assert lines[4].startswith("7 calls wait, 3 are dead letters; ")


def test_show_prints_the_calls_of_a_batch(folder):
    assert run(folder, "show", "3").stdout == b'[["n","2"]]\n' * 3
    assert run(folder, "show", "d1").stdout == b'[["n","0"]]\n'


def test_retry_and_purge_say_how_many_calls_they_moved(folder):
    assert run(folder, "retry", "d1").stdout == b"1 calls wait again\n"
    assert run(folder, "retry", "--all").stdout == b"2 calls wait again\n"
    assert run(folder, "purge", "3").stdout == b"3 calls deleted\n"
    assert run(folder, "purge", "--waiting", "--dead").stdout == b"7 calls deleted\n"
    assert run(folder, "list").stdout.startswith(b"0 calls wait, 0 are dead letters; ")


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["show", "77"], "there is no batch 77"),
        (["show", "x"], "'x' is no id of a batch"),
        (["retry"], "which?"),
        (["purge"], "which?"),
        (["retry", "3"], "only dead letters"),
        (["list", "--spool-dir", "/no/such/place"], "/no/such/place/spool-0.sqlite: there is none"),
        (["list", "--spool-dir", "off"], "switched off"),
    ],
)
def test_what_is_wrong_is_one_line_and_status_2(folder, arguments, text):
    done = run(folder, *arguments)
    assert done.returncode == 2
    (line,) = done.stderr.decode().splitlines()
    assert text in line


def test_a_file_that_is_no_spool_is_one_line_and_left_alone(folder):
    path = folder / "spool" / "spool-0.sqlite"
    path.write_bytes(b"garbage" * 1000)
    done = run(folder, "list")
    assert done.returncode == 2
    assert b"it is damaged" in done.stderr
    assert path.read_bytes() == b"garbage" * 1000


def test_dead_letters_are_tried_again_by_a_vxsniff_that_runs(tmp_path):
    with Collector(statuses=[400]) as collector:
        arguments = ("--url", collector.url, "--rules", "include debug", "--spool-dir", str(tmp_path / "spool"))
        with Running(*arguments, cwd=tmp_path) as running:
            running.send([in_vxlan(f, 7) for f in talk((CLIENT, get("/a")), (SERVER, answer(b"x")))])
            running.wait_for_log("refused for good")
            assert run(tmp_path, "retry", "--all").stdout == b"1 calls wait again\n"
            assert collector.wait_for(1)
            assert running.stop() == 0
    assert dict(json.loads(collector.lines[0]))["response_body"] == "x"
    assert (in_ledger(running.log, "dead"), in_ledger(running.log, "accepted")) == (1, 1)
