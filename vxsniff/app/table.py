"""The table of settings: what there is, under which names. `--help`, README and .env.example show it."""

from __future__ import annotations

from typing import Final, NamedTuple

from vxsniff.app.values import OFF


class Setting(NamedTuple):
    """One row of the table. `default` is the text that stands for no value."""

    variable: str
    flag: str
    metavar: str
    default: str
    panel: str
    help: str
    aliases: tuple[str, ...] = ()


CAPTURE: Final = "Capture"
DEVICES: Final = "Local devices (libpcap)"
DELIVERY: Final = "Delivery"
PRIVACY: Final = "Content"
OPERATION: Final = "Operation"

SETTINGS: Final = (
    Setting(
        "SNIFFER_ENGINE",
        "--engine",
        "NAME",
        "auto",
        CAPTURE,
        "what to capture from: vxlan (also: mirror), libpcap (also: pcap), file (also: pcap_file); "
        "auto: file with --read, libpcap with --device or NET_DEVICE, else vxlan",
    ),
    Setting(
        "SNIFFER_READ", "--read", "FILE...", "", CAPTURE, "read capture files, merged by time; - is standard input"
    ),
    Setting("SNIFFER_MIRROR_VNIS", "--vnis", "LIST", "", CAPTURE, "VNIs to capture, negative to exclude; all if empty"),
    Setting(
        "SNIFFER_MIRROR_VNIS_FILE",
        "--vnis-file",
        "FILE",
        "",
        CAPTURE,
        "the same list in a file, added to --vnis; watched, applied without a restart",
    ),
    Setting("SNIFFER_MIRROR_VXLANPORT", "--port", "PORT", "4789", CAPTURE, "UDP port for VXLAN"),
    Setting("SNIFFER_MIRROR_GENEVEPORT", "--geneve-port", "PORT", OFF, CAPTURE, "UDP port for GENEVE, 6081 by custom"),
    Setting(
        "SNIFFER_MIRROR_ADDRESS", "--address", "IP", "::", CAPTURE, "local address; :: is every one, IPv4 and IPv6"
    ),
    Setting(
        "SNIFFER_MIRROR_DEDUP",
        "--dedup/--no-dedup",
        "",
        "on",
        CAPTURE,
        "a connection that is mirrored at both ends gives each call once",
    ),
    Setting(
        "APP_PORTS",
        "--app-ports",
        "LIST",
        "",
        CAPTURE,
        "TCP ports of the applications, such as 80,8000-8010; all if empty",
        ("APP_PORT",),
    ),
    Setting(
        "NET_DEVICE",
        "--device",
        "LIST",
        "",
        DEVICES,
        "devices to capture on; all that are up if empty, whenever they come",
        ("VPC_MIRROR_DEVICE",),
    ),
    Setting("SNIFFER_IGNORE_DEVICES", "--ignore-device", "LIST", "", DEVICES, "devices to leave out of all"),
    Setting(
        "SNIFFER_PROMISC_ENABLED",
        "--promisc/--no-promisc",
        "",
        "off",
        DEVICES,
        "take what is not addressed to this host as well",
    ),
    Setting("SNIFFER_RF_MONITOR_ENABLED", "--rf-monitor/--no-rf-monitor", "", "off", DEVICES, "Wi-Fi monitor mode"),
    Setting(
        "SNIFFER_BPF_FILTER",
        "--bpf",
        "FILTER",
        "",
        DEVICES,
        "a capture filter (pcap-filter) in place of the one made from --app-ports and the devices' addresses",
    ),
    Setting(
        "SNIFFER_NOFILTER",
        "--no-filter/--filter",
        "",
        "off",
        DEVICES,
        "no capture filter: everything is looked at here",
    ),
    Setting(
        "SNIFFER_PCAP_BUFFER_SIZE",
        "--pcap-buffer",
        "SIZE",
        "auto",
        DEVICES,
        "libpcap's buffer for each device; auto: 64MiB, less where there are many",
    ),
    Setting(
        "USAGE_LOGGERS_URL",
        "--url",
        "URL",
        "http://localhost:7701/message",
        DELIVERY,
        "where calls go: an http(s) URL, a file, - for NDJSON on standard output, tty for readable lines",
    ),
    Setting(
        "USAGE_LOGGERS_DISABLE", "--disable/--no-disable", "", "off", DELIVERY, "capture and count, deliver nothing"
    ),
    Setting("SNIFFER_BATCH_SIZE", "--batch-size", "SIZE", "512KiB", DELIVERY, "a batch closes at this size"),
    Setting(
        "SNIFFER_BATCH_WAIT",
        "--batch-wait",
        "TIME",
        "500ms",
        DELIVERY,
        "or when its first call is this old, whichever comes first",
    ),
    Setting(
        "SNIFFER_QUEUE_LIMIT",
        "--queue-limit",
        "SIZE",
        "64MiB",
        DELIVERY,
        "memory for calls that wait for delivery; beyond it the oldest are dropped and counted",
    ),
    Setting(
        "SNIFFER_SPOOL_DIR",
        "--spool-dir",
        "DIR",
        "auto",
        DELIVERY,
        "where calls wait on disk when the collector is behind; auto: /var/lib/vxsniff or the like; off: memory only",
    ),
    Setting(
        "SNIFFER_SPOOL_LIMIT",
        "--spool-limit",
        "SIZE",
        "1GiB",
        DELIVERY,
        "disk for calls that wait; beyond it the oldest are dropped and counted",
    ),
    Setting(
        "SNIFFER_SPOOL_ALWAYS",
        "--spool-always/--no-spool-always",
        "",
        "off",
        DELIVERY,
        "deliver nothing that is not on disk, so that not even a crash loses what was taken",
    ),
    Setting(
        "USAGE_LOGGERS_RULES",
        "--rules",
        "RULES",
        "include default",
        PRIVACY,
        r"privacy rules, \n between them, or file://PATH",
    ),
    Setting("SNIFFER_REALIP_HEADER", "--realip-header", "NAME", "", PRIVACY, "add the client's address as this header"),
    Setting(
        "SNIFFER_BODY_LIMIT",
        "--body-limit",
        "SIZE",
        "1MiB",
        PRIVACY,
        "most that is kept of a decoded body; the rest is left out",
    ),
    Setting(
        "SNIFFER_CALL_ID",
        "--call-id/--no-call-id",
        "",
        "on",
        PRIVACY,
        "add an id to each call that is the same in every capture of it, to know a second copy by",
    ),
    Setting(
        "SNIFFER_MEMORY_LIMIT",
        "--memory-limit",
        "SIZE",
        "512MiB",
        OPERATION,
        "memory for all connections that are being reassembled",
    ),
    Setting(
        "SNIFFER_WORKERS",
        "--workers",
        "N",
        "1",
        OPERATION,
        "processes that share mirrored packets, all of a connection to one; auto: one for each processor",
    ),
    Setting(
        "SNIFFER_METRICS_ADDRESS",
        "--metrics",
        "HOST:PORT",
        "127.0.0.1:9478",
        OPERATION,
        "serves /metrics and /healthz; off for none; with --read only when given",
    ),
    Setting(
        "SNIFFER_CONTROL_SOCKET",
        "--control",
        "PATH",
        "auto",
        OPERATION,
        "the socket of vxsniff on, off, status and reload; auto: /run/vxsniff or the like; off for none",
    ),
    Setting(
        "SNIFFER_DEBUG_ENABLED",
        "--debug/--no-debug",
        "",
        "off",
        OPERATION,
        "log more, and tracebacks of our own errors",
    ),
    Setting(
        "SNIFFER_DEBUG_VERBOSITY",
        "--verbosity",
        "N",
        "0",
        OPERATION,
        "with --debug: from 2 on each call is printed as well, as NDJSON, after the rules",
    ),
    Setting(
        "SNIFFER_DEBUG_EXPORT",
        "--debug-export",
        "WHERE",
        "none",
        OPERATION,
        "with --debug: a copy of each call, after the rules, to local (a file a day, here), http, or none",
    ),
    Setting(
        "SNIFFER_DEBUG_HTTP_ENDPOINT", "--debug-endpoint", "URL", "", OPERATION, "where --debug-export http sends to"
    ),
)
BY_VARIABLE: Final = {setting.variable: setting for setting in SETTINGS}
