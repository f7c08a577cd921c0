"""What was observed: fit for JSON, because it may come from another process. What is missing counts as zero."""

from __future__ import annotations

from collections import Counter
from typing import Final, TypedDict, cast


class CollectorSeen(TypedDict, total=False):
    """The answer to an empty batch; see `vxsniff.delivery.post.Probe`."""

    where: str
    status: int
    error: str
    ms: float
    skew_s: float | None


class Observation(TypedDict, total=False):
    """First what `Survey` saw; then what the pipeline counted meanwhile; then the settings that findings speak of."""

    frames: int
    segments: int
    reasons: dict[str, int]
    vnis: dict[str, int]
    """Packets by VNI, -1 for no tunnel: of all that came, whatever the filters say."""
    ports: dict[str, int]
    in_scope: int
    """Segments that the VNI and port filters let through."""
    cut_packets: int
    longest_cut_bytes: int
    flows: dict[str, int]
    """Connections in scope: seen, by what they speak, by direction."""

    calls: int
    shipped: int
    stopped: int
    sampled_out: int
    emptied: int
    disabled: int
    kernel_dropped: int
    waiting: int
    """Calls that the collector has not taken yet, in memory and on disk."""
    refused: int
    """Calls that it refused for good, since the start."""
    devices: list[str]
    """What is captured on, empty for all; missing where a mirror is received."""

    is_file: bool
    where: str
    port: int
    wanted_vnis: list[int]
    unwanted_vnis: list[int]
    app_ports: list[int]
    collector: CollectorSeen


_LARGEST: Final = frozenset(("longest_cut_bytes",))
_THE_SAME: Final = frozenset(
    ("is_file", "where", "port", "wanted_vnis", "unwanted_vnis", "app_ports", "collector", "devices")
)


def merged(some: list[Observation]) -> Observation:
    """What several workers saw, each a part of the traffic, with the same settings."""
    found: dict[str, object] = {}
    for one in some:
        for name, value in one.items():
            before = found.get(name)
            if before is None:
                found[name] = value
            elif name in _THE_SAME:
                continue
            elif isinstance(value, int) and isinstance(before, int):
                found[name] = max(before, value) if name in _LARGEST else before + value
            elif isinstance(value, dict) and isinstance(before, dict):
                found[name] = dict(Counter(before) + Counter(value))
    return cast(Observation, found)
