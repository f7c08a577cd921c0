"""The control socket: `vxsniff on`, `off`, `status` and `reload` reach a running vxsniff through it.

A Unix stream socket that only its owner and root may use. A client sends one line of words and gets back a line `ok` or
`error`, then text, then the end.
"""

from __future__ import annotations

import contextlib
import os
import socket
import stat
import struct
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Final

from vxsniff.app.settings import user_id

BACKLOG: Final = 8
MAX_REQUEST_BYTES: Final = 1024
MAX_ANSWER_BYTES: Final = 16 * 1024 * 1024
CLIENT_TIMEOUT_S: Final = 10.0
_PEER_CREDENTIALS: Final = struct.Struct("3i")  # struct ucred (unix(7)): pid, uid, gid

Handler = Callable[[list[str]], tuple[bool, str]]
"""Takes words, answers whether that went well, and what there is to say. Called from threads of the server."""


class ControlError(Exception):
    """The socket can't be had, or nobody answers there; the message says why."""


class ControlServer:
    """Serves in a thread of its own. `close` when done."""

    def __init__(self, listener: socket.socket, handler: Handler, path: Path | None = None) -> None:
        """Takes the listening socket over, and the file at `path` with it."""
        self._socket = listener
        self._handler = handler
        self._path = path
        self._inode = path.stat().st_ino if path is not None else 0
        self._thread = threading.Thread(target=self._run, name="control", daemon=True)
        self._thread.start()

    def close(self) -> None:
        with contextlib.suppress(OSError):
            if self._path is not None and self._path.stat().st_ino == self._inode:
                self._path.unlink()
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._thread.join(1.0)

    def _run(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connection,), name="control", daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with contextlib.suppress(OSError), connection:
            connection.settimeout(CLIENT_TIMEOUT_S)
            if not _may_control(connection):
                connection.sendall(b"error\nonly the owner of this vxsniff and root may do that\n")
                return
            data = b""
            while b"\n" not in data and len(data) < MAX_REQUEST_BYTES:
                more = connection.recv(MAX_REQUEST_BYTES)
                if not more:
                    break
                data += more
            went_well, text = self._handler(data.partition(b"\n")[0].decode(errors="replace").split())
            connection.sendall(f"{'ok' if went_well else 'error'}\n{text}\n".encode())


def listen_at(path: Path) -> socket.socket:
    """A socket at this path for a ControlServer. Raises ControlError when it can't be had."""
    _check_system()
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if user_id() and path.parent.stat().st_uid not in (0, user_id()):
            raise ControlError(f"the folder {path.parent} is another user's")  # who could put another socket there
        _remove_stale(path)
        before = os.umask(0o177)
        try:
            listener.bind(str(path))
        finally:
            os.umask(before)
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        raise ControlError((error.strerror or str(error)).lower()) from None
    except ControlError:
        listener.close()
        raise
    return listener


def listen_unnamed() -> tuple[socket.socket, bytes]:
    """A socket without a path, and its address (unix(7), "Autobind feature"). Linux."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind("")
    listener.listen(BACKLOG)
    address: bytes = listener.getsockname()
    return listener, address


def _remove_stale(path: Path) -> None:
    """A socket that nobody listens on is left over from a crash."""
    try:
        if not stat.S_ISSOCK(path.lstat().st_mode):
            raise ControlError("there is something else than a socket")
    except FileNotFoundError:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(str(path))
        except (ConnectionRefusedError, FileNotFoundError):
            path.unlink(missing_ok=True)
            return
        except OSError:
            pass
    raise ControlError("another vxsniff listens there")


def _check_system() -> None:
    if not hasattr(socket, "AF_UNIX"):
        raise ControlError("this system has no Unix sockets")


def _may_control(connection: socket.socket) -> bool:
    if not hasattr(socket, "SO_PEERCRED"):
        return True  # the permissions of socket and folder have seen to it
    credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER_CREDENTIALS.size)
    _, uid, _ = _PEER_CREDENTIALS.unpack(credentials)
    return uid in (0, user_id())


def ask(path: Path | bytes, words: list[str], timeout_s: float = CLIENT_TIMEOUT_S) -> tuple[bool, str]:
    """Asks the vxsniff that listens at `path`, or at an address without one. Raises ControlError when there is none."""
    data = bytearray()
    _check_system()
    place = "its address" if isinstance(path, bytes) else str(path)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(timeout_s)
        try:
            connection.connect(path if isinstance(path, bytes) else str(path))
            connection.sendall(" ".join(words).encode() + b"\n")
            while len(data) < MAX_ANSWER_BYTES and (more := connection.recv(65_536)):
                data += more
        except (FileNotFoundError, ConnectionRefusedError):
            raise ControlError(
                f"no vxsniff is running here: nobody listens at {place} (--control names another)"
            ) from None
        except PermissionError:
            raise ControlError(f"no permission to use {place}: ask as its owner, or as root") from None
        except OSError as error:
            raise ControlError(f"no answer from the vxsniff at {place}: {error.strerror or error}") from None
    if not data:
        raise ControlError(f"no answer from the vxsniff at {place}: it ended before it answered")
    verdict, _, text = data.decode(errors="replace").partition("\n")
    return verdict == "ok", text.rstrip("\n")
