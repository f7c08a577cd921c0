"""Live capture: the receive loop of the capturing thread, and what can be switched while it runs.

Other threads ask for something with `ask`; the loop does it between two receives, so that nothing else ever touches
sockets or pipeline.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Final

from vxsniff.app import settings
from vxsniff.app.pipeline import Pipeline
from vxsniff.app.settings import Settings, size_in_words
from vxsniff.capture.udp import RECEIVE_BUFFER_BYTES, CaptureError, Handler, UdpSource
from vxsniff.doctor.survey import Survey
from vxsniff.flow.table import TICK_NS
from vxsniff.wire.vxlan import VniFilter

DRAIN_S: Final = 1.0
"""How long what lies in the receive buffer at the end may take."""
ASK_TIMEOUT_S: Final = 8.0
VNIS_FILE_EVERY_S: Final = 1.0
HEALTHY_WITHIN_S: Final = 5.0

_log = logging.getLogger("vxsniff")

Task = Callable[[], str]
"""Something to do in the capturing thread; answers what there is to say, raises ValueError when it is refused."""


class LiveCapture:
    """Sockets, loop and switches. `lock` is held while the pipeline works."""

    def __init__(
        self, chosen: Settings, pipeline: Pipeline, lock: threading.Lock, should_stop: Callable[[], bool]
    ) -> None:
        self._settings = chosen
        self._pipeline = pipeline
        self._lock = lock
        self._should_stop = should_stop
        self._ports: list[tuple[int, Handler]] = [(chosen.port, pipeline.vxlan_datagram)]
        self._names = ["VXLAN"]
        if chosen.geneve_port:
            self._ports.append((chosen.geneve_port, pipeline.geneve_datagram))
            self._names.append("GENEVE")
        self._source: UdpSource | None = None
        self._dropped_before = 0  # by the kernel, on sockets that are closed by now
        self._vnis_file = VniFile(chosen.vnis_file) if chosen.vnis_file else None
        self._tasks: deque[_Asked] = deque()
        self._is_watched = False
        self._active_s = time.monotonic()
        self.switches = 0

    # ---- looks, from any thread

    @property
    def is_on(self) -> bool:
        return self._source is not None

    @property
    def is_healthy(self) -> bool:
        """Whether the loop turns. Switched off it still does."""
        return time.monotonic() - self._active_s < HEALTHY_WITHIN_S

    @property
    def kernel_dropped(self) -> int:
        source = self._source
        return self._dropped_before + (source.kernel_dropped if source is not None else 0)

    def describe(self) -> str:
        """Where it listens, in words."""
        source = self._source
        if source is None:
            return "nothing, it is switched off"
        bound = zip(self._names, source.addresses, strict=True)
        return " and ".join(f"{name} on UDP {_listening(*address)}" for name, address in bound)

    def ask(self, task: Task, timeout_s: float = ASK_TIMEOUT_S) -> tuple[bool, str]:
        """Has the capturing thread do something; whether it did, and what it says."""
        asked = _Asked(task)
        self._tasks.append(asked)
        if not asked.done.wait(timeout_s):
            return False, "no answer in time: see the log"
        return asked.went_well, asked.text

    def later(self, task: Task) -> None:
        """The same without an answer; may be called from a signal handler."""
        self._tasks.append(_Asked(task))

    # ---- switches, in the capturing thread

    def open(self) -> None:
        """Binds the sockets; raises CaptureError."""
        self._source = UdpSource(self._settings.address, self._ports)

    def log_receive_buffer(self) -> None:
        assert self._source is not None
        granted = self._source.receive_buffer_bytes
        if granted >= RECEIVE_BUFFER_BYTES:
            _log.info("receive buffer: %s", size_in_words(granted))
        else:
            _log.warning(
                "receive buffer: %s of the %s asked for; `sysctl -w net.core.rmem_max=%d` allows more",
                size_in_words(granted),
                size_in_words(RECEIVE_BUFFER_BYTES),
                RECEIVE_BUFFER_BYTES,
            )

    def switch_on(self) -> str:
        if self._source is not None:
            return "it is on already"
        try:
            self.open()
        except CaptureError as error:
            raise ValueError(f"it stays off: {error}") from None
        self.switches += 1
        _log.info("switched on: capturing %s", self.describe())
        return f"on: capturing {self.describe()}"

    def switch_off(self) -> str:
        """Closes the sockets. Connections that are open end here; what is complete of them is delivered."""
        if self._source is None:
            return "it is off already"
        self._drain(self._source)
        self.close()
        with self._lock:
            self._pipeline.finish()
        self.switches += 1
        _log.info("switched off: nothing is captured, what was captured is delivered")
        return "off: nothing is captured, what was captured is delivered"

    def watch(self, survey: Survey | None) -> str:
        """Has a survey look at every datagram, too; None ends that."""
        if survey is None:
            self._is_watched = False
            if self._source is not None:
                self._source.use([handler for _, handler in self._ports])
            return ""
        if self._source is None:
            raise ValueError("capturing is switched off: `vxsniff on` first")
        if self._is_watched:
            raise ValueError("another doctor is watching")
        self._is_watched = True
        beside = [survey.vxlan_datagram, survey.geneve_datagram]
        pairs = zip((handler for _, handler in self._ports), beside[: len(self._ports)], strict=True)
        self._source.use([_both(*pair) for pair in pairs])
        return ""

    def close(self) -> None:
        if self._source is not None:
            self._dropped_before += self._source.kernel_dropped
            self._source.close()
            self._source = None

    # ---- the loop

    def run(self) -> None:
        """Captures until it should stop; then takes what has arrived already."""
        tick_ms = TICK_NS // 1_000_000
        next_look_s = 0.0
        while not self._should_stop():
            source = self._source
            if source is None:
                time.sleep(tick_ms / 1000)
            elif source.wait(tick_ms):
                with self._lock:
                    source.receive()
            else:
                with self._lock:
                    self._pipeline.advance(source.clock.now_ns())
            now_s = self._active_s = time.monotonic()
            if self._vnis_file is not None and now_s >= next_look_s:
                next_look_s = now_s + VNIS_FILE_EVERY_S
                self._look_at_vnis_file(self._vnis_file)
            while self._tasks:
                self._tasks.popleft().run()
        if self._source is not None:
            self._drain(self._source)

    def _drain(self, source: UdpSource) -> None:
        end_s = time.monotonic() + DRAIN_S
        while time.monotonic() < end_s:
            with self._lock:
                if not source.receive():
                    break

    def use(self, chosen: Settings) -> None:
        """What else than the pipeline looks at settings: the VNI file."""
        self._settings = chosen
        self._vnis_file = VniFile(chosen.vnis_file) if chosen.vnis_file else None

    def _look_at_vnis_file(self, file: VniFile) -> None:
        try:
            listed = file.changed()
        except ValueError as error:
            _log.warning("%s; the list before goes on", error)
            return
        if listed is not None:
            vnis = self._settings.vnis_given.joined(listed)
            with self._lock:
                self._pipeline.decoder.vnis = vnis
            self.switches += 1
            _log.info("VNIs are now: %s", vnis.describe())


def _both(first: Handler, second: Handler) -> Handler:
    def handle(data: bytes, ts_ns: int) -> None:
        first(data, ts_ns)
        second(data, ts_ns)

    return handle


class _Asked:
    """A task and its answer."""

    def __init__(self, task: Task) -> None:
        self._task = task
        self.done = threading.Event()
        self.went_well = False
        self.text = ""

    def run(self) -> None:
        try:
            self.text = self._task()
            self.went_well = True
        except ValueError as error:
            self.text = str(error)
        finally:
            self.done.set()


class VniFile:
    """The list of VNIs in a file, looked at again and again."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._seen = self._state()

    def _state(self) -> tuple[int, int, int]:
        try:
            status = os.stat(self._path)
        except OSError:
            return 0, 0, 0
        return status.st_ino, status.st_mtime_ns, status.st_size

    def changed(self) -> VniFilter | None:
        """The new list, or None when there is none. Raises ValueError when it can't be read."""
        state = self._state()
        if state == self._seen:
            return None
        self._seen = state
        return settings.read_vnis_file(self._path)


def _listening(address: str, port: int) -> str:
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
