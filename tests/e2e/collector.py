"""A real collector, as Resurface's /message is one: an HTTP server that takes NDJSON, compressed or not.

`Collector` runs in a thread of the test; as a script (`collector.py PORT FILE`) it runs in a namespace. What is wrong
with a submission is kept in `complaints` (or answered with 400): a test looks there.
"""

import json
import sys
import threading
import zlib
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Collector:
    def __init__(self, port: int = 0, statuses=(), headers=()) -> None:
        """Answers with `statuses` in turn, then 204. Besides a number each may be "hang", "reset", "taken" (accepts the
        calls, and resets before it says so), or seconds to hang for, as a float.
        """
        self.lines: list[bytes] = []
        self.complaints: list[str] = []
        self.requests = 0
        self.connections: set[object] = set()
        self.statuses = list(statuses)
        self.headers = list(headers)
        self.seen_headers: list[dict[str, str]] = []
        self.release = threading.Event()
        self.arrived = threading.Condition()
        self.is_closed = False
        handler = type("Handler", (_Handler,), {"collector": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", port), handler)
        self._server.daemon_threads = True
        self.port = self._server.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}/message"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()

    def __enter__(self):
        return self

    def __exit__(self, *error) -> None:
        with self.arrived:
            self.is_closed = True
        self.release.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def calls(self) -> list[list[list[str]]]:
        return [json.loads(line) for line in self.lines]

    def wait_for(self, count: int, timeout_s: float = 20) -> bool:
        with self.arrived:
            return self.arrived.wait_for(lambda: len(self.lines) >= count, timeout_s)

    def take(self, body: bytes) -> bool:
        """Whether it took the calls: not once it is closed, or a request on its way would be answered and forgotten."""
        with self.arrived:
            if not self.is_closed:
                self.accept(body)
                self.arrived.notify_all()
            return not self.is_closed

    def accept(self, body: bytes) -> None:
        self.lines += body.splitlines(keepends=True)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    collector: Collector

    def do_POST(self) -> None:
        collector = self.collector
        body = self.rfile.read(int(self.headers["Content-Length"]))
        collector.requests += 1
        collector.connections.add(self.client_address)
        collector.seen_headers.append({name.lower(): value for name, value in self.headers.items()})
        status = collector.statuses.pop(0) if collector.statuses else 204
        if status == "hang":
            collector.release.wait(30)
            self.close_connection = True
            return
        if isinstance(status, float):
            collector.release.wait(status)
            self.close_connection = True
            return
        if status == "reset":
            self.close_connection = True
            return
        if status == "taken":
            collector.take(zlib.decompress(body))
            self.close_connection = True
            return
        if 200 <= status < 300:
            if self.headers.get("Content-Encoding") == "deflated":
                body = zlib.decompress(body)
            if self.headers.get("Content-Type") != "application/ndjson; charset=UTF-8":
                collector.complaints.append(f"content type {self.headers.get('Content-Type')}")
            if not body.endswith(b"\n"):
                collector.complaints.append("a batch without a line break at its end")
            if not collector.take(body):
                self.close_connection = True
                return
        self.send_response(status)
        for name, value in collector.headers:
            self.send_header(name, value)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *args) -> None:
        pass


def main() -> None:
    port, path = int(sys.argv[1]), sys.argv[2]

    class ToFile(Collector):
        def accept(self, body: bytes) -> None:
            with open(path, "ab") as file:
                file.write(body)

    with ToFile(port) as collector:
        print("ready", flush=True)
        sys.stdin.read()
        print(json.dumps({"complaints": collector.complaints, "requests": collector.requests}), flush=True)


if __name__ == "__main__":
    main()
