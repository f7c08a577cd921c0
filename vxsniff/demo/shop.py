"""A little web shop: a real HTTP/1.1 server on loopback, with answers of many kinds."""

from __future__ import annotations

import gzip
import json
import random
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Final
from urllib.parse import parse_qs, urlsplit

PRODUCTS: Final = tuple(
    {"id": number, "name": name, "price_cents": price}
    for number, (name, price) in enumerate(
        [("teapot", 2450), ("kettle", 3990), ("mug", 890), ("tea caddy", 1290), ("strainer", 650), ("tray", 1999)], 1
    )
)
# The smallest GIF: one transparent pixel.
_PIXEL: Final = bytes.fromhex("47494638396101000100800000ffffff00000021f90401000000002c00000000010001000002024401003b")


class Shop:
    """Serves until `close`. `port` is a free one on 127.0.0.1."""

    def __init__(self) -> None:
        class Server(ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 64

        self._server = Server(("127.0.0.1", 0), _Handler)
        self.port: int = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), name="shop", daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version = "TeaShop/1.0"
    sys_version = ""
    disable_nagle_algorithm = True
    timeout = 30.0

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        query = parse_qs(parts.query)
        time.sleep(random.uniform(0.001, 0.02))  # a shop has a database
        if parts.path == "/api/products":
            word = query.get("q", [""])[0]
            self._json(200, [p for p in PRODUCTS if word in str(p["name"])], packed=True)
        elif parts.path.startswith("/api/products/"):
            number = parts.path.rpartition("/")[2]
            found = [p for p in PRODUCTS if str(p["id"]) == number]
            self._json(200, found[0]) if found else self._json(404, {"error": "no such product", "id": number})
        elif parts.path == "/api/export":
            self._chunked("id;name;price\n", *(f"{p['id']};{p['name']};{p['price_cents']}\n" for p in PRODUCTS))
        elif parts.path == "/logo.gif":
            self._answer(200, "image/gif", _PIXEL)
        elif parts.path == "/":
            self.send_response(302)
            self.send_header("Location", "/api/products")
            self.send_header("Content-Length", "0")
            self.end_headers()
        else:
            self._json(404, {"error": "not found"})

    do_HEAD = do_GET

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        time.sleep(random.uniform(0.005, 0.05))
        if self.path == "/api/login":
            self._json(200, {"welcome": True}, ("Set-Cookie", "session=s3cr3t; HttpOnly"))
        elif self.path == "/api/cart":
            try:
                self._json(201, {"added": json.loads(body)["id"], "cart": random.randrange(1, 9)})
            except (ValueError, KeyError, TypeError):
                self._json(400, {"error": "what shall be added?"})
        elif self.path == "/api/checkout":
            if random.random() < 0.2:
                self._json(402, {"error": "card declined"})
            else:
                self._json(201, {"order": random.randrange(10_000, 99_999)})
        else:
            self._json(404, {"error": "not found"})

    def _json(self, status: int, value: object, header: tuple[str, str] | None = None, packed: bool = False) -> None:
        body = json.dumps(value).encode()
        headers = [header] if header else []
        if packed and "gzip" in self.headers.get("Accept-Encoding", ""):
            body = gzip.compress(body)
            headers.append(("Content-Encoding", "gzip"))
        self._answer(status, "application/json", body, *headers)

    def _answer(self, status: int, content_type: str, body: bytes, *headers: tuple[str, str]) -> None:
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        for name, value in headers:
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _chunked(self, *parts: str) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/csv; charset=utf-8")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        if self.command == "HEAD":
            return
        for part in parts:
            data = part.encode()
            self.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")
        self.wfile.write(b"0\r\n\r\n")

    def log_message(self, format: str, *args: object) -> None:
        """The demo shows calls as vxsniff saw them, not as the shop did."""
