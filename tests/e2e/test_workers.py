"""Several workers behind one supervisor: what a single vxsniff does, they do together, and one that dies loses little."""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.builders import CLIENT, SERVER, Endpoint, answer, get, in_vxlan, talk
from tests.e2e.collector import Collector
from tests.e2e.program import Running, environment, free_tcp_port, free_udp_port, in_ledger, vxsniff
from vxsniff.app import supervisor
from vxsniff.app.settings import resolve

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="several workers are there on Linux only")

CONNECTIONS = range(20_000, 20_040)


class Crew(Running):
    """A vxsniff with several workers, ready when all of them have reported."""

    def __init__(self, *arguments, cwd, env=None, workers=2, **more) -> None:
        self.metrics_port = free_tcp_port()
        self.control = Path(cwd) / "control.sock"
        settings = {"SNIFFER_WORKERS": str(workers), "SNIFFER_CONTROL_SOCKET": str(self.control)}
        options = ("--rules", "include debug", "--metrics", f"127.0.0.1:{self.metrics_port}", *arguments)
        super().__init__(*options, cwd=cwd, env={**settings, **(env or {})}, **more)
        self.cwd = cwd

    def __enter__(self):
        super().__enter__()
        try:
            self.wait_until(lambda: self.health() == 200)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *error) -> None:
        pids = self.pids()
        super().__exit__(*error)
        for pid in pids:  # they end by themselves, unless something is wrong
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)

    def pids(self) -> list[int]:
        """Of the workers, the latest one of each."""
        found = re.findall(r"worker (\d+): process (\d+)", self.log)
        return [int(pid) for _, pid in sorted({int(number): pid for number, pid in found}.items())]

    def wait_until(self, is_so, timeout_s=20) -> None:
        end_s = time.monotonic() + timeout_s
        while not is_so():
            assert time.monotonic() < end_s, self.log
            time.sleep(0.05)

    def fetch(self, path: str) -> tuple[int, str]:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.metrics_port}{path}", timeout=5) as got:
                return got.status, got.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()
        except OSError:
            return 0, ""

    def health(self) -> int:
        return self.fetch("/healthz")[0]

    def metric(self, name: str) -> float:
        found = re.search(rf"^{re.escape(name)} (\S+)$", self.fetch("/metrics")[1], re.MULTILINE)
        return float(found[1]) if found else 0.0

    def tell(self, *words):
        return vxsniff(*words, cwd=self.cwd, env={"SNIFFER_CONTROL_SOCKET": str(self.control)})


def call(path, port=40000, vni=7):
    frames = talk((CLIENT, get(path)), (SERVER, answer(b"x")), client=Endpoint("10.0.0.1", port))
    return [in_vxlan(frame, vni) for frame in frames]


def calls(prefix, ports=CONNECTIONS):
    return {f"{prefix}{port}": call(f"{prefix}{port}", port) for port in ports}


def together(some) -> list[bytes]:
    """Their datagrams, one of each call in turn."""
    return [datagram for row in zip(*some.values(), strict=True) for datagram in row]


def paths_of(lines) -> list[str]:
    return sorted(dict(json.loads(line))["request_url"].removeprefix("http://shop.example") for line in lines)


def test_connections_are_shared_out_whole_and_one_ledger_sums_it_up(tmp_path):
    sent = calls("/a")
    with Collector() as collector, Crew("--url", collector.url, cwd=tmp_path, workers=3) as crew:
        crew.send(together(sent))
        assert collector.wait_for(len(sent))
        crew.wait_until(lambda: crew.metric('vxsniff_deliveries_ended_total{outcome="accepted"}') == len(sent))
        assert crew.metric("vxsniff_calls_total") == len(sent)
        status = crew.tell("status").stdout.decode()
        assert crew.stop() == 0
    assert paths_of(collector.lines) == sorted(sent)
    assert "3 workers\ncapturing: VXLAN on UDP" in status
    shares = [int(count) for count in re.findall(r"worker \d: process \d+, [\d,]+ frames, (\d+) calls", status)]
    assert sum(shares) == len(sent)
    assert min(shares) > 0
    assert in_ledger(crew.log, "frames") + in_ledger(crew.log, "kernel_filtered") == len(together(sent))
    assert in_ledger(crew.log, "answered") == in_ledger(crew.log, "accepted") == len(sent)
    assert in_ledger(crew.log, "kernel_dropped") == in_ledger(crew.log, "lost_bytes") == 0
    assert crew.log.count("ledger\n") == 1
    assert "does not close" not in crew.log


