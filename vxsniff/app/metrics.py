"""The ledger for Prometheus at `/metrics`, and `/healthz` for load balancers."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from http import HTTPStatus
from http.client import HTTPConnection, HTTPException
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Final, NamedTuple

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from vxsniff import __version__
from vxsniff.app.ledger import Ledger

_PREFIX: Final = "vxsniff_"
_REQUEST_TIMEOUT_S: Final = 10.0
_HEALTH_TIMEOUT_S: Final = 3.0
_HEALTH_MAX_BYTES: Final = 1024


class LedgerCollector(Collector):
    """Equation `x` becomes vxsniff_x_total, its ends vxsniff_x_ended_total{outcome}, the rest vxsniff_x_open{state}."""

    def __init__(self, look: Callable[[], Ledger]) -> None:
        self._look = look

    def describe(self) -> list[Metric]:
        return []  # known only at the time of a look

    def collect(self) -> Iterator[Metric]:
        ledger = self._look()
        info = GaugeMetricFamily(_PREFIX + "info", "the running version", labels=["version"])
        info.add_metric([__version__], 1)
        yield info
        for equation in ledger.equations:
            name = _PREFIX + equation.name
            yield CounterMetricFamily(name, equation.meaning, value=equation.total)
            ended = CounterMetricFamily(
                f"{name}_ended", f"{equation.meaning}, by what became of them", labels=["outcome"]
            )
            opened = GaugeMetricFamily(f"{name}_open", f"{equation.meaning}, that wait", labels=["state"])
            for part in equation.parts:
                (opened if part.is_open else ended).add_metric([part.name], part.value)
            yield ended
            if opened.samples:
                yield opened
        for fact in ledger.facts:
            family = GaugeMetricFamily if fact.is_open else CounterMetricFamily
            yield family(_PREFIX + fact.name, fact.meaning, value=fact.value)


class MetricsServer:
    """Serves in a thread of its own. Raises OSError when the address can't be had."""

    def __init__(self, host: str, port: int, look: Callable[[], Ledger], is_healthy: Callable[[], bool]) -> None:
        registry = CollectorRegistry()
        registry.register(LedgerCollector(look))

        class Handler(_Handler):
            pass

        Handler.registry = registry
        Handler.is_healthy = staticmethod(is_healthy)

        class Server(ThreadingHTTPServer):
            address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
            daemon_threads = True

        self._server = Server((host, port), Handler)
        self.address: tuple[str, int] = (host, self._server.server_address[1])
        self._thread = threading.Thread(target=self._server.serve_forever, name="metrics", daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class Health(NamedTuple):
    is_healthy: bool
    text: str


def ask_health(host: str, port: int) -> Health:
    """What /healthz says where metrics are served; an address that means all of them is asked on loopback."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    connection = HTTPConnection(host, port, timeout=_HEALTH_TIMEOUT_S)
    try:
        connection.request("GET", "/healthz")
        answer = connection.getresponse()
        return Health(answer.status == HTTPStatus.OK, answer.read(_HEALTH_MAX_BYTES).decode(errors="replace").strip())
    except (OSError, HTTPException) as error:
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        return Health(False, f"no answer at {host}:{port}: {reason.lower()}")
    finally:
        connection.close()


class _Handler(BaseHTTPRequestHandler):
    registry: CollectorRegistry
    is_healthy: Callable[[], bool]
    timeout = _REQUEST_TIMEOUT_S
    server_version = "vxsniff"
    sys_version = ""

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        if path == "/metrics":
            encode, content_type = choose_encoder(self.headers.get("Accept", ""))
            self._answer(HTTPStatus.OK, content_type, encode(self.registry))
        elif path == "/healthz":
            healthy = self.is_healthy()
            status = HTTPStatus.OK if healthy else HTTPStatus.SERVICE_UNAVAILABLE
            self._answer(status, "text/plain; charset=utf-8", b"ok\n" if healthy else b"not capturing\n")
        else:
            self._answer(HTTPStatus.NOT_FOUND, "text/plain; charset=utf-8", b"/metrics and /healthz are here\n")

    do_HEAD = do_GET

    def _answer(self, status: HTTPStatus, content_type: str, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Scrapes are no news."""
