"""What the kernel is asked to leave out: a capture filter in libpcap's language (pcap-filter(7))."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

_FRAGMENTS = "(ip and ip[6:2] & 0x1fff != 0 and (ip proto 6 or ip proto 17)) or (ip6 and ip6[6] = 44)"


def capture_filter(
    ports: Iterable[int], addresses: Sequence[str] = (), tunnel_ports: Iterable[int] = (), has_tags: bool = False
) -> str:
    """TCP of these application ports (none: all), in both directions; tunnels; fragments, whose ports are not known.

    With `addresses` only servers at these are captured, as the host whose device it is would want. `has_tags` looks
    behind up to two VLAN tags, which only Ethernet has.
    """
    wanted = _port_terms(ports)
    directions = []
    for way in ("dst", "src"):
        terms = [" or ".join(f"tcp {way} {term}" for term in wanted) if wanted else "tcp"]
        if addresses:
            terms.append(" or ".join(f"{way} host {address}" for address in addresses))
        directions.append(" and ".join(f"({term})" for term in terms))
    # One direction says it all where nothing tells them apart.
    parts = [f"({direction})" for direction in dict.fromkeys(directions)]
    parts += [f"udp dst port {port}" for port in sorted(set(tunnel_ports))]
    parts.append(_FRAGMENTS)
    plain = " or ".join(parts)
    # `vlan` moves all that follows it, so it comes last.
    return f"({plain}) or (vlan and (({plain}) or (vlan and ({plain}))))" if has_tags else plain


def _port_terms(ports: Iterable[int]) -> list[str]:
    """`port N` and `portrange N-M`, as few as possible."""
    terms: list[str] = []
    first = last = -1
    for port in [*sorted(ports), -1]:
        if port == last + 1 and first >= 0:
            last = port
            continue
        if first >= 0:
            terms.append(f"port {first}" if first == last else f"portrange {first}-{last}")
        first = last = port
    return terms
