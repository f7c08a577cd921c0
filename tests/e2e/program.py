"""The program as its user starts it: a process of its own."""

import contextlib
import os
import pathlib
import re
import signal
import socket
import subprocess
import sys
import threading
import time

from vxsniff.capture.file import read_frames

ORDINARY_USER = ("unshare", "--user", "--map-user=1000", "--map-group=1000")
"""A command in front of another: makes root an ordinary user in all but name, who still reads where the tests lie."""


def memory_mib(what: str, pid: int | str = "self") -> float:
    """`VmRSS` is what a process has now, `VmHWM` the most that it ever had (proc(5))."""
    status = pathlib.Path(f"/proc/{pid}/status").read_text()
    return int(re.search(rf"{what}:\s+(\d+) kB", status)[1]) / 1024


def free_udp_port() -> int:
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as probe:
        probe.bind(("::", 0))
        return probe.getsockname()[1]


def free_tcp_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def environment(**more) -> dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("SNIFFER_", "USAGE_LOGGERS_", "APP_PORT", "DYNO"))}
    return {**kept, "PYTHONUNBUFFERED": "1", "SNIFFER_SPOOL_DIR": "off", "SNIFFER_CONTROL_SOCKET": "off", **more}


def vxsniff(*arguments, cwd, env=None, timeout=60, stdin=b"") -> subprocess.CompletedProcess:
    """Runs it to its end."""
    return subprocess.run(
        [sys.executable, "-m", "vxsniff", *arguments],
        cwd=cwd,
        env=environment(**(env or {})),
        input=stdin,
        capture_output=True,
        timeout=timeout,
    )


class Running:
    """A live vxsniff on a free port, until the block ends. `stop` gives its exit status.

    `prefix` is a command that executes it in another guise. With `ready`, the line of the log that says that it is
    up, it need not listen on a port.
    """

    command: tuple[str, ...] = (sys.executable, "-m", "vxsniff")

    def __init__(self, *arguments, cwd, env=None, stdout=subprocess.PIPE, port=None, prefix=(), ready="") -> None:
        self.port = port or free_udp_port()
        self._ready = ready or "receive buffer"
        listens = [] if ready else ["--port", str(self.port)]
        self.process = subprocess.Popen(
            [*prefix, *self.command, *listens, "--metrics", "off", *arguments],
            cwd=cwd,
            env=environment(**(env or {})),
            stdout=stdout,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.log = ""
        self._has = threading.Condition()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        for line in self.process.stderr:
            with self._has:
                self.log += line
                self._has.notify_all()

    def wait_for_log(self, text: str, timeout_s: float = 20) -> None:
        with self._has:
            assert self._has.wait_for(lambda: text in self.log or self.process.poll() is not None, timeout_s), self.log
            assert text in self.log, self.log

    def __enter__(self):
        self.wait_for_log(self._ready)
        return self

    def __exit__(self, *error) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self._reader.join()
        for stream in (self.process.stdout, self.process.stderr):
            if stream is not None:
                stream.close()

    def send(self, datagrams) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            for number, datagram in enumerate(datagrams):
                sender.sendto(datagram, ("127.0.0.1", self.port))
                if number % 64 == 63:
                    time.sleep(0.002)  # loopback hands over at once: leave the receiver its turn

    def stop(self, number=signal.SIGTERM, timeout_s=15) -> int:
        self.process.send_signal(number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(timeout_s)
        assert self.process.poll() is not None, "it did not end"
        self._reader.join(5)
        return self.process.returncode


def udp_payloads(path, port=4789):
    """The mirrored datagrams of a capture file of a target's interface, in its order."""
    with open(path, "rb") as file:
        for frame in read_frames(file):
            offset = {1: 12, 113: 14, 276: 0}[frame.link_type]
            kind = int.from_bytes(frame.data[offset : offset + 2], "big")
            start = 20 if frame.link_type == 276 else offset + 2
            assert kind == 0x0800, "the target's own network is IPv4"
            udp = start + (frame.data[start] & 15) * 4
            if int.from_bytes(frame.data[udp + 2 : udp + 4], "big") == port:
                yield frame.data[udp + 8 :]


def in_ledger(text: str | bytes, name: str) -> int:
    """A number of a printed ledger; 0 for what is not shown."""
    text = text.decode() if isinstance(text, bytes) else text
    found = re.search(rf"^ +{name} +([\d,]+)  ", text.partition("ledger\n")[2], re.MULTILINE)
    return int(found[1].replace(",", "")) if found else 0