def test_what_lies_in_the_socket_of_a_killed_worker_is_delivered_by_the_next_one(tmp_path):
    before, behind = calls("/before"), calls("/behind", range(30_000, 30_040))
    with Collector() as collector, Crew("--url", collector.url, cwd=tmp_path) as crew:
        crew.send(together(before))
        assert collector.wait_for(len(before))
        crew.wait_until(lambda: crew.metric('vxsniff_deliveries_ended_total{outcome="accepted"}') == len(before))
        first, second = crew.pids()
        os.kill(second, signal.SIGSTOP)
        crew.send(together(behind))
        os.kill(second, signal.SIGKILL)
        assert collector.wait_for(len(before) + len(behind))
        crew.wait_until(lambda: crew.health() == 200)
        assert crew.pids()[0] == first
        assert crew.pids()[1] != second
        assert crew.metric("vxsniff_worker_restarts_total") == 1
        assert crew.metric("vxsniff_calls_total") >= len(before), "what the dead one counted is not forgotten"
        crew.stop()
    assert paths_of(collector.lines) == sorted([*before, *behind])
    assert f"worker 1 (process {second}) has died: by SIGKILL" in crew.log
    assert in_ledger(crew.log, "accepted") == len(before) + len(behind)
    assert "does not close" not in crew.log


def test_what_was_open_in_a_killed_worker_is_named_in_the_ledger(tmp_path):
    with Collector() as collector, Crew("--url", collector.url, cwd=tmp_path) as crew:
        for port in range(20_000, 20_020):
            crew.send(call("/open", port)[:5])  # no response
        crew.wait_until(lambda: crew.metric('vxsniff_requests_open{state="open"}') == 20)
        for pid in crew.pids():
            os.kill(pid, signal.SIGKILL)
        crew.wait_until(lambda: crew.metric('vxsniff_requests_ended_total{outcome="crashed"}') == 20)
        crew.wait_until(lambda: crew.health() == 200)
        assert crew.stop() == 0
    assert in_ledger(crew.log, "crashed") == 20
    assert in_ledger(crew.log, "worker_restarts") == 2
    assert "does not close" not in crew.log


def test_a_worker_that_dies_again_and_again_is_started_after_longer_and_longer_pauses(tmp_path):
    with Crew("--url", "calls.ndjson", cwd=tmp_path) as crew:
        for deaths in range(1, 4):
            pid = crew.pids()[0]
            os.kill(pid, signal.SIGKILL)
            crew.wait_until(lambda pid=pid: f"(process {pid}) has died" in crew.log)
            assert crew.health() == 503
            crew.wait_until(lambda deaths=deaths: crew.metric("vxsniff_worker_restarts_total") == deaths)
        crew.stop()
    assert re.findall(r"it is started again in ([\d.]+) s", crew.log) == ["0.5", "1.0", "2.0"]


def test_a_signal_has_all_workers_deliver_what_lies_in_their_sockets(tmp_path):
    sent = calls("/late")
    with Collector() as collector, Crew("--url", collector.url, cwd=tmp_path) as crew:
        for pid in crew.pids():
            os.kill(pid, signal.SIGSTOP)
        crew.send(together(sent))
        crew.process.send_signal(signal.SIGTERM)
        time.sleep(0.3)
        for pid in crew.pids():
            os.kill(pid, signal.SIGCONT)
        assert crew.stop() == 0
    assert paths_of(collector.lines) == sorted(sent)
    assert in_ledger(crew.log, "accepted") == len(sent)


