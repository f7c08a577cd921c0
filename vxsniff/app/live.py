"""Live capture: the receive loop of the capturing thread, and what can be switched while it runs.

Other threads ask for something with `ask`; the loop does it between two receives, so that nothing else ever touches
sockets or pipeline.
"""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from typing import Final

from vxsniff.app import settings, values
from vxsniff.app.ledger import Entry
from vxsniff.app.pipeline import Pipeline
from vxsniff.app.settings import Settings, SettingsError
from vxsniff.capture.pcap import STATS, PcapOptions, PcapSource, check_expression
from vxsniff.capture.source import CaptureError, Receiver, Source
from vxsniff.capture.udp import GENEVE, KERNEL_FILTERED, Port, UdpSource
from vxsniff.doctor.survey import Survey
from vxsniff.flow.table import TICK_NS
from vxsniff.wire.vxlan import VniFilter

DRAIN_S: Final = 1.0
"""How long what lies in the receive buffer at the end may take."""
ASK_TIMEOUT_S: Final = 8.0
VNIS_FILE_EVERY_S: Final = 1.0
HEALTHY_WITHIN_S: Final = 5.0
NOTES_EVERY_S: Final = 0.5

SOCKET_COUNTS: Final = {
    KERNEL_FILTERED: "datagrams that the kernel left out: other VNIs, other ports, bare acknowledgements"
}
_log = logging.getLogger("vxsniff")

Task = Callable[[], str]
"""Something to do in the capturing thread; answers what there is to say, raises ValueError when it is refused."""


