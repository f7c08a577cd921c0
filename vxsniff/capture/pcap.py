"""Frames of local devices through libpcap (package pcapy-ng, extra `vxsniff[pcap]`).

libpcap is read in batches. Its immediate mode is not used: there each slot of the ring has the size of the largest
packet, so that 2 MiB hold 32 of them; in blocks they lie side by side, and a block is handed over when it is full or
BLOCK_WAIT_MS old. Times are the kernel's, in microseconds.

A packet that passes several devices (veth, bridge, `lo`) is read on each. What the devices have at one time is given
in order of time; the copies are then repetitions like any other.
"""

from __future__ import annotations

import contextlib
import select
import struct
import time
from collections import Counter
from dataclasses import dataclass
from typing import Any, Final

from vxsniff.capture.bpf import capture_filter
from vxsniff.capture.devices import EXTRA, Device, choose, list_devices
from vxsniff.capture.privileges import use_permitted
from vxsniff.capture.source import CaptureError, Note, Receiver
from vxsniff.wire.vxlan import VniFilter

SNAPLEN_BYTES: Final = 262_144
"""More than any packet, super-segments of GRO and TSO (64 KiB) and frames of jumbo loopbacks with their headers."""
BLOCK_WAIT_MS: Final = 10
"""Measured on `lo`, a packet costs at 1,000 a second: 1 ms 23 us, 10 ms 10 us, 100 ms 3 us; at 25,000 a second 0.8, 0.7
and 0.3 us. None lost any.
"""
BATCH_FRAMES: Final = 1024
"""At most so many frames of a device are taken before the next one's turn."""
BUFFER_BYTES: Final = 64 * 1024 * 1024
BUFFERS_BYTES: Final = 256 * 1024 * 1024
LEAST_BUFFER_BYTES: Final = 2 * 1024 * 1024
LOOK_EVERY_S: Final = 2.0
"""How often devices that come and go are looked for."""

ETHERNET: Final = 1
LINK_TYPE_NAMES: Final = {
    0: "null",
    ETHERNET: "Ethernet",
    12: "raw IP",
    14: "raw IP",
    101: "raw IP",
    108: "loop",
    113: "Linux cooked v1",
    228: "raw IPv4",
    229: "raw IPv6",
    276: "Linux cooked v2",
}
"""The link types that are decoded (LINKTYPE_ and DLT_ values)."""
STATS: Final = {
    "pcap_received": "packets that passed the capture filter, by libpcap (ps_recv)",
    "pcap_dropped": "lost because the capture buffer was full (ps_drop)",
    "pcap_interface_dropped": "lost by the device or its driver (ps_ifdrop)",
}
"""What pcap_stats(3PCAP) tells, in its order, and what that means."""
_RECORD: Final = struct.Struct("=IIII")  # seconds, microseconds, offset, length
_PAUSE_S: Final = 0.002

# pcap/pcap.h
_PERMISSION: Final = (-8, -11)
_ERRORS: Final = {
    -1: "libpcap reports an error",
    -5: "there is no such device",
    -6: "it has no monitor mode: leave out --rf-monitor",
    -8: "no permission",
    -9: "it is down",
    -11: "no permission for promiscuous mode",
}
_WAY_OUT: Final = (
    "no permission to capture on devices: run as root, give the interpreter the right with "
    "`setcap cap_net_raw,cap_net_admin+eip $(readlink -f $(command -v python3))`, "
    "or a container with --cap-add NET_RAW --cap-add NET_ADMIN"
)


@dataclass(frozen=True)
class PcapOptions:
    """`devices` empty: all that are up, whenever they come. `expression` replaces the filter that is made.

    `buffer_bytes` 0: BUFFER_BYTES, less where there are many devices.
    """

    devices: tuple[str, ...] = ()
    ignored: frozenset[str] = frozenset()
    ports: frozenset[int] = frozenset()
    tunnel_ports: tuple[int, ...] = (4789, 6081)
    expression: str = ""
    no_filter: bool = False
    promiscuous: bool = False
    monitor: bool = False
    buffer_bytes: int = 0


class _Handle:
    """One device that is open."""

    def __init__(self, device: Device, reader: Any, link_type: int) -> None:
        self.device = device
        self.reader = reader
        self.link_type = link_type
        self.fd = _fd_of(reader)
        self.before = reader.stats()