def test_a_signal_while_a_worker_is_dead_delivers_what_lies_in_its_socket(tmp_path):
    sent = calls("/dead")
    with Collector() as collector, Crew("--url", collector.url, cwd=tmp_path) as crew:
        for _ in range(2):  # the second time there is a pause of a second
            pid = crew.pids()[1]
            os.kill(pid, signal.SIGKILL)
            crew.wait_until(lambda pid=pid: f"(process {pid}) has died" in crew.log)
            if _ == 0:
                crew.wait_until(lambda: crew.health() == 200)
        crew.send(together(sent))
        assert crew.stop() == 0
    assert paths_of(collector.lines) == sorted(sent)


def test_what_the_collector_does_not_take_waits_in_a_spool_for_each_worker_and_fewer_workers_take_it_over(tmp_path):
    sent = calls("/spooled")
    url = f"http://127.0.0.1:{free_tcp_port()}/message"
    env = {"SNIFFER_SPOOL_DIR": str(tmp_path / "spool")}
    with Crew("--url", url, cwd=tmp_path, env=env, workers=3) as crew:
        crew.send(together(sent))
        crew.wait_until(lambda: crew.metric("vxsniff_calls_total") == len(sent))
        assert crew.stop() == 0
    assert in_ledger(crew.log, "spooled") == len(sent)
    assert sorted(path.name for path in (tmp_path / "spool").glob("*.sqlite")) == [
        f"spool-{n}.sqlite" for n in range(3)
    ]
    listed = vxsniff("spool", "list", cwd=tmp_path, env=env).stdout.decode()
    assert f"{len(sent)} calls wait" in listed
    shown = [
        vxsniff("spool", "show", name, cwd=tmp_path, env=env) for name in re.findall(r"^(?:\d:)?\d+", listed, re.M)
    ]
    assert paths_of(line for done in shown for line in done.stdout.splitlines()) == sorted(sent)
    with Collector() as collector, Running("--url", collector.url, cwd=tmp_path, env=env) as running:
        assert collector.wait_for(len(sent))
        assert running.stop() == 0
    assert paths_of(collector.lines) == sorted(sent)
    assert in_ledger(running.log, "spool_found") == len(sent)
    assert [path.name for path in (tmp_path / "spool").glob("*.sqlite")] == ["spool-0.sqlite"]


def test_several_workers_write_whole_lines_to_one_file(tmp_path):
    with Crew("--url", "calls.ndjson", "--batch-wait", "10ms", cwd=tmp_path, workers=4) as crew:
        sent = {}
        for turn in range(5):
            sent |= calls(f"/{turn}-", range(20_000 + 100 * turn, 20_050 + 100 * turn))
            crew.send(together({path: sent[path] for path in sent if path.startswith(f"/{turn}-")}))
        assert crew.stop() == 0
    assert paths_of((tmp_path / "calls.ndjson").read_bytes().splitlines()) == sorted(sent)


