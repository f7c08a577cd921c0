"""Copies for debugging: what is shipped, after the rules, never what came."""

import gzip
import json

import pytest

from tests.builders import CLIENT, SERVER, answer, in_vxlan, post, talk
from tests.e2e.collector import Collector
from tests.e2e.program import Running, in_ledger

FRAMES = talk((CLIENT, post("/a", b"my secret")), (SERVER, answer(b"fine")))
DATAGRAMS = [in_vxlan(frame, 7) for frame in FRAMES]
RULES = "include debug\n/request_body/ replace /secret/, /-/"


def run(tmp_path, *options, env=None):
    with Running("--url", "calls.ndjson", "--rules", RULES, *options, cwd=tmp_path, env=env) as running:
        running.send(DATAGRAMS)
        assert running.stop() == 0
        out = running.process.stdout.read()
    shipped = (tmp_path / "calls.ndjson").read_text()
    assert "my -" in shipped
    assert "secret" not in shipped + out + running.log
    return running, shipped, out


def test_local_is_a_gzip_file_a_day(tmp_path):
    env = {"SNIFFER_DEBUG_ENABLED": "true", "SNIFFER_DEBUG_EXPORT": "local"}
    for _ in range(2):
        running, shipped, out = run(tmp_path, env=env)
        assert in_ledger(running.log, "debug_copied") == 1
    (path,) = tmp_path.glob("20??-??-??.gz")
    assert gzip.decompress(path.read_bytes()).decode() == shipped  # both runs', one member each
    assert path.stat().st_mode & 0o777 == 0o600
    assert out == ""


def test_http_is_a_second_collector(tmp_path):
    with Collector() as collector:
        env = {"SNIFFER_DEBUG_EXPORT": "http", "SNIFFER_DEBUG_HTTP_ENDPOINT": collector.url}
        _, shipped, _ = run(tmp_path, "--debug", env=env)
        assert collector.wait_for(1)
    assert [json.loads(line) for line in collector.lines] == [json.loads(shipped)]


def test_from_verbosity_2_on_calls_are_printed_too(tmp_path):
    _, shipped, out = run(tmp_path, "--debug", "--verbosity", "2")
    assert out == shipped


@pytest.mark.parametrize(
    "options", [("--debug", "--verbosity", "1"), ("--verbosity", "2"), ("--debug-export", "local")]
)
def test_without_debug_or_verbosity_there_is_no_copy(tmp_path, options):
    running, _, out = run(tmp_path, *options)
    assert out == ""
    assert not list(tmp_path.glob("*.gz"))
    assert "a copy of each call" not in running.log


def test_an_endpoint_that_is_down_keeps_nothing_waiting(tmp_path):
    env = {"SNIFFER_DEBUG_EXPORT": "http", "SNIFFER_DEBUG_HTTP_ENDPOINT": "http://127.0.0.1:9/x"}
    running, _, _ = run(tmp_path, "--debug", env=env)
    assert in_ledger(running.log, "accepted") == 1
    assert in_ledger(running.log, "debug_lost") == 1
