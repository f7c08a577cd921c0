"""Real clients in the client's namespace: requests, curl, a raw-socket pipeliner, a WebSocket.

Run as a script: `clients.py HOST NGINX_PORT ORIGIN_PORT FIRST_CALL LOG`. Each call carries its number as `?call=N`, and
is logged as one JSON line: what was sent, where the client knows it, and what came back.
"""

import json
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import h11
import requests
from websockets.sync.client import connect

TIMEOUT_S = 20


class Log:
    def __init__(self, path: str, first: int) -> None:
        self._file = open(path, "a")  # noqa: SIM115 - as long as the process
        self._next = first
        self.connections = 0

    def number(self) -> int:
        self._next += 1
        return self._next - 1

    def note(self, call, method, url, status, headers, body, **more) -> None:
        entry = {
            "call": str(call),
            "method": method,
            "url": url,
            "status": status,
            "headers": headers,
            "body": body.decode("latin-1"),
        }
        self._file.write(json.dumps({**entry, **more}) + "\n")
        self._file.flush()


def with_requests(log: Log, nginx: str, origin: str) -> None:
    """Keep-alive sessions; each errand in turn."""
    errands = [
        ("GET", f"{nginx}/hello.txt", {}),
        ("GET", f"{nginx}/big.json", {}),  # nginx compresses it
        ("HEAD", f"{nginx}/big.json", {}),
        ("GET", f"{nginx}/no-such-file", {}),
        ("GET", f"{nginx}/hello.txt", {"headers": {"If-None-Match": "*"}}),  # 304
        ("GET", f"{nginx}/moved", {"allow_redirects": False}),
        ("POST", f"{nginx}/proxy/echo", {"json": {"name": "Zoë", "list": list(range(200))}}),
        ("GET", f"{origin}/echo?q=a%20b&empty=&q=c", {}),
        ("POST", f"{origin}/echo", {"data": {"user": "ada", "text": "a+b & c"}}),
        ("PUT", f"{origin}/echo/item/7", {"data": b"x" * 5000, "headers": {"Content-Type": "text/plain"}}),
        (
            "POST",
            f"{origin}/echo",
            {"data": (part for part in (b"one ", b"two ", b"three")), "headers": {"Content-Type": "text/plain"}},
        ),
        ("DELETE", f"{origin}/status/204", {}),
        ("HEAD", f"{origin}/echo", {}),
        ("GET", f"{origin}/chunked/5", {}),
        ("GET", f"{origin}/chunked/40", {}),
        *(("GET", f"{origin}/coding/{coding}", {}) for coding in ("gzip", "deflate", "br", "zstd", "identity")),
        ("GET", f"{origin}/headers", {"headers": {"Cookie": "session=abc; theme=dark"}}),
        ("GET", f"{origin}/latin1", {}),
        ("GET", f"{origin}/binary", {}),
        ("OPTIONS", f"{origin}/echo", {}),
        ("PATCH", f"{origin}/echo", {"json": None}),
    ]
    with requests.Session() as session:
        session.trust_env = False
        session.headers["Accept-Encoding"] = "gzip, deflate, br, zstd"
        hosts = set()
        for method, url, options in errands:
            call = log.number()
            target = f"{url}{'&' if '?' in url else '?'}call={call}"
            answer = session.request(method, target, timeout=TIMEOUT_S, **options)
            headers = [list(pair) for pair in answer.raw._original_response.msg.items()]
            log.note(call, method, url.partition("?")[0], answer.status_code, headers, answer.content)
            hosts.add(url.split("/")[2])
        log.connections += len(hosts)