class PcapSource:
    """The devices of this host. `close` when done."""

    def __init__(self, options: PcapOptions, receiver: Receiver) -> None:
        """Opens the devices; raises CaptureError when there is none to capture on."""
        self._pcapy = load_pcapy()
        use_permitted()
        self._options = options
        self._receiver = receiver
        self._handles: dict[str, _Handle] = {}
        self._poll = select.poll() if hasattr(select, "poll") else None
        self._notes: list[Note] = []
        self._noted: set[tuple[str, str]] = set()
        self._ended: Counter[str] = Counter()  # what devices that are closed had counted
        self._next_look_s = time.monotonic() + LOOK_EVERY_S
        devices = choose(list_devices(), options.devices, options.ignored)
        self._buffer_bytes = options.buffer_bytes or max(
            LEAST_BUFFER_BYTES, min(BUFFER_BYTES, BUFFERS_BYTES // max(1, len(devices)))
        )
        failures = [self._open(device) for device in devices]
        if not self._handles:
            self.close()
            raise CaptureError(next((text for text in failures if text), "there is no device that is up"))

    # ---- devices

    def _open(self, device: Device) -> str:
        """Empty when it went well, else why it did not."""
        options = self._options
        reader = self._pcapy.create(device.name)
        reader.set_snaplen(SNAPLEN_BYTES)
        reader.set_timeout(BLOCK_WAIT_MS)
        reader.set_buffer_size(self._buffer_bytes)
        reader.set_promisc(int(options.promiscuous))
        try:
            if options.monitor:
                reader.set_rfmon(1)
            status = reader.activate()
            if status < 0:
                return self._failed(
                    device, _WAY_OUT if status in _PERMISSION else _ERRORS.get(status, f"error {status}")
                )
            link_type = reader.datalink()
            reader.setnonblock(1)
            if not options.no_filter:
                reader.setfilter(options.expression or self._filter_of(device, link_type))
            handle = _Handle(device, reader, link_type)
        except self._pcapy.PcapError as error:
            with contextlib.suppress(self._pcapy.PcapError):
                reader.close()
            return self._failed(device, str(error))
        self._handles[device.name] = handle
        if self._poll is not None and handle.fd >= 0:
            self._poll.register(handle.fd, select.POLLIN)
        if link_type not in LINK_TYPE_NAMES:
            self._notes.append(Note(f"device {device.name}: link type {link_type} is not decoded", is_warning=True))
        self._noted = {entry for entry in self._noted if entry[0] != device.name}
        return ""

    def _failed(self, device: Device, why: str) -> str:
        if (device.name, why) not in self._noted:
            self._noted.add((device.name, why))
            self._notes.append(Note(f"device {device.name} is not captured: {why}", is_warning=True))
        return why if why == _WAY_OUT else f"device {device.name}: {why}"

    def _filter_of(self, device: Device, link_type: int) -> str:
        options = self._options
        addresses = () if options.promiscuous else device.own_addresses
        return capture_filter(options.ports, addresses, options.tunnel_ports, has_tags=link_type == ETHERNET)

    def _look_at_devices(self) -> None:
        """Closes what has gone, and opens what has come."""
        try:
            present = choose(list_devices(), (), frozenset())
        except OSError:
            return
        by_name = {device.name: device for device in present}
        for name, handle in list(self._handles.items()):
            now = by_name.get(name)
            if handle.device.interface >= 0 and (now is None or now.interface != handle.device.interface):
                self._close(handle)
                self._notes.append(Note(f"device {name} has gone"))
            elif now is not None and now.addresses != handle.device.addresses:
                self._use_addresses(handle, now)
        wanted = self._options.devices
        for device in present:
            is_wanted = device.name in wanted if wanted else device.name not in self._options.ignored
            if is_wanted and device.name not in self._handles and not self._open(device):
                self._notes.append(Note(f"device {device.name} has come: capturing"))

    def _use_addresses(self, handle: _Handle, device: Device) -> None:
        handle.device = device
        if self._options.no_filter or self._options.expression:
            return
        with contextlib.suppress(self._pcapy.PcapError):
            handle.reader.setfilter(self._filter_of(device, handle.link_type))

    def _close(self, handle: _Handle) -> None:
        self._ended.update(self._counts_of(handle))
        del self._handles[handle.device.name]
        if self._poll is not None and handle.fd >= 0:
            with contextlib.suppress(KeyError):
                self._poll.unregister(handle.fd)
        handle.reader.close()

    # ---- the source

    def describe(self) -> str:
        names = ", ".join(self._handles) or "none that is up"
        if not self._options.devices:
            return f"all devices ({names})"
        return f"device{'s' if len(self._options.devices) > 1 else ''} {names}"

    def notes(self) -> list[Note]:
        said, self._notes = self._notes, []
        return said

    def shut_out(self) -> None:
        """Nothing of it outlives it."""

    def use(self, receiver: Receiver) -> None:
        self._receiver = receiver

    def want(self, vnis: VniFilter, ports: frozenset[int]) -> None:
        """Its capture filter was made when the devices were opened."""

    def want_all(self) -> None:
        """The same."""

    def wait(self, timeout_ms: int) -> bool:
        now_s = time.monotonic()
        if now_s >= self._next_look_s:
            self._next_look_s = now_s + LOOK_EVERY_S
            self._look_at_devices()
        if self._poll is None or any(handle.fd < 0 for handle in self._handles.values()):
            time.sleep(min(timeout_ms / 1000, _PAUSE_S))  # no descriptor to wait for: ask now and then
            return True
        return bool(self._poll.poll(timeout_ms))

    def receive(self) -> int:
        """At most BATCH_FRAMES of each device, together in order of time."""
        found: list[tuple[int, int, bytes]] = []
        for handle in list(self._handles.values()):
            try:
                data, records = handle.reader.next_batch(BATCH_FRAMES)
            except self._pcapy.PcapError as error:
                self._close(handle)
                self._notes.append(Note(f"device {handle.device.name} has gone: {error}"))
                continue
            link_type = handle.link_type
            for seconds, micros, offset, size in _RECORD.iter_unpack(records):
                ts_ns = seconds * 1_000_000_000 + micros * 1000
                found.append((ts_ns, link_type, data[offset : offset + size]))
        if len(self._handles) > 1:
            found.sort(key=_time_of)
        handler = self._receiver.frame
        for ts_ns, link_type, frame in found:
            handler(frame, link_type, ts_ns)
        return len(found)

    def now_ns(self) -> int:
        return time.time_ns()

    @property
    def counts(self) -> Counter[str]:
        """Of all devices since the start."""
        counts = self._ended.copy()
        for handle in list(self._handles.values()):
            counts.update(self._counts_of(handle))
        return counts

    def _counts_of(self, handle: _Handle) -> dict[str, int]:
        try:
            stats = handle.reader.stats()
        except (self._pcapy.PcapError, ValueError):  # closed meanwhile, by the capturing thread
            return {}
        since = ((now - before) % 2**32 for now, before in zip(stats, handle.before, strict=True))
        return dict(zip(STATS, since, strict=True))

    @property
    def kernel_dropped(self) -> int:
        counts = self.counts
        return counts["pcap_dropped"] + counts["pcap_interface_dropped"]

    def close(self) -> None:
        for handle in list(self._handles.values()):
            self._close(handle)


def load_pcapy() -> Any:
    """The module pcapy; raises CaptureError when it is not installed."""
    try:
        import pcapy
    except ImportError:
        raise CaptureError(f"the libpcap engine needs pcapy-ng: {EXTRA}") from None
    return pcapy


def check_expression(expression: str) -> None:
    """Raises ValueError with libpcap's own words when it is no filter."""
    pcapy = load_pcapy()
    try:
        pcapy.compile(pcapy.DLT_EN10MB, SNAPLEN_BYTES, expression, 1, 0)
    except pcapy.PcapError as error:
        raise ValueError(f"{expression!r} is no capture filter: {error}") from None


def link_type_of(name: str) -> int:
    """The link type of a device; -1 when it can't be opened."""
    pcapy = load_pcapy()
    reader = pcapy.create(name)
    try:
        return int(reader.datalink()) if reader.activate() >= 0 else -1
    except pcapy.PcapError:
        return -1
    finally:
        reader.close()


def _fd_of(reader: Any) -> int:
    try:
        return int(reader.getfd())
    except Exception:  # Npcap has none, and says so in its own way
        return -1


def _time_of(entry: tuple[int, int, bytes]) -> int:
    return entry[0]
