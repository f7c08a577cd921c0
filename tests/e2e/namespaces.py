"""Network namespaces of a test, and processes within them; all of it is gone at the end."""

import contextlib
import os
import subprocess
import time

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class Namespaces:
    """`net.add("a")` makes a namespace that other calls name `a`."""

    kind = "vn"  # what its namespaces' names begin with

    def __init__(self) -> None:
        self._prefix = f"{self.kind}{os.getpid() % 100000}"
        self._stack = contextlib.ExitStack()

    def __enter__(self):
        return self

    def __exit__(self, *error) -> None:
        self._stack.close()

    def run(self, *command: str) -> str:
        done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PATH": PATH}, timeout=60)
        assert done.returncode == 0, f"{' '.join(command)}: {done.stderr}"
        return done.stdout

    def add(self, *names: str) -> None:
        for name in names:
            full = self.ns(name)
            self.run("ip", "netns", "add", full)
            self._stack.callback(subprocess.run, ["ip", "netns", "del", full], check=False, capture_output=True)
            self.ip(name, "link", "set", "lo", "up")

    def ns(self, name: str) -> str:
        """The name under which the system knows it."""
        return self._prefix + name

    def ip(self, name: str, *words: str) -> str:
        return self.run("ip", "-n", self.ns(name), *words)

    def veth(self, left: str, left_device: str, right: str, right_device: str, mtu: int = 1500) -> None:
        """A pair of devices, up, each in its namespace."""
        self.run(
            *("ip", "link", "add", left_device, "netns", self.ns(left), "mtu", str(mtu)),
            *("type", "veth", "peer", "name", right_device, "mtu", str(mtu), "netns", self.ns(right)),
        )
        for name, device in ((left, left_device), (right, right_device)):
            self.ip(name, "link", "set", device, "up")

    def address(self, name: str, device: str, *addresses: str) -> None:
        for address in addresses:
            nodad = ("nodad",) if ":" in address else ()
            self.ip(name, "addr", "add", address, "dev", device, *nodad)

    def no_offloading(self, name: str, device: str) -> None:
        """Packets are of the size that a wire takes."""
        self.run(*self.within(name, "ethtool", "-K", device, "tso", "off", "gso", "off", "gro", "off"))

    def within(self, name: str, *command: str) -> tuple[str, ...]:
        return ("ip", "netns", "exec", self.ns(name), *command)

    def start(self, name: str, *command: str, **options) -> subprocess.Popen:
        """Starts a process in a namespace; it is ended with the rest."""
        environ = {**os.environ, "PATH": PATH + ":" + os.environ["PATH"]}
        process = subprocess.Popen(self.within(name, *command), env=environ, **options)
        self._stack.callback(_end, process)
        return process

    def wait_for_port(self, name: str, port: int) -> None:
        wait_until(lambda: f":{port} " in self.run(*self.within(name, "ss", "-Hltn")))


def wait_until(is_true) -> None:
    for _ in range(200):
        if is_true():
            return
        time.sleep(0.05)
    raise AssertionError("it did not come true in 10 s")


def _end(process: subprocess.Popen) -> None:
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    for stream in (process.stdin, process.stdout, process.stderr):
        if stream is not None:
            stream.close()
