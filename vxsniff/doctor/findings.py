"""An observation -> findings, each with the next step to take."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, NamedTuple

from vxsniff.doctor.observation import Observation

OK: Final = "ok"
NOTE: Final = "note"
PROBLEM: Final = "problem"

MOST: Final = 0.8
"""The share of connections from which on something is the rule."""
MAX_SKEW_S: Final = 5.0
MANY_WAITING: Final = 1000
VXLAN_OVERHEAD_BYTES: Final = 54
"""Outer IPv4, UDP and VXLAN headers, and the inner Ethernet header: what a mirrored packet needs besides its MTU."""


class Finding(NamedTuple):
    """One line for people; `step` is what to do next, empty where there is nothing to do."""

    level: str
    text: str
    step: str = ""


def diagnose(seen: Observation) -> list[Finding]:
    """Findings, in the order of the way that a packet takes."""
    found = [*_arrival(seen)]
    if seen.get("in_scope"):
        found += [*_wire(seen), *_speech(seen), *_rules(seen)]
    return [*found, *_collector(seen)]


def _arrival(seen: Observation) -> list[Finding]:
    frames = seen.get("frames", 0)
    live = not seen.get("is_file")
    found = []
    if seen.get("kernel_dropped"):
        found.append(
            Finding(
                PROBLEM,
                f"the kernel dropped {seen['kernel_dropped']:,} datagrams: the receive buffer was full",
                "raise net.core.rmem_max (the log at start says to what), and mirror less: VNIs, ports, one end only",
            )
        )
    if not frames:
        step = (
            "is the mirror session on, with this machine as its target? does its security group let UDP "
            f"{seen.get('port', 4789)} in from the sources, and do theirs let it out? `tcpdump -ni any udp port "
            f"{seen.get('port', 4789)}` shows whether packets reach the machine"
        )
        if "devices" in seen:
            where = ", ".join(seen["devices"]) or "any device"
            ports = f" on port {_list(seen['app_ports'])}" if seen.get("app_ports") else ""
            step = (
                f"was there traffic{ports} on {where} meanwhile? `vxsniff devices` lists what there is; only servers "
                "on this host are recorded unless --promisc or --no-filter says otherwise"
            )
        return [*found, Finding(PROBLEM, "no packet came", step if live else "is this the right file?")]
    reasons = seen.get("reasons", {})
    foreign = reasons.get("tunnel_invalid", 0) + reasons.get("tunnel_short", 0)
    if foreign > frames * MOST:
        found.append(
            Finding(
                PROBLEM,
                f"{foreign:,} of {frames:,} datagrams are no VXLAN",
                "is it GENEVE (--geneve-port), or something else that is sent to this port?",
            )
        )
        return found
    if not seen.get("segments"):
        kinds = ", ".join(f"{name} {count:,}" for name, count in reasons.items())
        return [
            *found,
            Finding(
                PROBLEM,
                f"{frames:,} packets came, and no TCP among them ({kinds})",
                "the mirror filter must accept protocol 6, TCP, in both directions",
            ),
        ]
    names = _vnis_in_words(seen)
    found.append(Finding(OK, f"{frames:,} packets came, {seen['segments']:,} of them TCP; {names}"))
    found += _filters(seen)
    return found


def _vnis_in_words(seen: Observation) -> str:
    vnis = {vni: count for vni, count in seen.get("vnis", {}).items() if int(vni) >= 0}
    if not vnis:
        return "without a tunnel"
    return "VNIs " + ", ".join(f"{vni} ({count:,})" for vni, count in vnis.items())


def _filters(seen: Observation) -> list[Finding]:
    vnis = [int(vni) for vni in seen.get("vnis", {})]
    wanted, unwanted = seen.get("wanted_vnis", []), seen.get("unwanted_vnis", [])
    passing = [vni for vni in vnis if vni not in unwanted and (not wanted or vni in wanted)]
    if not passing:
        return [
            Finding(
                PROBLEM,
                f"none of them is in a VNI that is captured: {_list(wanted) or 'all'}"
                + (f" but {_list(unwanted)}" if unwanted else ""),
                f"set --vnis to those of your mirror sessions: {_list(v for v in vnis if v >= 0) or 'leave it empty'}",
            )
        ]
    found = []
    silent = [vni for vni in wanted if vni not in vnis and vni not in unwanted]
    if silent:
        found.append(
            Finding(
                NOTE,
                f"nothing came from VNI {_list(silent)}",
                "is that session on, and was there traffic on its source meanwhile?",
            )
        )
    if not seen.get("in_scope"):
        found.append(
            Finding(
                PROBLEM,
                f"none of it is on an application port: {_list(seen.get('app_ports', []))}; "
                f"seen are {', '.join(seen.get('ports', {})) or 'none'}",
                "set --app-ports to the ports that the servers listen on, or leave it empty for all",
            )
        )
    return found


def _wire(seen: Observation) -> list[Finding]:
    found = []
    flows = seen.get("flows", {})
    if seen.get("cut_packets"):
        found.append(
            Finding(
                PROBLEM,
                f"{seen['cut_packets']:,} packets were cut off, at {seen.get('longest_cut_bytes', 0):,} bytes at most",
                "remove the packet length of the mirror session; and the sources' MTU must be "
                f"{VXLAN_OVERHEAD_BYTES} below the target's (8947 for 9001)",
            )
        )
    directed = sum(flows.get(name, 0) for name in ("requests_only", "responses_only", "both_ways"))
    for name, text, missing in (
        ("requests_only", "only what clients send came, no answers", "egress"),
        ("responses_only", "only what servers send came, no requests", "ingress"),
    ):
        if directed and flows.get(name, 0) >= directed * MOST:
            found.append(
                Finding(
                    PROBLEM,
                    f"one direction is missing: of {flows[name]:,} of {directed:,} connections {text}",
                    f"the mirror filter lacks its {missing} rule, if the servers are mirrored "
                    f"(its {'ingress' if missing == 'egress' else 'egress'} rule, if the clients are)",
                )
            )
    if flows.get("seen") and flows.get("no_syn", 0) >= flows["seen"] * MOST:
        found.append(
            Finding(
                NOTE,
                f"the beginning of {flows['no_syn']:,} of {flows['seen']:,} connections was not seen",
                "they were open already: their first call is marked midstream, and HTTP is found with the next message",
            )
        )
    if flows.get("mirrored_twice"):
        found.append(
            Finding(
                NOTE,
                f"{flows['mirrored_twice']:,} connections come from two mirror sessions",
                "each call is shipped once, but costs twice the packets: mirror the servers only",
            )
        )
    return found


def _speech(seen: Observation) -> list[Finding]:
    flows = seen.get("flows", {})
    http, tls, http2, other = (flows.get(name, 0) for name in ("http", "tls", "http2", "other"))
    speaking = http + tls + http2 + other
    if not speaking:
        return [Finding(NOTE, "no connection carried any data", "wait for traffic, or watch longer (--seconds)")]
    ports = ", ".join(f"{port} ({count:,})" for port, count in seen.get("ports", {}).items())
    found = [
        Finding(
            OK if http else PROBLEM,
            f"{speaking:,} connections speak: HTTP/1 {http:,}, TLS {tls:,}, HTTP/2 {http2:,}, other {other:,}"
            + (f"; servers' ports: {ports}" if ports else ""),
            "" if http else "calls are made of plain HTTP/1: mirror where it is spoken",
        )
    ]
    if tls > speaking / 2:
        found.append(
            Finding(
                PROBLEM if not http else NOTE,
                f"{tls:,} of {speaking:,} connections are TLS, which is not decrypted",
                "mirror behind the terminator: the load balancer's targets, or the side behind the proxy",
            )
        )
    if http2:
        found.append(
            Finding(
                PROBLEM if not http else NOTE,
                f"{http2:,} of {speaking:,} connections are HTTP/2 without TLS (gRPC, h2c), which is not decoded",
                "have the servers speak HTTP/1.1 behind the proxy, if these calls are wanted",
            )
        )
    return found


def _rules(seen: Observation) -> list[Finding]:
    calls, shipped = seen.get("calls", 0), seen.get("shipped", 0)
    if not calls:
        if not seen.get("flows", {}).get("http"):
            return []
        return [Finding(NOTE, "no call was complete yet", "watch longer: --seconds")]
    ends = ", ".join(
        f"{name} {count:,}"
        for count, name in (
            (seen.get("stopped", 0), "stopped by a rule"),
            (seen.get("sampled_out", 0), "sampled out"),
            (seen.get("emptied", 0), "left empty by the rules"),
            (seen.get("disabled", 0), "not delivered because it is switched off"),
        )
        if count
    )
    if shipped:
        return [Finding(OK, f"{calls:,} calls, {shipped:,} to be shipped" + (f" ({ends})" if ends else ""))]
    return [
        Finding(
            PROBLEM,
            f"{calls:,} calls, and none is shipped: {ends or 'see the log for errors'}",
            "`vxsniff rules check` prints the rules as they are understood; USAGE_LOGGERS_DISABLE and "
            "skip_submission switch delivery off",
        )
    ]


def _collector(seen: Observation) -> list[Finding]:
    probe = seen.get("collector")
    if not probe:
        return []
    where, status = probe.get("where", "the collector"), probe.get("status", 0)
    if not status:
        found = [
            Finding(
                PROBLEM,
                f"{where} can't be reached: {probe.get('error', 'no answer')}",
                "is it up, is the URL right, does a firewall or security group let this machine out to it?",
            )
        ]
    elif 200 <= status < 300:
        found = [Finding(OK, f"{where} answers {status} in {probe.get('ms', 0):.0f} ms")]
    elif status in (401, 403):
        found = [Finding(PROBLEM, f"{where} answers {status}", "is the token or user in the URL right?")]
    elif 300 <= status < 400:
        found = [Finding(PROBLEM, f"{where} answers {status}, a redirect", "set the URL to where it leads")]
    elif status == 404:
        found = [Finding(PROBLEM, f"{where} answers {status}", "is the path right? Resurface's is /message")]
    elif status < 500:
        found = [
            Finding(
                NOTE,
                f"{where} answers {status} to an empty batch",
                "it is up; whether it takes calls `vxsniff status` tells (accepted, dead)",
            )
        ]
    else:
        found = [Finding(PROBLEM, f"{where} answers {status}", "it is in trouble: its own log tells; calls wait here")]
    skew_s = probe.get("skew_s")
    if skew_s is not None and abs(skew_s) > MAX_SKEW_S:
        found.append(
            Finding(
                PROBLEM,
                f"this machine's clock is {abs(skew_s):.0f} s {'ahead of' if skew_s > 0 else 'behind'} the collector's",
                "calls bear this machine's time: see that both have NTP (`timedatectl`)",
            )
        )
    if seen.get("waiting", 0) > MANY_WAITING:
        found.append(
            Finding(
                NOTE,
                f"{seen['waiting']:,} calls wait for the collector",
                "it is behind: `vxsniff status` again in a while tells whether it catches up",
            )
        )
    if seen.get("refused"):
        found.append(
            Finding(
                PROBLEM,
                f"{seen['refused']:,} calls were refused for good since the start",
                "`vxsniff spool list` names them and the answers that they got, `vxsniff spool retry` sends them again",
            )
        )
    return found


def _list(numbers: Iterable[int]) -> str:
    return ", ".join(str(number) for number in sorted(numbers))
