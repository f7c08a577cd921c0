"""Submissions to a real HTTP server, and what its answers mean."""

import socket
import zlib

import pytest

from tests.e2e.collector import Collector
from vxsniff.delivery import outlet
from vxsniff.delivery.batch import Batch
from vxsniff.delivery.post import PostOutlet, retry_after_s

LINES = b'[["request_method","GET"]]\n' * 20


def send(collector, data=LINES, compresses=True, timeout_s=5.0):
    post = PostOutlet(collector.url, compresses)
    try:
        return post.send(Batch(20, data), timeout_s)
    finally:
        post.close()


def test_a_submission_is_what_the_loggers_send():
    with Collector() as collector:
        assert send(collector) == outlet.Outcome(outlet.ACCEPTED)
        assert collector.complaints == []
        assert b"".join(collector.lines) == LINES
        headers = collector.seen_headers[0]
    assert headers["content-encoding"] == "deflated"
    assert headers["content-type"] == "application/ndjson; charset=UTF-8"
    assert headers["user-agent"].startswith("Resurface/")
    assert int(headers["content-length"]) < len(LINES)


def test_skip_compression_sends_the_lines_as_they_are():
    with Collector() as collector:
        send(collector, compresses=False)
        assert "content-encoding" not in collector.seen_headers[0]
        assert b"".join(collector.lines) == LINES


def test_the_body_is_plain_zlib():
    assert zlib.decompress(Batch(20, LINES).packed) == LINES


def test_what_was_packed_for_the_spool_can_be_sent_plain():
    with Collector() as collector:
        PostOutlet(collector.url, False).send(Batch(20, packed=zlib.compress(LINES)), 5)
        assert b"".join(collector.lines) == LINES


def test_one_connection_is_kept_for_many_submissions():
    with Collector() as collector:
        post = PostOutlet(collector.url, True)
        for _ in range(5):
            assert post.send(Batch(20, LINES), 5).kind == outlet.ACCEPTED
        post.close()
        assert collector.requests == 5
        assert len(collector.connections) == 1


@pytest.mark.parametrize("status", [200, 202, 204])
def test_any_2xx_is_success(status):
    with Collector(statuses=[status]) as collector:
        assert send(collector).kind == outlet.ACCEPTED


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 599])
def test_what_may_pass_is_tried_again(status):
    with Collector(statuses=[status]) as collector:
        outcome = send(collector)
    assert outcome.kind == outlet.RETRY
    assert str(status) in outcome.reason


@pytest.mark.parametrize("status", [400, 401, 403, 404, 413, 415])
def test_what_will_not_pass_is_refused_for_good(status):
    with Collector(statuses=[status]) as collector:
        outcome = send(collector)
    assert outcome.kind == outlet.REFUSED
    assert str(status) in outcome.reason
    assert outcome.status == status


def test_redirects_are_not_followed():
    with Collector(statuses=[301], headers=[("Location", "http://127.0.0.1:1/")]) as collector:
        outcome = send(collector)
        assert collector.requests == 1
    assert outcome.kind == outlet.REFUSED
    assert "redirect" in outcome.reason


def test_retry_after_is_heeded():
    with Collector(statuses=[503], headers=[("Retry-After", "7")]) as collector:
        assert send(collector).after_s == 7.0


@pytest.mark.parametrize(
    ("value", "seconds"),
    [("5", 5), ("0", 0), ("999999", 300), ("", 0), ("soon", 0), ("-3", 0), ("Wed, 21 Oct 2015 07:28:00 GMT", 0)],
)
def test_retry_after_is_seconds_or_a_date_and_bounded(value, seconds):
    assert retry_after_s(value) == seconds


def test_a_server_that_is_not_there_is_tried_again_and_named_in_few_words():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    outcome = PostOutlet(f"http://127.0.0.1:{port}/", True).send(Batch(20, LINES), 5)
    assert (outcome.kind, outcome.reason) == (outlet.RETRY, "connection refused")


def test_a_host_that_is_not_known_is_tried_again_and_named_in_few_words():
    outcome = PostOutlet("http://no-such-host.invalid/", True).send(Batch(20, LINES), 5)
    assert outcome.kind == outlet.RETRY
    assert len(outcome.reason) < 80
    assert "Pool" not in outcome.reason


def test_a_server_that_does_not_answer_is_given_up_in_time():
    with Collector(statuses=["hang"]) as collector:
        outcome = send(collector, timeout_s=0.2)
        collector.release.set()
    assert (outcome.kind, outcome.reason) == (outlet.RETRY, "no answer in time")


def test_a_server_that_hangs_up_is_tried_again():
    with Collector(statuses=["reset"]) as collector:
        assert send(collector).kind == outlet.RETRY


def test_a_proxy_of_the_environment_is_used(monkeypatch):
    with Collector() as proxy:
        host, port = proxy.url.removeprefix("http://").split("/")[0].split(":")
        monkeypatch.setenv("HTTP_PROXY", f"http://{host}:{port}")
        monkeypatch.delenv("NO_PROXY", raising=False)
        post = PostOutlet("http://collector.example/message", True)
        assert post.send(Batch(20, LINES), 5).kind == outlet.ACCEPTED
        post.close()
        assert proxy.seen_headers[0]["host"] == "collector.example"


def test_each_submission_has_the_length_of_its_own():
    with Collector() as collector:
        post = PostOutlet(collector.url, False)
        for count in (1, 20, 3):
            assert post.send(Batch(count, LINES[:27] * count), 5).kind == outlet.ACCEPTED
        post.close()
        assert [int(headers["content-length"]) for headers in collector.seen_headers] == [27, 540, 81]


@pytest.mark.parametrize("url", ["http://[::1/message", "http://a b.example:port/message", "http://.example/"])
def test_what_is_no_url_is_refused_at_once(url):
    with pytest.raises(ValueError, match=r"(?i)url|parse"):
        PostOutlet(url, True)
