"""The second real server: an ASGI application under uvicorn, with what nginx does not do by itself.

Run as a script: `origin.py PORT LOG`. Writes one JSON line a request to LOG: what it got and what it answered.
"""

import gzip
import json
import socket
import sys
import zlib
from urllib.parse import parse_qs

import brotli
import uvicorn
import zstandard

TEXT = "Grüße aus dem Teehaus: " + "steep, pour, sip. " * 40
CODINGS = {
    "gzip": gzip.compress,
    "deflate": zlib.compress,
    "br": brotli.compress,
    "zstd": zstandard.ZstdCompressor().compress,
    "identity": bytes,
}


class Origin:
    def __init__(self, log) -> None:
        self._log = log

    async def __call__(self, scope, receive, send) -> None:
        if scope["type"] == "lifespan":
            return
        call = parse_qs(scope["query_string"].decode()).get("call", ["?"])[0]
        if scope["type"] == "websocket":
            await self._web_socket(call, scope, receive, send)
            return
        _, _, path = scope["path"].partition("/")
        kind, _, argument = path.partition("/")
        body = b""
        if kind != "early":
            more = True
            while more:
                message = await receive()
                body += message.get("body", b"")
                more = message.get("more_body", False)
        status, headers, parts = self._answer(kind, argument, call, scope, body)
        self._note(call, scope, body, status, b"".join(parts) if kind != "coding" else TEXT.encode())
        await send({"type": "http.response.start", "status": status, "headers": [(b"x-call", call.encode()), *headers]})
        for part in parts:
            await send({"type": "http.response.body", "body": part, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    @staticmethod
    def _answer(kind, argument, call, scope, body):
        json_type = (b"content-type", b"application/json")
        if kind == "chunked":
            return (
                200,
                [(b"content-type", b"text/plain; charset=utf-8")],
                [f"{i}: {TEXT}\n".encode() for i in range(int(argument))],
            )
        if kind == "coding":
            coded = CODINGS[argument](TEXT.encode())
            headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"content-encoding", argument.encode())]
            return 200, [*headers, (b"content-length", b"%d" % len(coded))], [coded]
        if kind == "status":
            return int(argument), [], []
        if kind == "headers":
            many = [
                (b"set-cookie", b"a=1; Path=/"),
                (b"set-cookie", b"b=2"),
                (b"x-empty", b""),
                (b"x-latin", "Ä".encode("latin-1")),
            ]
            return 200, [json_type, *many, (b"content-length", b"2")], [b"{}"]
        if kind == "latin1":
            text = "déjà vu".encode("latin-1")
            return (
                200,
                [(b"content-type", b"text/plain; charset=ISO-8859-1"), (b"content-length", b"%d" % len(text))],
                [text],
            )
        if kind == "binary":
            return (
                200,
                [(b"content-type", b"application/octet-stream"), (b"content-length", b"512")],
                [bytes(range(256)) * 2],
            )
        if kind == "early":
            return 413, [json_type, (b"content-length", b"15"), (b"connection", b"close")], [b'{"error":"big"}']
        answer = json.dumps({"call": call, "method": scope["method"], "got": len(body)}).encode()
        return 200, [json_type, (b"content-length", b"%d" % len(answer))], [answer]

    async def _web_socket(self, call, scope, receive, send) -> None:
        await receive()
        await send({"type": "websocket.accept", "headers": [(b"x-call", call.encode())]})
        self._note(call, {**scope, "method": "GET"}, b"", 101, b"")
        while True:
            message = await receive()
            if message["type"] == "websocket.disconnect":
                return
            await send({"type": "websocket.send", "text": "echo " + (message.get("text") or "")})

    def _note(self, call, scope, body, status, answer) -> None:
        entry = {
            "call": call,
            "method": scope["method"],
            "path": scope["raw_path"].decode(),
            "headers": [[name.decode("latin-1"), value.decode("latin-1")] for name, value in scope["headers"]],
            "body": body.decode("latin-1"),
            "status": status,
            "answer": answer.decode("latin-1"),
        }
        self._log.write(json.dumps(entry) + "\n")
        self._log.flush()


def main() -> None:
    port, log = int(sys.argv[1]), sys.argv[2]
    listener = socket.create_server(("::", port), family=socket.AF_INET6, dualstack_ipv6=True, backlog=128)
    with open(log, "a") as file:
        config = uvicorn.Config(Origin(file), http="h11", ws="websockets-sansio", lifespan="off", log_level="warning")
        uvicorn.Server(config).run(sockets=[listener])


if __name__ == "__main__":
    main()