class LiveCapture:
    """Sockets, loop and switches. `lock` is held while the pipeline works."""

    def __init__(
        self,
        chosen: Settings,
        pipeline: Pipeline,
        lock: threading.Lock,
        should_stop: Callable[[], bool],
        inherited: Sequence[socket.socket] = (),
        ports: list[Port] | None = None,
    ) -> None:
        """Sockets that are `inherited` are used in place of own ones, for these `ports`."""
        self._settings = chosen
        self._inherited = inherited
        self._ports = ports if ports is not None else udp_ports(chosen)
        self._pipeline = pipeline
        self._lock = lock
        self._should_stop = should_stop
        self._source: Source | None = None
        self._is_watched = False
        self._dropped_before = 0  # by the kernel, of sources that are closed by now
        self._counts_before: Counter[str] = Counter()  # and what else they had counted
        self._vnis_file = VniFile(chosen.vnis_file) if chosen.vnis_file else None
        self._tasks: deque[_Asked] = deque()
        self._active_s = time.monotonic()
        self.switches = 0

    # ---- looks, from any thread

    @property
    def is_on(self) -> bool:
        return self._source is not None

    @property
    def is_healthy(self) -> bool:
        """Whether the loop turns. Switched off it still does: `is_on` tells."""
        return time.monotonic() - self._active_s < HEALTHY_WITHIN_S

    @property
    def kernel_dropped(self) -> int:
        source = self._source
        return self._dropped_before + (source.kernel_dropped if source is not None else 0)

    def describe(self) -> str:
        """Where packets are taken from, in words."""
        source = self._source
        return "nothing, it is switched off" if source is None else source.describe()

    def facts(self) -> tuple[Entry, ...]:
        """What the source counts besides: libpcap its own (pcap_stats(3PCAP)), sockets what the kernel left out."""
        source = self._source
        counts = self._counts_before + (source.counts if source is not None else Counter())
        meanings = STATS if self._settings.engine == values.ENGINE_LIBPCAP else SOCKET_COUNTS
        return tuple(Entry(name, counts[name], meaning) for name, meaning in meanings.items())

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
        """Opens sockets or devices; raises CaptureError."""
        self._source = self._make_source()

    def empty(self) -> None:
        """Takes what lies in sockets that are shut already; nothing is captured from then on."""
        source = UdpSource(self._settings.address, self._ports, self._pipeline, None, self._inherited, is_shut=True)
        self._drain(source)
        source.close()
        with self._lock:
            self._pipeline.finish()

    def _make_source(self) -> Source:
        chosen = self._settings
        if chosen.engine == values.ENGINE_LIBPCAP:
            if chosen.bpf:
                _check_filter(chosen.bpf)
            tunnel_ports = (chosen.port, chosen.geneve_port or values.GENEVE_PORT)
            options = PcapOptions(
                chosen.devices,
                chosen.ignored_devices,
                chosen.app_ports,
                tunnel_ports,
                chosen.bpf,
                chosen.no_filter,
                chosen.promiscuous,
                chosen.monitor,
                chosen.pcap_buffer_bytes,
            )
            return PcapSource(options, self._pipeline)
        decoder = self._pipeline.decoder
        wanted = None if chosen.no_filter else (decoder.vnis, decoder.ports)
        return UdpSource(chosen.address, self._ports, self._pipeline, wanted, self._inherited)

    def log_notes(self) -> None:
        """Says in the log what the source has to say."""
        for note in self._source.notes() if self._source is not None else ():
            _log.log(logging.WARNING if note.is_warning else logging.INFO, "%s", note.text)

    def switch_on(self) -> str:
        if self._source is not None:
            return "it is on already"
        try:
            self.open()
        except CaptureError as error:
            raise ValueError(f"it stays off: {error}") from None
        self.switches += 1
        self.log_notes()
        _log.info("switched on: capturing %s", self.describe())
        return f"on: capturing {self.describe()}"

    def switch_off(self) -> str:
        """Closes sockets or devices. Connections that are open end here; what is complete of them is delivered."""
        if self._source is None:
            return "it is off already"
        self._source.shut_out()
        self._drain(self._source)
        self.close()
        with self._lock:
            self._pipeline.finish()
        self.switches += 1
        _log.info("switched off: nothing is captured, what was captured is delivered")
        return "off: nothing is captured, what was captured is delivered"

    def watch(self, survey: Survey | None) -> str:
        """Has a survey look at every datagram, too; None ends that."""
        source = self._source
        if survey is None:
            self._is_watched = False
            if source is not None:
                source.use(self._pipeline)
                self._narrow()
            return ""
        if source is None:
            raise ValueError("capturing is switched off: `vxsniff on` first")
        if self._is_watched:
            raise ValueError("another doctor is watching")
        self._is_watched = True
        source.use(_Both(self._pipeline, survey))
        source.want_all()
        return ""

    def _narrow(self) -> None:
        """Has the kernel leave out what the pipeline does not want, unless somebody watches it all."""
        if self._source is not None and not (self._is_watched or self._settings.no_filter):
            self._source.want(self._pipeline.decoder.vnis, self._pipeline.decoder.ports)

    def close(self) -> None:
        if self._source is not None:
            self._dropped_before += self._source.kernel_dropped
            self._counts_before += self._source.counts
            self._source.close()
            self._source = None

    # ---- the loop

    def run(self) -> None:
        """Captures until it should stop; then takes what has arrived already."""
        tick_ms = TICK_NS // 1_000_000
        next_look_s = next_note_s = 0.0
        while not self._should_stop():
            source = self._source
            if source is None:
                time.sleep(tick_ms / 1000)
            else:
                may_read = source.wait(tick_ms)
                with self._lock:
                    if not (may_read and source.receive()):
                        self._pipeline.advance(source.now_ns())
            now_s = self._active_s = time.monotonic()
            if now_s >= next_note_s:
                next_note_s = now_s + NOTES_EVERY_S
                self.log_notes()
            if self._vnis_file is not None and now_s >= next_look_s:
                next_look_s = now_s + VNIS_FILE_EVERY_S
                self._look_at_vnis_file(self._vnis_file)
            while self._tasks:
                self._tasks.popleft().run()
        if self._source is not None:
            self._drain(self._source)

    def _drain(self, source: Source) -> None:
        end_s = time.monotonic() + DRAIN_S
        while time.monotonic() < end_s:
            with self._lock:
                if not source.receive():
                    break

    def use(self, chosen: Settings) -> None:
        """What else than the pipeline looks at settings: the VNI file."""
        self._settings = chosen
        self._vnis_file = VniFile(chosen.vnis_file) if chosen.vnis_file else None
        self._narrow()

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
            self._narrow()
            self.switches += 1
            _log.info("VNIs are now: %s", vnis.describe())


def udp_ports(chosen: Settings) -> list[Port]:
    """The ports to listen on, for mirrored packets."""
    return [Port(chosen.port)] + ([Port(chosen.geneve_port, GENEVE)] if chosen.geneve_port else [])


def _check_filter(expression: str) -> None:
    try:
        check_expression(expression)
    except ValueError as error:
        raise SettingsError(f"SNIFFER_BPF_FILTER: {error}") from None


class _Both:
    """A receiver that gives packets to two."""

    def __init__(self, first: Receiver, second: Receiver) -> None:
        self._first = first
        self._second = second

    def vxlan_datagram(self, data: bytes, ts_ns: int) -> None:
        self._first.vxlan_datagram(data, ts_ns)
        self._second.vxlan_datagram(data, ts_ns)

    def geneve_datagram(self, data: bytes, ts_ns: int) -> None:
        self._first.geneve_datagram(data, ts_ns)
        self._second.geneve_datagram(data, ts_ns)

    def frame(self, data: bytes, link_type: int, ts_ns: int) -> None:
        self._first.frame(data, link_type, ts_ns)
        self._second.frame(data, link_type, ts_ns)


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
