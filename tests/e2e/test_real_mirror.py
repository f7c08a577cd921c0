"""The main job on a real mirror: the kernel copies and encapsulates, vxsniff receives, a collector gets each call."""

import json
import random
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.builders import EPOCH_NS, Play
from tests.capture.test_file import pcap_bytes
from tests.e2e.lab import Lab
from tests.e2e.program import Running, in_ledger, udp_payloads
from vxsniff.capture.file import Frame, read_frames
from vxsniff.http.body import Media, to_text

pytestmark = [pytest.mark.root, pytest.mark.timeout(180)]

HERE = Path(__file__).parent
ROUNDS = 8


class Run:
    """One run of the lab: what the clients and servers logged, what the collector got, what vxsniff said."""

    def __init__(self, folder: Path, *, both_ends: bool = False, lose: int = 0, options=()) -> None:
        with Lab(folder, both_ends) as lab:
            lab.start_nginx()
            lab.start("s", sys.executable, str(HERE / "origin.py"), "8001", str(folder / "origin.log"))
            lab.wait_for_port("s", 8001)
            pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
            collector = lab.start(
                "t", sys.executable, str(HERE / "collector.py"), "7701", str(folder / "calls.ndjson"), **pipes
            )
            assert collector.stdout.readline() == "ready\n"
            # The target's own capture, to be read as a file afterwards.
            dump = lab.start(
                *("t", "tcpdump", "-i", "any", "-w", str(folder / "mirror.pcap"), "-U", "-s", "10000", "-B", "65536"),
                *("udp", "port", "4789"),
                stderr=subprocess.PIPE,
            )
            while b"listening" not in dump.stderr.readline():
                assert dump.poll() is None
            if lose:
                lab.lose(lose)
            before, _ = lab.mirrored_and_lost()
            sniff = lab.start(
                *("t", sys.executable, "-m", "vxsniff", "--vnis", "123,124", "--rules", "include debug", *options),
                stderr=subprocess.PIPE,
                text=True,
                cwd=folder,
            )
            self.log = []
            while " metrics: " not in (line := sniff.stderr.readline()):
                assert line, self.log
                self.log.append(line)
            while "receive buffer" not in (line := sniff.stderr.readline()):
                assert line, self.log
            ready, _ = lab.mirrored_and_lost()
            self.connections = 0
            first = 1000
            for _ in range(2):
                for host in ("10.99.0.2", "fd99::2"):
                    command = [
                        str(HERE / "clients.py"),
                        host,
                        "80",
                        "8001",
                        str(first),
                        str(folder / "clients.log"),
                        str(ROUNDS // 2),
                    ]
                    self.connections += int(lab.run(*lab.within("c", sys.executable, *command)))
                    first += 1000
            time.sleep(1.0)
            self.metrics = lab.run(*lab.within("t", "curl", "-sS", "http://127.0.0.1:9478/metrics"))
            self.health = lab.run(*lab.within("t", "curl", "-sS", "http://127.0.0.1:9478/healthz"))
            mirrored, self.lost = lab.mirrored_and_lost()
            # The neighbours' chatter was mirrored before vxsniff listened, and while it began to.
            self.mirrored = range(mirrored - ready, mirrored - before + 1)
            started_s = time.monotonic()
            sniff.send_signal(signal.SIGTERM)
            self.ledger_text = sniff.stderr.read()
            self.status = sniff.wait(20)
            assert "does not close" not in self.ledger_text
            self.end_s = time.monotonic() - started_s
            dump.send_signal(signal.SIGINT)
            said = dump.stderr.read().decode()
            dump.wait(20)
            assert "\n0 packets dropped by kernel" in said, said
            collector.stdin.close()
            self.complaints = json.loads(collector.stdout.readline())["complaints"]
        self.client = {entry["call"]: entry for entry in _entries(folder / "clients.log")}
        self.origin = {entry["call"]: entry for entry in _entries(folder / "origin.log")}
        self.nginx = {entry["call"]: entry for entry in _entries(folder / "nginx.log")}
        path = folder / "calls.ndjson"
        self.lines = path.read_bytes().splitlines() if path.exists() else []
        self.calls = [json.loads(line) for line in self.lines]
        self.pcap = folder / "mirror.pcap"

    def ledger(self, name: str, part: str = "") -> int:
        """A number of the printed ledger: the total of an equation, or one of its parts; a fact."""
        if not part:
            return in_ledger(self.ledger_text, name)
        section = re.search(rf"^  {name} .*\n((?:    .*\n)*)", self.ledger_text, re.MULTILINE)
        return in_ledger("ledger\n" + section[1], part) if section else 0


def _entries(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def values(call: list[list[str]], name: str) -> list[str]:
    return [value for key, value in call if key == name]


def number_of(call) -> str:
    return values(call, "request_param:call")[0]


def check_call(run: Run, call) -> None:
    """A shipped call says what its client sent and got, and what its server got and sent."""
    number = number_of(call)
    client = run.client[number]
    fields = dict(map(tuple, call))
    assert fields["request_method"] == client["method"]
    assert fields["response_code"] == str(client["status"])
    parts = urlsplit(client["url"])
    assert fields["request_url"] == f"http://{parts.netloc}{parts.path}"
    # The server echoes the call's number: a wrong pair can't hide.
    if client["status"] != 304 or "response_header:x-call" in fields:
        assert values(call, "response_header:x-call") == [number]
    received = [[name.lower(), value] for name, value in client["headers"] if value]
    assert [[n.removeprefix("response_header:"), v] for n, v in call if n.startswith("response_header:")] == received
    shipped_request_headers = [
        [n.removeprefix("request_header:"), v] for n, v in call if n.startswith("request_header:")
    ]
    if "sent_headers" in client:
        assert shipped_request_headers == [[n.lower(), v] for n, v in client["sent_headers"]]
        assert "".join(values(call, "request_body")) == client["sent_body"]
    content_type = "".join(v for n, v in received if n == "content-type").encode()
    server = run.origin.get(number)
    via_nginx = ":8001/" not in client["url"]
    if server is not None and not via_nginx:
        assert shipped_request_headers == [[n, v] for n, v in server["headers"] if v]
    if server is not None:
        if client["status"] != 413:  # that one was answered before its body was read
            assert "".join(values(call, "request_body")) == server["body"].encode("latin-1").decode()
        answer = server["answer"].encode("latin-1")
    else:
        assert run.nginx[number]["status"] == client["status"]
        answer = client["body"].encode("latin-1")
    if client["method"] == "HEAD":
        answer = b""
    assert "".join(values(call, "response_body")) == (to_text(answer, Media(b"", content_type), True) or "")


def without_times(lines) -> Counter:
    return Counter(json.dumps([p for p in json.loads(line) if p[0] not in ("now", "interval")]) for line in lines)


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    return Run(tmp_path_factory.mktemp("plain"))


def test_every_call_arrives_once_and_right(plain):
    assert plain.status == 0
    assert plain.complaints == []
    assert len(plain.client) >= 500
    assert plain.connections >= 20
    assert Counter(number_of(call) for call in plain.calls) == Counter(dict.fromkeys(plain.client, 1))
    for call in plain.calls:
        check_call(plain, call)
        assert values(call, "custom_field:capture") == []
    assert {urlsplit(values(call, "request_url")[0]).hostname for call in plain.calls} == {"10.99.0.2", "fd99::2"}


def test_the_ledger_of_a_perfect_run_names_no_loss(plain):
    assert plain.ledger("frames") + plain.ledger("kernel_filtered") in plain.mirrored
    assert plain.ledger("deliveries", "accepted") == len(plain.client)
    for fact in ("kernel_dropped", "lost_bytes", "cut_bytes", "skipped_bytes", "heads_invalid", "errors"):
        assert plain.ledger(fact) == 0, fact
    for part in ("orphan", "ambiguous"):
        assert plain.ledger("responses", part) == 0
    for part in ("unanswered", "response_lost"):
        assert plain.ledger("requests", part) == 0
    assert plain.health == "ok\n"
    assert f"vxsniff_calls_total {float(len(plain.client))}" in plain.metrics


def test_a_signal_ends_the_run_within_ten_seconds(plain):
    assert plain.end_s < 10


def split_by_target(pcap: Path, folder: Path) -> list[Path]:
    """One capture file for each address that mirrored packets were sent to."""
    frames: dict[bytes, list[Frame]] = {}
    with open(pcap, "rb") as file:
        for frame in read_frames(file):
            frames.setdefault(frame.data[20 + 16 : 20 + 20], []).append(frame)
    paths = []
    for number, (_, ones) in enumerate(sorted(frames.items())):
        path = folder / f"end-{number}.pcap"
        path.write_bytes(pcap_bytes(link_type=ones[0].link_type, frames=[(one.ts_ns, one.data) for one in ones]))
        paths.append(path)
    return paths


def read_back(pcaps: list[Path], folder: Path, *options: str) -> list[bytes]:
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "vxsniff",
            "--read",
            *map(str, pcaps),
            "--url",
            "-",
            "--rules",
            "include debug",
            *options,
        ],
        capture_output=True,
        cwd=folder,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout.splitlines()


def test_a_captured_run_read_as_a_file_gives_the_same_lines(plain, tmp_path):
    assert without_times(read_back([plain.pcap], tmp_path)) == without_times(plain.lines)


def test_a_captured_run_sent_again_over_udp_gives_the_same_lines(plain, tmp_path):
    with Running("--url", "calls.ndjson", "--rules", "include debug", cwd=tmp_path) as running:
        running.send(udp_payloads(plain.pcap))
        assert running.stop() == 0
    assert in_ledger(running.log, "kernel_dropped") == 0
    again = (tmp_path / "calls.ndjson").read_bytes().splitlines()
    assert without_times(again) == without_times(plain.lines)


@pytest.mark.parametrize("share", [0.005, 0.02, 0.1, 0.3])
def test_whichever_packets_of_a_captured_run_are_lost_no_pair_is_wrong(plain, share):
    datagrams = list(udp_payloads(plain.pcap))
    shipped = 0
    for seed in range(25):
        draw = random.Random(seed)
        play = Play(call_ids=True)
        for number, datagram in enumerate(datagrams):
            if draw.random() >= share:
                play.pipeline.vxlan_datagram(datagram, EPOCH_NS + number * 200_000)
        play.pipeline.finish()
        shipped += len(play.lines)
        for line in play.lines:
            call = json.loads(line)
            answered = values(call, "response_header:x-call")
            assert answered in ([], values(call, "request_param:call")), "a wrong pair"
    # A call takes some ten packets; most that lost none of theirs are there.
    assert shipped > 25 * len(plain.lines) * (1 - share) ** 12


def test_a_run_mirrored_at_both_ends_gives_each_call_once(tmp_path):
    run = Run(tmp_path, both_ends=True)
    assert Counter(number_of(call) for call in run.calls) == Counter(dict.fromkeys(run.client, 1))
    for call in run.calls:
        check_call(run, call)
    assert run.ledger("flows_joined") >= run.connections
    assert run.ledger("frames") + run.ledger("kernel_filtered") in run.mirrored
    # Read back from one file, and from one file for each end, whatever their order on the command line.
    assert without_times(read_back([run.pcap], tmp_path)) == without_times(run.lines)
    ends = split_by_target(run.pcap, tmp_path)
    assert len(ends) == 2
    assert without_times(read_back(ends, tmp_path)) == without_times(run.lines)
    assert read_back(ends[::-1], tmp_path) == read_back(ends, tmp_path)
    copies = [json.loads(line) for line in read_back([run.pcap], tmp_path, "--no-dedup")]
    assert Counter(map(number_of, copies)) == Counter(dict.fromkeys(run.client, 2))
    ids = Counter((number_of(call), *values(call, "custom_field:call_id")) for call in copies)
    assert set(ids.values()) == {2}, "both captures of a call give it the same id"
    assert len({call_id for _, call_id in ids}) == len(run.client)


@pytest.mark.interpreted
def test_several_workers_share_a_run_mirrored_at_both_ends_and_each_call_comes_once(tmp_path):
    run = Run(tmp_path, both_ends=True, options=("--workers", "3"))
    assert run.status == 0
    assert Counter(number_of(call) for call in run.calls) == Counter(dict.fromkeys(run.client, 1))
    for call in run.calls:
        check_call(run, call)
        assert values(call, "custom_field:capture") == []
    assert run.ledger("flows_joined") >= run.connections, "both captures of a connection went to one worker"
    assert run.ledger("frames") + run.ledger("kernel_filtered") in run.mirrored
    assert run.ledger("deliveries", "accepted") == len(run.client)
    for fact in ("kernel_dropped", "lost_bytes", "skipped_bytes", "errors", "worker_restarts"):
        assert run.ledger(fact) == 0, fact
    assert run.health == "ok\n"
    assert f"vxsniff_calls_total {float(len(run.client))}" in run.metrics
    assert "vxsniff_workers 3.0" in run.metrics
    assert run.end_s < 10
    assert without_times(read_back([run.pcap], tmp_path)) == without_times(run.lines)


def test_lost_packets_give_no_wrong_pair_and_no_wrong_body_and_the_ledger_names_them(tmp_path):
    run = Run(tmp_path, lose=2)
    assert run.lost > 50
    assert run.ledger("frames") + run.ledger("kernel_filtered") + run.lost in run.mirrored
    seen = Counter(number_of(call) for call in run.calls if values(call, "request_param:call"))
    assert max(seen.values()) == 1
    whole = 0
    for call in run.calls:
        fields = dict(map(tuple, call))
        number = fields["request_param:call"]
        client = run.client[number]
        assert fields["response_code"] == str(client["status"])
        assert values(call, "response_header:x-call") in ([number], []), "a wrong pair"
        if "custom_field:capture" not in fields:
            check_call(run, call)
            whole += 1
            continue
        if "response_body" in fields and "response_header:content-type" in fields:
            content_type = fields["response_header:content-type"].encode()
            answer = run.origin[number]["answer"] if number in run.origin else client["body"]
            assert fields["response_body"] == to_text(answer.encode("latin-1"), Media(b"", content_type), True)
    # Most calls came through unharmed, and what did not is in the ledger.
    assert whole > len(run.client) * 0.6
    assert run.ledger("lost_bytes") > 0
    missing = len(run.client) - len(run.calls)
    named = run.ledger("requests", "unanswered") + run.ledger("requests", "response_lost")
    named += run.ledger("responses", "orphan") + run.ledger("responses", "ambiguous")
    assert 0 < missing <= named + run.ledger("holes")
    assert run.ledger("requests") == run.ledger("requests", "answered") + run.ledger(
        "requests", "unanswered"
    ) + run.ledger("requests", "response_lost")
