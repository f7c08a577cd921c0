"""A TCP relay that mirrors what it relays: each chunk becomes TCP/IP/Ethernet frames, and those VXLAN datagrams.

So an unprivileged process sees what a mirror target would. Also a test tool: it can lose, repeat, reorder and cut what
it mirrors (never what it relays), at random from a seed.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import threading
from typing import Final, NamedTuple

from vxsniff.demo.frames import CLIENT, SERVER, Conversation, Endpoint, in_vxlan

_CHUNK_BYTES: Final = 65_536
_HELD_MOST: Final = 8
_HELD_S: Final = 0.02


class Faults(NamedTuple):
    """Shares (0 to 1) of datagrams that are lost, sent twice, and sent late; the length that frames are cut to."""

    lose: float = 0.0
    repeat: float = 0.0
    reorder: float = 0.0
    truncate: int = 0


NO_FAULTS: Final = Faults()
SERVER_END: Final = Endpoint("10.0.1.10", 80)


class Mirror:
    """Sends frames to a mirror target by UDP, with faults. Used by one thread."""

    def __init__(self, target: tuple[str, int], vni: int, faults: Faults = NO_FAULTS, seed: int = 1) -> None:
        self._target = target
        self._vni = vni
        self._faults = faults
        self._draw = random.Random(seed)
        self._socket = socket.socket(socket.AF_INET6 if ":" in target[0] else socket.AF_INET, socket.SOCK_DGRAM)
        self._held: list[bytes] = []
        self.sent = 0
        self.lost = 0

    def send(self, frames: list[bytes]) -> None:
        faults, draw = self._faults, self._draw
        for frame in frames:
            datagram = in_vxlan(frame[: faults.truncate] if faults.truncate else frame, self._vni)
            if draw.random() < faults.lose:
                self.lost += 1
            elif draw.random() < faults.reorder and len(self._held) < _HELD_MOST:
                self._held.append(datagram)
            else:
                self._emit(datagram)
                if self._held and draw.random() < 0.5:
                    self._emit(self._held.pop(draw.randrange(len(self._held))))

    def flush(self) -> None:
        """Sends what was held back."""
        while self._held:
            self._emit(self._held.pop())

    def _emit(self, datagram: bytes) -> None:
        for _ in range(2 if self._draw.random() < self._faults.repeat else 1):
            with contextlib.suppress(OSError):  # nobody listens: a mirror does not care
                self._socket.sendto(datagram, self._target)
                self.sent += 1

    def close(self) -> None:
        self._socket.close()


class Relay:
    """Listens on a free port of 127.0.0.1 and relays to `upstream_port` there. Runs in a thread; `close` ends it.

    In the mirrored frames the clients have addresses of 10.0.0.0/24 and the server is `server`.
    """

    def __init__(self, upstream_port: int, mirror: Mirror, server: Endpoint = SERVER_END) -> None:
        self._upstream_port = upstream_port
        self._mirror = mirror
        self._server = server
        self._draw = random.Random(7)
        self.port = 0
        self._ready = threading.Event()
        self._loop = asyncio.new_event_loop()
        self._tasks: set[asyncio.Task[None]] = set()
        self._thread = threading.Thread(target=self._run, name="relay", daemon=True)
        self._thread.start()
        self._ready.wait()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        server = self._loop.run_until_complete(asyncio.start_server(self._accept, "127.0.0.1", 0))
        self.port = server.sockets[0].getsockname()[1]
        flusher = self._loop.create_task(self._flush())
        self._ready.set()
        try:
            self._loop.run_forever()
        finally:
            server.close()
            for task in (flusher, *self._tasks):
                task.cancel()
            self._loop.run_until_complete(asyncio.gather(flusher, *self._tasks, return_exceptions=True))
            self._loop.run_until_complete(self._loop.shutdown_asyncgens())
            self._mirror.flush()
            self._mirror.close()
            self._loop.close()

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    async def _flush(self) -> None:
        while True:
            await asyncio.sleep(_HELD_S)
            self._mirror.flush()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        draw = self._draw
        client = Endpoint(f"10.0.0.{draw.randrange(2, 250)}", writer.get_extra_info("peername")[1])
        talk = Conversation(client, self._server, (draw.randrange(2**32), draw.randrange(2**32)))
        upstream: asyncio.StreamWriter | None = None
        try:
            upstream_reader, upstream = await asyncio.open_connection("127.0.0.1", self._upstream_port)
            self._mirror.send(talk.open())
            await asyncio.gather(
                self._pump(talk, CLIENT, reader, upstream), self._pump(talk, SERVER, upstream_reader, writer)
            )
        except (OSError, asyncio.CancelledError):
            self._mirror.send(talk.reset(CLIENT))
        finally:
            for end in (writer, upstream):
                if end is not None:
                    end.close()

    async def _pump(
        self, talk: Conversation, side: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        while data := await reader.read(_CHUNK_BYTES):
            self._mirror.send(talk.send(side, data))
            writer.write(data)
            await writer.drain()
        self._mirror.send(talk.close(side))
        if writer.can_write_eof():
            writer.write_eof()