def with_curl(log: Log, nginx: str, origin: str) -> None:
    """One curl process a batch of calls over one connection; 100-continue, HTTP/1.0, a body that ends by close."""
    batches = [
        [
            ("GET", f"{nginx}/hello.txt", []),
            ("GET", f"{nginx}/big.json", ["--compressed"]),
            ("GET", f"{nginx}/hello.txt", []),
        ],
        [("POST", f"{origin}/echo", ["-H", "Expect: 100-continue", "--data-binary", "c" * 4000])] * 2,
        [("GET", f"{nginx}/until-close/chunked/6", [])],
        [("GET", f"{nginx}/hello.txt", ["--http1.0"])],
        [("GET", f"{origin}/chunked/3", ["--http1.0"])],
        [("POST", f"{origin}/early", ["-H", "Expect: 100-continue", "--data-binary", "e" * 3000])],
        [("PUT", f"{origin}/echo", ["-H", "Transfer-Encoding: chunked", "--data-binary", "streamed"])],
    ]
    for batch in batches:
        with tempfile.TemporaryDirectory() as folder:
            command: list[str] = []
            calls = []
            for method, url, options in batch:
                call = log.number()
                calls.append(call)
                command += ["--next"] if command else []
                command += [
                    "-sS",
                    "-g",
                    "-X",
                    method,
                    "-D",
                    f"{folder}/{call}.head",
                    "-o",
                    f"{folder}/{call}.body",
                    *options,
                ]
                command += ["--max-time", str(TIMEOUT_S), f"{url}?call={call}"]
            subprocess.run(["curl", *command], check=True, env={"PATH": "/usr/bin:/bin"})
            log.connections += 1
            for call, (method, url, _) in zip(calls, batch, strict=True):
                blocks = Path(f"{folder}/{call}.head").read_bytes().decode("latin-1").strip().split("\r\n\r\n")
                status_line, *lines = blocks[-1].split("\r\n")  # an earlier block is 100 Continue
                headers = [[name, value.strip()] for name, _, value in (line.partition(":") for line in lines)]
                body = Path(f"{folder}/{call}.body")
                content = body.read_bytes() if body.exists() else b""
                log.note(call, method, url, int(status_line.split()[1]), headers, content)


def with_pipeline(log: Log, origin: str, count: int) -> None:
    """All requests in one go over a raw socket, then all answers."""
    host, _, port = origin.removeprefix("http://").rpartition(":")
    requested = []
    out = b""
    for i in range(count):
        call = log.number()
        body = b"" if i % 3 else b"pipelined %d" % call
        head = f"{'GET' if not body else 'POST'} /echo?call={call} HTTP/1.1\r\nHost: {host}:{port}\r\n"
        head += f"X-Order: {i}\r\nX-order: again\r\n"
        head += f"Content-Type: text/plain\r\nContent-Length: {len(body)}\r\n" if body else ""
        out += head.encode() + b"\r\n" + body
        requested.append(
            (call, head.split(" ", 1)[0], [line.split(": ", 1) for line in head.split("\r\n")[1:-1]], body)
        )
    with socket.create_connection((host.strip("[]"), int(port)), TIMEOUT_S) as connection:
        connection.sendall(out)
        log.connections += 1
        data = b""
        for call, method, sent_headers, sent_body in requested:
            # One parser an answer: h11's client does not pipeline.
            parser = h11.Connection(h11.CLIENT)
            parser.send(h11.Request(method="GET", target="/", headers=[("Host", "x")]))
            parser.send(h11.EndOfMessage())
            if data:  # nothing would mean the end
                parser.receive_data(data)
            body = b""
            while True:
                event = parser.next_event()
                if event is h11.NEED_DATA:
                    parser.receive_data(connection.recv(65536))
                elif isinstance(event, h11.Response):
                    status = event.status_code
                    headers = [[n.decode(), v.decode()] for n, v in event.headers.raw_items()]
                elif isinstance(event, h11.Data):
                    body += bytes(event.data)
                elif isinstance(event, h11.EndOfMessage):
                    break
            data = parser.trailing_data[0]
            log.note(
                call,
                method,
                f"{origin}/echo",
                status,
                headers,
                body,
                sent_headers=sent_headers,
                sent_body=sent_body.decode(),
            )


def with_web_socket(log: Log, origin: str) -> None:
    call = log.number()
    url = f"{origin}/ws"
    with connect(f"{url.replace('http', 'ws', 1)}?call={call}", open_timeout=TIMEOUT_S) as channel:
        channel.send("hello")
        assert channel.recv(TIMEOUT_S) == "echo hello"
        headers = [[name, value] for name, value in channel.response.headers.raw_items()]
    log.connections += 1
    log.note(call, "GET", url, 101, headers, b"")


def main() -> None:
    host, nginx_port, origin_port, first, path = sys.argv[1:6]
    host = f"[{host}]" if ":" in host else host
    nginx = f"http://{host}" + ("" if nginx_port == "80" else f":{nginx_port}")
    origin = f"http://{host}:{origin_port}"
    log = Log(path, int(first))
    for _ in range(int(sys.argv[6])):
        with_requests(log, nginx, origin)
        with_curl(log, nginx, origin)
        with_pipeline(log, origin, 12)
        with_web_socket(log, origin)
    print(log.connections)


if __name__ == "__main__":
    main()