def test_on_off_and_reload_reach_all_workers(tmp_path):
    (tmp_path / ".env").write_text("SNIFFER_MIRROR_VNIS=7\n")
    with Collector() as collector, Crew("--url", collector.url, cwd=tmp_path) as crew:
        crew.send(together(calls("/one")))
        assert collector.wait_for(40)
        assert crew.tell("off").stdout == b"off: nothing is captured, what was captured is delivered\n"
        assert crew.tell("off").stdout == b"it is off already\n"
        assert crew.health() == 503
        assert b"capturing: nothing, it is switched off" in crew.tell("status").stdout
        crew.send(together(calls("/unseen")))
        # One that dies meanwhile does not begin to capture.
        os.kill(crew.pids()[1], signal.SIGKILL)
        crew.wait_until(lambda: crew.metric("vxsniff_worker_restarts_total") == 1)
        crew.send(together(calls("/unseen")))
        assert b"on: capturing VXLAN on UDP" in crew.tell("on").stdout
        crew.wait_until(lambda: crew.health() == 200)
        crew.send(together(calls("/two")))
        assert collector.wait_for(80)
        (tmp_path / ".env").write_text("SNIFFER_MIRROR_VNIS=8\n")
        assert crew.tell("reload").stdout == b"SNIFFER_MIRROR_VNIS is now 8\n"
        crew.send(together({str(port): call("/other", port, vni=7) for port in range(30_000, 30_040)}))
        crew.send(together({str(port): call("/three", port, vni=8) for port in range(40_000, 40_040)}))
        assert collector.wait_for(120)
        (tmp_path / ".env").write_text("SNIFFER_MIRROR_VNIS=none\n")
        refused = crew.tell("reload")
        assert refused.returncode == 2
        assert b"refused, all stays as it was" in refused.stderr
        (tmp_path / ".env").write_text("SNIFFER_MIRROR_VNIS=9\n")
        crew.process.send_signal(signal.SIGHUP)
        crew.wait_until(lambda: b"VNIs: 9" in crew.tell("status").stdout)
        assert crew.stop() == 0
    assert {re.sub(r"\d", "", path) for path in paths_of(collector.lines)} == {"/one", "/two", "/three"}
    assert (in_ledger(crew.log, "switches"), in_ledger(crew.log, "reloads")) == (2, 2)
    assert in_ledger(crew.log, "kernel_dropped") == 0, "what came while it was off is nobody's loss"


def test_the_doctor_sees_what_all_workers_see(tmp_path):
    with Collector() as collector, Crew("--url", collector.url, "--vnis", "5", cwd=tmp_path) as crew:
        doctor = subprocess.Popen(
            [sys.executable, "-m", "vxsniff", "doctor", "--seconds", "2"],
            cwd=tmp_path,
            env=environment(SNIFFER_CONTROL_SOCKET=str(crew.control)),
            stdout=subprocess.PIPE,
            text=True,
        )
        time.sleep(1.2)
        crew.send(together(calls("/a")))
        said, _ = doctor.communicate(timeout=30)
        crew.stop()
    assert "2 workers" in said
    assert f"{len(together(calls('/a')))} packets came" in said
    assert "none of them is in a VNI that is captured: 5" in said


def test_workers_end_with_a_supervisor_that_was_killed_and_deliver_first(tmp_path):
    sent = calls("/orphan")
    with Collector() as collector, Crew("--url", collector.url, cwd=tmp_path) as crew:
        pids = crew.pids()
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        crew.send(together(sent))
        crew.process.kill()
        crew.process.wait()
        for pid in pids:
            os.kill(pid, signal.SIGCONT)
        assert collector.wait_for(len(sent))
        crew.wait_until(lambda: not any(Path(f"/proc/{pid}/stat").exists() and _is_running(pid) for pid in pids))
    assert paths_of(collector.lines) == sorted(sent)


