"""Network namespaces of a test, and processes within them; all of it is gone at the end."""

import contextlib
import os
import subprocess

from tests.e2e.lab import _PATH, _end, wait_until


class Namespaces:
    """`net.add("a")` makes a namespace that other calls name `a`."""

    def __init__(self) -> None:
        self._prefix = f"vn{os.getpid() % 100000}"
        self._stack = contextlib.ExitStack()

    def __enter__(self):
        return self

    def __exit__(self, *error) -> None:
        self._stack.close()

    def run(self, *command: str) -> str:
        done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PATH": _PATH}, timeout=60)
        assert done.returncode == 0, f"{' '.join(command)}: {done.stderr}"
        return done.stdout

    def add(self, *names: str) -> None:
        for name in names:
            full = self._prefix + name
            self.run("ip", "netns", "add", full)
            self._stack.callback(subprocess.run, ["ip", "netns", "del", full], check=False, capture_output=True)
            self.ip(name, "link", "set", "lo", "up")

    def ip(self, name: str, *words: str) -> str:
        return self.run("ip", "-n", self._prefix + name, *words)

    def veth(self, left: str, left_device: str, right: str, right_device: str) -> None:
        """A pair of devices, up, each in its namespace."""
        self.run(
            *("ip", "link", "add", left_device, "netns", self._prefix + left, "type", "veth"),
            *("peer", "name", right_device, "netns", self._prefix + right),
        )
        for name, device in ((left, left_device), (right, right_device)):
            self.ip(name, "link", "set", device, "up")

    def address(self, name: str, device: str, *addresses: str) -> None:
        for address in addresses:
            nodad = ("nodad",) if ":" in address else ()
            self.ip(name, "addr", "add", address, "dev", device, *nodad)

    def within(self, name: str, *command: str) -> tuple[str, ...]:
        return ("ip", "netns", "exec", self._prefix + name, *command)

    def start(self, name: str, *command: str, **options) -> subprocess.Popen:
        environ = {**os.environ, "PATH": _PATH + ":" + os.environ["PATH"]}
        process = subprocess.Popen(self.within(name, *command), env=environ, **options)
        self._stack.callback(_end, process)
        return process

    def wait_for_port(self, name: str, port: int) -> None:
        wait_until(lambda: f":{port} " in self.run(*self.within(name, "ss", "-Hltn")))
