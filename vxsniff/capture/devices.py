"""Network devices: their names, addresses and state, from psutil, and how libpcap calls them."""

from __future__ import annotations

import ipaddress
import socket
from typing import Final, NamedTuple

from vxsniff.capture.source import CaptureError

ANY: Final = "any"
_FAMILIES: Final = (socket.AF_INET, socket.AF_INET6)


class Device(NamedTuple):
    """`interface` is the system's number, which tells a device from one that had its name before; -1: none known."""

    name: str
    interface: int
    is_up: bool
    is_loopback: bool
    addresses: tuple[str, ...]

    @property
    def own_addresses(self) -> tuple[str, ...]:
        """What a server on this host is reached at through this device; empty when that can't be told.

        Loopback also carries what the host says to its other addresses; link-local addresses are everywhere.
        """
        if self.is_loopback:
            return ()
        return tuple(text for text in self.addresses if not ipaddress.ip_address(text).is_link_local)


EXTRA: Final = "install vxsniff with its extra pcap (`.venv/bin/pip install '.[pcap]'` in its folder)"


def list_devices() -> list[Device]:
    """The host's network devices; not libpcap's other sources (`any`, USB, netfilter). Raises CaptureError."""
    try:
        import psutil
    except ImportError:
        raise CaptureError(f"the libpcap engine needs psutil: {EXTRA}") from None
    addresses = psutil.net_if_addrs()
    devices = []
    for name, state in psutil.net_if_stats().items():
        own = [entry for entry in addresses.get(name, []) if entry.family in _FAMILIES]
        texts = tuple(entry.address.partition("%")[0] for entry in own)
        is_loopback = "loopback" in state.flags or any(ipaddress.ip_address(text).is_loopback for text in texts)
        devices.append(Device(name, _index_of(name), state.isup, is_loopback, texts))
    return sorted(devices, key=lambda device: device.name)


def choose(devices: list[Device], wanted: tuple[str, ...], ignored: frozenset[str]) -> list[Device]:
    """The devices to capture on: those named, or all that are up. Raises CaptureError when a name is no device's."""
    known = {device.name: device for device in devices}
    if not wanted:
        return [device for device in devices if device.is_up and device.name not in ignored]
    chosen = []
    for name in wanted:
        if name == ANY:
            chosen.append(Device(ANY, -1, True, False, ()))
        elif name in known:
            chosen.append(known[name])
        else:
            raise CaptureError(f"there is no device {name!r}: there are {', '.join(known) or 'none'}")
    return chosen


def _index_of(name: str) -> int:
    try:
        return socket.if_nametoindex(name)
    except (OSError, AttributeError):
        return -1
