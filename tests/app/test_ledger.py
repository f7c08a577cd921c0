"""The ledger: sums that close, for people and for Prometheus."""

import urllib.error
import urllib.request

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.builders import CLIENT, SERVER, Endpoint, Play, answer, get, post, talk
from vxsniff.app import ledger
from vxsniff.app.ledger import Entry, Equation, Ledger
from vxsniff.app.metrics import MetricsServer, ask_health
from vxsniff.delivery.queue import BatchQueue


@pytest.fixture
def taken():
    play = Play(rules="include debug\n/request_url/ stop_if_found /stop/")
    play.frames(talk((CLIENT, get("/a")), (SERVER, answer(b"x")), (CLIENT, get("/stop")), (SERVER, answer())))
    play.frames([b"\0" * 60, b""])
    play.frames(talk((CLIENT, post("/unanswered", b"body")), client=Endpoint("10.0.0.7", 1), close=False))
    queue = BatchQueue()
    for line in play.lines:
        queue.add(line)
    return ledger.take(play.pipeline, queue, 3)


def equation(taken, name):
    (found,) = [e for e in taken.equations if e.name == name]
    return {part.name: part.value for part in found.parts if part.value}, found.total


def test_every_equation_closes_and_names_what_became_of_its_parts(taken):
    assert taken.closes
    assert equation(taken, "calls") == ({"shipped": 1, "stopped": 1}, 2)
    assert equation(taken, "deliveries") == ({"waiting": 1}, 1)
    assert equation(taken, "requests") == ({"answered": 2, "open": 1}, 3)
    assert equation(taken, "responses") == ({"answering": 2}, 2)
    parts, total = equation(taken, "frames")
    assert sum(parts.values()) == total
    assert parts["frame_short"] == 1


def test_a_ledger_that_does_not_close_says_so():
    broken = Ledger((Equation("x", 5, "", (Entry("a", 2, ""), Entry("b", 2, ""))),), ())
    assert not broken.closes


def test_the_text_shows_totals_and_what_is_not_zero(taken):
    text = taken.as_text()
    assert "kernel_dropped" in text
    assert "shipped" in text
    assert "sampled_out" not in text
    assert all(len(line) < 140 for line in text.splitlines())


def test_names_are_unique(taken):
    names = [e.name for e in taken.equations] + [f.name for f in taken.facts]
    assert len(set(names)) == len(names)


def fetch(server, path, accept="*/*"):
    request = urllib.request.Request(f"http://127.0.0.1:{server.address[1]}{path}", headers={"Accept": accept})
    with urllib.request.urlopen(request, timeout=5) as answer:
        return answer.status, answer.headers["Content-Type"], answer.read().decode()


def test_metrics_and_health_are_served(taken):
    healthy = [True]
    server = MetricsServer("127.0.0.1", 0, lambda: taken, lambda: healthy[0])
    try:
        status, _, text = fetch(server, "/metrics")
        assert status == 200
        samples = {
            (sample.name, tuple(sample.labels.values())): sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        }
        assert samples["vxsniff_calls_total", ()] == 2
        assert samples["vxsniff_calls_ended_total", ("stopped",)] == 1
        assert samples["vxsniff_deliveries_open", ("waiting",)] == 1
        assert samples["vxsniff_kernel_dropped_total", ()] == 3
        for equation in taken.equations:
            ended = sum(value for (name, _), value in samples.items() if name == f"vxsniff_{equation.name}_ended_total")
            still_open = sum(value for (name, _), value in samples.items() if name == f"vxsniff_{equation.name}_open")
            assert samples[f"vxsniff_{equation.name}_total", ()] == ended + still_open
        assert "openmetrics" in fetch(server, "/metrics", "application/openmetrics-text")[1]
        assert fetch(server, "/healthz")[2] == "ok\n"
        assert ask_health("0.0.0.0", server.address[1]) == (True, "ok")
        healthy[0] = False
        assert ask_health("127.0.0.1", server.address[1]) == (False, "not capturing")
        with pytest.raises(urllib.error.HTTPError, match="503"):
            fetch(server, "/healthz")
        with pytest.raises(urllib.error.HTTPError, match="404"):
            fetch(server, "/other")
    finally:
        server.close()
    refused = ask_health("127.0.0.1", server.address[1])
    assert refused == (False, f"no answer at 127.0.0.1:{server.address[1]}: connection refused")