def _is_running(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


def test_a_second_signal_ends_it_at_once(tmp_path):
    with Collector(statuses=["hang"] * 9) as collector, Crew("--url", collector.url, cwd=tmp_path) as crew:
        crew.send(together(calls("/hangs")))
        crew.wait_until(lambda: collector.requests > 0)
        pids = crew.pids()
        crew.process.send_signal(signal.SIGINT)
        time.sleep(1.2)
        crew.process.send_signal(signal.SIGINT)
        assert crew.process.wait(3) == -signal.SIGINT
        crew.wait_until(lambda: not any(_is_running(pid) for pid in pids), 3)


def test_a_worker_that_was_ended_in_order_is_started_again_and_can_be_told(tmp_path):
    with Crew("--url", "calls.ndjson", cwd=tmp_path) as crew:
        pid = crew.pids()[0]
        os.kill(pid, signal.SIGTERM)
        crew.wait_until(lambda: crew.pids()[0] != pid and crew.health() == 200)
        assert crew.tell("off").stdout.startswith(b"off: ")
        assert crew.tell("on").stdout.startswith(b"on: ")
        assert crew.tell("reload").stdout == b"nothing has changed\n"
        assert b"VNIs: all" in crew.tell("status").stdout
        assert crew.stop() == 0


def test_off_holds_for_a_worker_that_is_being_started(tmp_path):
    with Collector() as collector, Crew("--url", collector.url, cwd=tmp_path) as crew:
        pid = crew.pids()[1]
        os.kill(pid, signal.SIGKILL)
        crew.wait_until(lambda: crew.pids()[1] != pid)
        assert crew.tell("off").returncode == 0
        crew.send(together(calls("/unseen")))
        assert crew.tell("on").returncode == 0
        crew.wait_until(lambda: crew.health() == 200)
        crew.send(together(calls("/seen", range(30_000, 30_040))))
        assert collector.wait_for(40)
        crew.stop()
    assert paths_of(collector.lines) == sorted(calls("/seen", range(30_000, 30_040)))
    assert in_ledger(crew.log, "kernel_dropped") == 0


@pytest.mark.parametrize("later_s", [0.0, 0.02])
def test_a_worker_that_dies_around_the_end_leaves_nothing_in_its_socket(tmp_path, later_s):
    sent = calls("/late")
    with Collector() as collector, Crew("--url", collector.url, cwd=tmp_path) as crew:
        pid = crew.pids()[1]
        os.kill(pid, signal.SIGSTOP)
        crew.send(together(sent))
        if not later_s:
            os.kill(pid, signal.SIGKILL)
        crew.process.send_signal(signal.SIGTERM)
        if later_s:
            time.sleep(later_s)
            os.kill(pid, signal.SIGKILL)
        assert crew.process.wait(15) == 0
    assert paths_of(collector.lines) == sorted(sent)


def test_a_worker_that_is_started_again_has_the_settings_that_hold_not_those_of_the_file(tmp_path):
    (tmp_path / "rules").write_text("include debug")
    (tmp_path / ".env").write_text("SNIFFER_MIRROR_VNIS=7\n")
    rules = {"--rules": f"file://{tmp_path / 'rules'}"}
    with Collector() as collector, Crew("--url", collector.url, *rules.popitem(), cwd=tmp_path) as crew:
        (tmp_path / ".env").write_text("SNIFFER_MIRROR_VNIS=8\nSNIFFER_MIRROR_GENEVEPORT=6081\n")
        (tmp_path / "rules").write_text("/.*/ remove")
        pid = crew.pids()[1]
        os.kill(pid, signal.SIGKILL)
        crew.wait_until(lambda: crew.pids()[1] != pid and crew.health() == 200)
        crew.send(together(calls("/seven")))
        assert collector.wait_for(40)
        said = crew.tell("reload").stdout.decode()
        assert "SNIFFER_MIRROR_VNIS is now 8" in said
        assert "SNIFFER_MIRROR_GENEVEPORT has changed: that takes effect at the next start" in said
        # And after a reload those that were held back still are.
        (tmp_path / ".env").write_text("SNIFFER_MIRROR_VNIS=wrong\n")
        (tmp_path / "rules").write_text("include debug")
        pid = crew.pids()[1]
        os.kill(pid, signal.SIGKILL)
        crew.wait_until(lambda: crew.pids()[1] != pid and crew.health() == 200)
        status = crew.tell("status").stdout.decode()
        crew.stop()
    assert "VNIs: 8" in status
    assert paths_of(collector.lines) == sorted(calls("/seven"))


def test_a_reload_holds_for_what_comes_while_a_worker_is_dead(tmp_path):
    (tmp_path / ".env").write_text("SNIFFER_MIRROR_VNIS=7\n")
    with Collector() as collector, Crew("--url", collector.url, cwd=tmp_path) as crew:
        for _ in range(2):
            pid = crew.pids()[1]
            os.kill(pid, signal.SIGKILL)
            crew.wait_until(lambda pid=pid: f"(process {pid}) has died" in crew.log)
            if not _:
                crew.wait_until(lambda: crew.health() == 200)
        (tmp_path / ".env").write_text("SNIFFER_MIRROR_VNIS=8\n")
        assert crew.tell("reload").returncode == 0
        sent = {f"/eight{port}": call(f"/eight{port}", port, vni=8) for port in CONNECTIONS}
        crew.send(together(sent))
        assert collector.wait_for(len(sent))
        crew.stop()
    assert paths_of(collector.lines) == sorted(sent)


def test_delivery_can_be_switched_off_and_on_again_by_reload_also_past_a_death(tmp_path):
    (tmp_path / ".env").write_text("USAGE_LOGGERS_DISABLE=off\n")
    with Collector() as collector, Crew("--url", collector.url, cwd=tmp_path) as crew:
        (tmp_path / ".env").write_text("USAGE_LOGGERS_DISABLE=on\n")
        assert crew.tell("reload").stdout == b"USAGE_LOGGERS_DISABLE is now on\n"
        pid = crew.pids()[1]
        os.kill(pid, signal.SIGKILL)
        crew.wait_until(lambda: crew.pids()[1] != pid and crew.health() == 200)
        crew.send(together(calls("/disabled")))
        crew.wait_until(lambda: crew.metric('vxsniff_calls_ended_total{outcome="disabled"}') == 40)
        (tmp_path / ".env").write_text("USAGE_LOGGERS_DISABLE=off\n")
        assert crew.tell("reload").stdout == b"USAGE_LOGGERS_DISABLE is now off\n"
        sent = calls("/enabled", range(30_000, 30_040))
        crew.send(together(sent))
        assert collector.wait_for(len(sent))
        crew.stop()
    assert paths_of(collector.lines) == sorted(sent)


def test_a_file_of_vnis_that_is_gone_and_another_engine_in_the_file_kill_no_worker(tmp_path):
    (tmp_path / "vnis").write_text("7")
    with Collector() as collector, Crew("--url", collector.url, "--vnis-file", "vnis", cwd=tmp_path) as crew:
        (tmp_path / "vnis").unlink()
        (tmp_path / ".env").write_text("SNIFFER_READ=x.pcap\n")
        assert crew.tell("reload").returncode == 2  # the list can't be read
        (tmp_path / "vnis").write_text("7")
        said = crew.tell("reload").stdout.decode()
        assert said.count("SNIFFER_ENGINE has changed: that takes effect at the next start") == 1
        (tmp_path / "vnis").unlink()
        pid = crew.pids()[1]
        os.kill(pid, signal.SIGKILL)
        crew.wait_until(lambda: crew.pids()[1] != pid and crew.health() == 200)
        sent = calls("/seven")
        crew.send(together({**sent, **{path: call("/other", vni=8) for path in ("a", "b")}}))
        assert collector.wait_for(len(sent))
        crew.stop()
    assert paths_of(collector.lines) == sorted(sent)
    assert in_ledger(crew.log, "worker_restarts") == 1


def test_the_reader_of_a_pipe_stays(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with open(tmp_path / "out", "wb") as out:
        reader = subprocess.Popen(["cat", "pipe"], cwd=tmp_path, stdout=out)
        with Crew("--url", "pipe", cwd=tmp_path) as crew:
            sent = calls("/piped")
            crew.send(together(sent))
            crew.wait_until(lambda: crew.metric('vxsniff_deliveries_ended_total{outcome="accepted"}') == len(sent))
            assert crew.stop() == 0
        assert reader.wait(5) == 0
    assert paths_of((tmp_path / "out").read_bytes().splitlines()) == sorted(sent)


def test_off_while_a_worker_is_dead_delivers_what_lies_in_its_socket(tmp_path):
    sent = calls("/before-off")
    with Collector() as collector, Crew("--url", collector.url, cwd=tmp_path) as crew:
        for turn in range(2):
            pid = crew.pids()[1]
            os.kill(pid, signal.SIGKILL)
            crew.wait_until(lambda pid=pid: f"(process {pid}) has died" in crew.log)
            if not turn:
                crew.wait_until(lambda: crew.health() == 200)
        crew.send(together(sent))
        assert crew.tell("off").returncode == 0
        crew.send(together(calls("/unseen", range(30_000, 30_040))))
        assert collector.wait_for(len(sent))
        assert crew.stop() == 0
    assert paths_of(collector.lines) == sorted(sent)


def test_signals_at_the_very_end_do_not_cost_the_ledger(tmp_path):
    with Crew("--url", "calls.ndjson", cwd=tmp_path) as crew:
        crew.process.send_signal(signal.SIGTERM)
        end_s = time.monotonic() + 0.9  # later ones mean: at once
        while crew.process.poll() is None and time.monotonic() < end_s:
            crew.process.send_signal(signal.SIGTERM)
            time.sleep(0.001)
        crew.process.wait(15)
        crew.wait_for_log("ledger\n")


def test_where_one_worker_hangs_the_others_still_answer(tmp_path):
    with Crew("--url", "calls.ndjson", cwd=tmp_path) as crew:
        os.kill(crew.pids()[0], signal.SIGSTOP)
        status = crew.tell("status").stdout.decode()
        assert "VNIs: all" in status
        assert "worker 0: process" in status
        # While a reload waits for it others are started again, and a signal need not wait.
        crew.process.send_signal(signal.SIGHUP)
        time.sleep(0.3)
        os.kill(crew.pids()[0], signal.SIGKILL)
        started_s = time.monotonic()
        assert crew.stop() == 0
        assert time.monotonic() - started_s < 7


def test_a_doctor_survives_the_death_of_a_worker(tmp_path):
    with Crew("--url", "calls.ndjson", cwd=tmp_path) as crew:
        doctor = subprocess.Popen(
            [sys.executable, "-m", "vxsniff", "doctor", "--seconds", "3"],
            cwd=tmp_path,
            env=environment(SNIFFER_CONTROL_SOCKET=str(crew.control)),
            stdout=subprocess.PIPE,
            text=True,
        )
        time.sleep(1.5)
        os.kill(crew.pids()[0], signal.SIGKILL)
        said, _ = doctor.communicate(timeout=30)
        assert "1 workers" in said
        crew.stop()


def test_switches_that_come_at_once_leave_all_workers_alike(tmp_path):
    with Crew("--url", "calls.ndjson", cwd=tmp_path) as crew:
        for _ in range(3):
            words = ("off", "on")
            with ThreadPoolExecutor(2) as pool:
                assert all(done.returncode == 0 for done in pool.map(crew.tell, words))
        is_on = crew.metric("vxsniff_capturing") == 1
        crew.wait_until(lambda: crew.health() == (200 if is_on else 503))
        assert crew.tell("on").returncode == 0
        crew.wait_until(lambda: crew.health() == 200)
        crew.stop()


def test_with_standard_input_closed_all_workers_run(tmp_path):
    closed = ("sh", "-c", 'exec "$@" 0<&-', "sh")
    with Crew("--url", "calls.ndjson", cwd=tmp_path, prefix=closed) as crew:
        assert crew.stop() == 0
    assert in_ledger(crew.log, "worker_restarts") == 0


def test_an_interpreter_that_is_gone_for_a_while_is_tried_again(tmp_path, monkeypatch):
    link = tmp_path / "python"
    link.symlink_to(sys.executable)
    monkeypatch.setattr(Crew, "command", (str(link), "-m", "vxsniff"))
    with Crew("--url", "calls.ndjson", cwd=tmp_path, env={"PYTHONPATH": os.pathsep.join(sys.path)}) as crew:
        link.rename(tmp_path / "away")
        os.kill(crew.pids()[0], signal.SIGKILL)
        crew.wait_until(lambda: crew.log.count("worker 0 can't be started: No such file or directory") == 2)
        (tmp_path / "away").rename(link)
        crew.wait_until(lambda: crew.health() == 200)
        assert crew.stop() == 0


def test_a_worker_that_hangs_for_long_is_killed_and_started_again(tmp_path, monkeypatch, caplog):
    """In this process, to hang for a shorter time than HUNG_S."""
    monkeypatch.setattr(supervisor, "HUNG_S", 2.0)
    caplog.set_level("INFO")
    options = ["--workers", "2", "--port", str(free_udp_port()), "--url", str(tmp_path / "calls"), "--metrics", "off"]
    flags = {
        "SNIFFER_WORKERS": "2",
        "SNIFFER_MIRROR_VXLANPORT": options[3],
        "USAGE_LOGGERS_URL": options[5],
        "SNIFFER_METRICS_ADDRESS": "off",
        "SNIFFER_CONTROL_SOCKET": "off",
    }

    def pids():
        return re.findall(r"worker \d: process (\d+)", caplog.text)

    def halt_one():
        end_s = time.monotonic() + 30
        while len(pids()) < 2 and time.monotonic() < end_s:
            time.sleep(0.05)
        time.sleep(1.0)
        os.kill(int(pids()[0]), signal.SIGSTOP)
        while len(pids()) < 3 and time.monotonic() < end_s:
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=halt_one).start()
    command = [sys.executable, "-m", "vxsniff", *options, "--control", "off"]
    crew = supervisor.Supervisor(resolve(flags, {}, {}), lambda inputs: resolve(flags, {}, {}), command)
    assert crew.run() == 0
    assert f"worker 0 (process {pids()[0]}) hangs: it is killed" in caplog.text
    assert len(pids()) == 3


@pytest.mark.parametrize("url", ["/nonexistent/folder/calls", "https://.example/"])
def test_a_place_that_calls_can_not_go_to_stops_the_start(tmp_path, url):
    done = vxsniff("--workers", "2", "--url", url, "--port", "0", "--metrics", "off", cwd=tmp_path, timeout=20)
    assert done.returncode == 2
    assert done.stderr.count(b"\n") == 1


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--workers", "0"), "--workers: '0' is no number of workers: use 1 to 64, or auto"),
        (("--workers", "many"), "--workers: 'many' is no number of workers"),
        (("--workers", "2", "--url", "-"), "--workers: several workers can't share standard output: give --url"),
        (("--workers", "2", "--debug", "--verbosity", "2"), "--workers: several workers can't share standard output"),
        (("--workers", "2", "--device", "lo"), "--workers: the engine libpcap has one worker"),
    ],
)
def test_what_several_workers_can_not_do_is_one_clear_line(tmp_path, options, said):
    done = vxsniff(*options, cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.decode().startswith(f"vxsniff: {said}")
    assert done.stderr.count(b"\n") == 1


def test_a_port_in_use_is_one_clear_line_also_when_its_user_shares_it(tmp_path):
    with Crew("--url", "calls.ndjson", cwd=tmp_path) as crew:
        for workers in ("1", "2"):
            done = vxsniff("--port", str(crew.port), "--workers", workers, "--metrics", "off", cwd=tmp_path)
            assert done.returncode == 3
            assert f"UDP port {crew.port} is in use" in done.stderr.decode()


def test_auto_is_a_worker_for_each_processor_and_one_where_there_can_be_only_one(tmp_path):
    processors = len(os.sched_getaffinity(0))
    with Crew("--url", "calls.ndjson", cwd=tmp_path, workers="auto") as crew:
        assert len(crew.pids()) == (processors if processors > 1 else 0)
    done = vxsniff("--workers", "auto", "--url", "-", "--read", "-", cwd=tmp_path, stdin=b"")
    assert b"workers" not in done.stderr
