"""Flags, environment and `.env` -> Settings; whatever does not parse stops the start with one clear line.

A flag beats the environment, the environment beats the file. An empty value counts as not set: templates of charts
and compose files leave such behind. SETTINGS is the one table of all settings: the command line, the README's table
and `.env.example` are checked against it.
"""

from __future__ import annotations

import ipaddress
import os
import re
import socket
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple, TypeVar
from urllib.parse import urlsplit

from vxsniff.call.rules import RuleError, RuleSet, parse_rules
from vxsniff.wire.vxlan import VniFilter, parse_vni_list

_T = TypeVar("_T")

ENGINE_VXLAN: Final = "vxlan"
ENGINE_FILE: Final = "file"
ENGINE_LIBPCAP: Final = "libpcap"
_ENGINES: Final = {
    "vxlan": ENGINE_VXLAN,
    "mirror": ENGINE_VXLAN,
    "libpcap": ENGINE_LIBPCAP,
    "pcap": ENGINE_LIBPCAP,
    "file": ENGINE_FILE,
    "pcap_file": ENGINE_FILE,
}
GENEVE_PORT: Final = 6081
_MIRROR_VARIABLES: Final = (
    "SNIFFER_MIRROR_VNIS",
    "SNIFFER_MIRROR_VNIS_FILE",
    "SNIFFER_MIRROR_VXLANPORT",
    "SNIFFER_MIRROR_GENEVEPORT",
    "SNIFFER_MIRROR_ADDRESS",
)

URL_STDOUT: Final = "-"
URL_TTY: Final = "tty"

OFF: Final = "off"
AUTO: Final = "auto"
EXPORT_LOCAL: Final = "local"
EXPORT_HTTP: Final = "http"
EXPORT_NONE: Final = "none"


class SettingsError(Exception):
    """A setting is wrong: which one, its value, what is allowed."""


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
    Setting("SNIFFER_BATCH_SIZE", "--batch-size", "SIZE", "256KiB", DELIVERY, "a batch closes at this size"),
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

# Variables of network-sniffer 1.4 and of the design that mean something to parts which this version has not yet.
LATER_VARIABLES: Final = ("SNIFFER_WORKERS",)


class Address(NamedTuple):
    host: str
    port: int


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything as it will be used. `rules_origin` says where the rules came from."""

    engine: str
    read: tuple[str, ...]
    vnis: VniFilter
    vnis_given: VniFilter  # without what the file adds
    vnis_file: str
    port: int
    geneve_port: int  # 0: off
    address: str
    dedup: bool
    app_ports: frozenset[int]
    devices: tuple[str, ...]
    ignored_devices: frozenset[str]
    promiscuous: bool
    monitor: bool
    bpf: str
    no_filter: bool
    pcap_buffer_bytes: int  # 0: auto
    url: str
    disable: bool
    batch_bytes: int
    batch_wait_s: float
    queue_limit_bytes: int
    spool_dir: Path | None  # None: off
    spool_limit_bytes: int
    spool_always: bool
    rules: RuleSet
    rules_origin: str
    realip_header: str
    body_limit_bytes: int
    call_ids: bool
    memory_limit_bytes: int
    metrics: Address | None
    metrics_asked_for: bool
    control: Path | None  # None: off
    debug: bool
    verbosity: int
    debug_export: str
    debug_endpoint: str
    ignored_variables: tuple[str, ...]

    @property
    def posts(self) -> bool:
        """Whether calls go to a URL by HTTP."""
        return is_http_url(self.url)


class _Source:
    """Looks settings up, and names where a value came from when it is wrong."""

    def __init__(self, flags: Mapping[str, str], environ: Mapping[str, str], dotenv: Mapping[str, str | None]) -> None:
        self._flags = flags
        self._environ = environ
        self._dotenv = dotenv

    def find(self, variable: str) -> tuple[str, str]:
        """The text of a setting, and the name under which it was given ("" for the default)."""
        setting = BY_VARIABLE[variable]
        if self._flags.get(variable):
            return self._flags[variable], setting.flag.partition("/")[0]
        for places, suffix in ((self._environ, ""), (self._dotenv, " in .env")):
            for name in (variable, *setting.aliases):
                value = places.get(name)
                if value and value.strip():
                    return value, name + suffix
        return setting.default, ""

    def has(self, variable: str) -> bool:
        """Whether a variable has a value, be it no setting."""
        return any((place.get(variable) or "").strip() for place in (self._environ, self._dotenv))

    def is_given(self, variable: str) -> bool:
        """Whether it is there, even empty."""
        names = (variable, *BY_VARIABLE[variable].aliases)
        return any(name in place for place in (self._flags, self._environ, self._dotenv) for name in names)

    def get(self, variable: str, parse: Callable[[str], _T]) -> _T:
        text, origin = self.find(variable)
        try:
            return parse(text)
        except ValueError as error:
            raise SettingsError(f"{origin or variable}: {error}") from None


def resolve(flags: Mapping[str, str], environ: Mapping[str, str], dotenv: Mapping[str, str | None]) -> Settings:
    """Settings from their three sources, each by variable name. Raises SettingsError."""
    source = _Source(flags, environ, dotenv)
    read = source.get("SNIFFER_READ", parse_files)
    engine = _engine(source, bool(read))
    rules_text, rules_origin = source.find("USAGE_LOGGERS_RULES")
    rules = source.get("USAGE_LOGGERS_RULES", load_rules)
    url, url_origin = source.find("USAGE_LOGGERS_URL")
    url = source.get("USAGE_LOGGERS_URL", parse_url)
    disable = source.get("USAGE_LOGGERS_DISABLE", parse_bool)
    if not disable and not rules.skip_submission:
        _check_plain_http(url, url_origin or "USAGE_LOGGERS_URL", rules)
    vnis_file, vnis_file_origin = source.find("SNIFFER_MIRROR_VNIS_FILE")
    vnis = vnis_given = source.get("SNIFFER_MIRROR_VNIS", parse_vni_list)
    if vnis_file:
        try:
            vnis = vnis.joined(read_vnis_file(vnis_file))
        except ValueError as error:
            raise SettingsError(f"{vnis_file_origin}: {error}") from None
    _, spool_origin = source.find("SNIFFER_SPOOL_DIR")
    spool_dir = find_spool_dir(flags, environ, dotenv)
    if (engine == ENGINE_FILE and not spool_origin) or not is_http_url(url):
        spool_dir = None  # a capture file can be read again, and a file is a disk already
    export, endpoint = _export(source, rules)
    _, metrics_origin = source.find("SNIFFER_METRICS_ADDRESS")
    return Settings(
        engine=engine,
        read=read,
        vnis=vnis,
        vnis_given=vnis_given,
        vnis_file=vnis_file,
        port=source.get("SNIFFER_MIRROR_VXLANPORT", parse_port),
        geneve_port=source.get("SNIFFER_MIRROR_GENEVEPORT", parse_port_or_off),
        address=source.get("SNIFFER_MIRROR_ADDRESS", parse_ip),
        dedup=source.get("SNIFFER_MIRROR_DEDUP", parse_bool),
        app_ports=source.get("APP_PORTS", parse_ports),
        devices=source.get("NET_DEVICE", parse_names),
        ignored_devices=frozenset(source.get("SNIFFER_IGNORE_DEVICES", parse_names)),
        promiscuous=source.get("SNIFFER_PROMISC_ENABLED", parse_bool),
        monitor=source.get("SNIFFER_RF_MONITOR_ENABLED", parse_bool),
        bpf=source.find("SNIFFER_BPF_FILTER")[0].strip(),
        no_filter=source.get("SNIFFER_NOFILTER", parse_bool),
        pcap_buffer_bytes=source.get("SNIFFER_PCAP_BUFFER_SIZE", parse_pcap_buffer),
        url=url,
        disable=disable,
        batch_bytes=source.get("SNIFFER_BATCH_SIZE", size_between(1, 64 * _MIB)),
        batch_wait_s=source.get("SNIFFER_BATCH_WAIT", parse_seconds),
        queue_limit_bytes=source.get("SNIFFER_QUEUE_LIMIT", size_between(_MIB, 64 * 1024 * _MIB)),
        spool_dir=spool_dir,
        spool_limit_bytes=source.get("SNIFFER_SPOOL_LIMIT", size_between(_MIB, 16 * 1024 * 1024 * _MIB)),
        spool_always=source.get("SNIFFER_SPOOL_ALWAYS", parse_bool),
        rules=rules,
        rules_origin=_rules_in_words(rules_text, rules_origin),
        realip_header=source.get("SNIFFER_REALIP_HEADER", parse_header_name),
        body_limit_bytes=source.get("SNIFFER_BODY_LIMIT", size_between(1024, 256 * _MIB)),
        call_ids=source.get("SNIFFER_CALL_ID", parse_bool),
        memory_limit_bytes=source.get("SNIFFER_MEMORY_LIMIT", size_between(16 * _MIB, 1024 * 1024 * _MIB)),
        metrics=source.get("SNIFFER_METRICS_ADDRESS", parse_metrics_address),
        metrics_asked_for=bool(metrics_origin),
        control=find_control_socket(flags, environ, dotenv),
        debug=source.get("SNIFFER_DEBUG_ENABLED", parse_bool),
        verbosity=source.get("SNIFFER_DEBUG_VERBOSITY", parse_verbosity),
        debug_export=export,
        debug_endpoint=endpoint,
        ignored_variables=tuple(name for name in LATER_VARIABLES if environ.get(name) or dotenv.get(name)),
    )


def _engine(source: _Source, reads_files: bool) -> str:
    """The engine that was asked for, or that the other settings speak of."""
    if source.has("K8S_INPUT") or source.find("SNIFFER_ENGINE")[0].strip().lower() == "k8s":
        raise SettingsError("K8S_INPUT and the engine k8s are not in this version: use vxlan, libpcap or file")
    engine = source.get("SNIFFER_ENGINE", parse_engine)
    if reads_files:
        return ENGINE_FILE
    if engine == ENGINE_FILE:
        raise SettingsError("the engine `file` reads capture files: name them with --read FILE...")
    if engine != AUTO:
        return engine
    if source.find("NET_DEVICE")[0]:
        return ENGINE_LIBPCAP
    # network-sniffer 1.4 captures on devices unless it is told of a mirror; an empty NET_DEVICE means all of them.
    if any(source.is_given(name) for name in _MIRROR_VARIABLES):
        return ENGINE_VXLAN
    return ENGINE_LIBPCAP if source.is_given("NET_DEVICE") else ENGINE_VXLAN


def _export(source: _Source, rules: RuleSet) -> tuple[str, str]:
    """Where copies go, and the URL if that is one."""
    export = source.get("SNIFFER_DEBUG_EXPORT", parse_export)
    if export != EXPORT_HTTP:
        return export, ""
    endpoint, origin = source.find("SNIFFER_DEBUG_HTTP_ENDPOINT")
    if not is_http_url(endpoint):
        raise SettingsError(f"{origin or 'SNIFFER_DEBUG_HTTP_ENDPOINT'}: {endpoint!r} is no http(s) URL to export to")
    _check_plain_http(endpoint, origin, rules)
    return export, endpoint


def _rules_in_words(text: str, origin: str) -> str:
    where = f" ({origin})" if origin else " (the default)"
    is_short = len(text) <= 60 and "\n" not in text and "\\n" not in text
    return (text if is_short or text.startswith("file://") else "given") + where


# ---- one parser for each kind of value: text -> value, or ValueError with a sentence


def parse_engine(text: str) -> str:
    name = text.strip().lower()
    if name == AUTO:
        return AUTO
    if name not in _ENGINES:
        raise ValueError(f"{text!r} is no engine: use vxlan, libpcap or file")
    return _ENGINES[name]


def parse_files(text: str) -> tuple[str, ...]:
    return tuple(name for name in text.split("\n") if name)


def parse_names(text: str) -> tuple[str, ...]:
    return tuple(text.replace(",", " ").split())


def parse_pcap_buffer(text: str) -> int:
    """0 for auto. A bare number was bytes in network-sniffer 1.4, too."""
    return 0 if text.strip().lower() == AUTO else size_between(64 * 1024, 2048 * _MIB)(text)


def parse_verbosity(text: str) -> int:
    if not re.fullmatch(r"\s*[0-9]\s*", text):
        raise ValueError(f"{text!r} is no verbosity: use 0 to 9")
    return int(text)


def parse_export(text: str) -> str:
    word = text.strip().lower()
    if word == "s3":
        raise ValueError("'s3' is not in this version: use local, and upload the files with `aws s3 sync`")
    if word not in (EXPORT_LOCAL, EXPORT_HTTP, EXPORT_NONE):
        raise ValueError(f"{text!r} is no export: use local, http or none")
    return word


def parse_bool(text: str) -> bool:
    word = text.strip().lower()
    if word in ("1", "true", "yes", "on"):
        return True
    if word in ("0", "false", "no", "off"):
        return False
    raise ValueError(f"{text!r} is neither true nor false")


def parse_port(text: str) -> int:
    if not re.fullmatch(r"\s*[0-9]{1,5}\s*", text) or not 1 <= int(text) <= 65535:
        raise ValueError(f"{text!r} is no port: use a number from 1 to 65535")
    return int(text)


def parse_port_or_off(text: str) -> int:
    return 0 if text.strip().lower() in (OFF, "0") else parse_port(text)


def parse_ports(text: str) -> frozenset[int]:
    """`80,8000-8010 443`: ports and ranges; empty means all."""
    ports: set[int] = set()
    for word in text.replace(",", " ").split():
        first, dash, last = word.partition("-")
        start = parse_port(first)
        end = parse_port(last) if dash else start
        if end < start:
            raise ValueError(f"{word!r} is no range of ports: the first is greater than the last")
        ports.update(range(start, end + 1))
    return frozenset(ports)


def parse_ip(text: str) -> str:
    address = text.strip()
    if address.startswith("[") and address.endswith("]"):
        address = address[1:-1]
    try:
        ipaddress.ip_address(address)
    except ValueError:
        raise ValueError(f"{text!r} is no IP address: use one of this machine's, or :: for all") from None
    return address


_MIB: Final = 1024 * 1024
_SIZE: Final = re.compile(r"\s*([0-9]{1,15}(?:\.[0-9]{1,6})?)\s*([kKmMgG]?)([iI]?)([bB]?)\s*")


def size_between(least: int, most: int) -> Callable[[str], int]:
    """A parser for sizes such as 262144, 256KiB, 1.5MiB, 64M (KiB and K are 1024, kB is 1000), within bounds."""

    def parse(text: str) -> int:
        match = _SIZE.fullmatch(text)
        if match is None or (match[3] and not match[2]):
            raise ValueError(f"{text!r} is no size: use bytes or a unit, such as 256KiB or 1MiB")
        number, unit, binary, byte = match.groups()
        base = 1000 if byte and not binary else 1024
        size = int(float(number) * base ** " kmg".index(unit.lower() or " "))
        if not least <= size <= most:
            raise ValueError(f"{text!r} is out of bounds: use {size_in_words(least)} to {size_in_words(most)}")
        return size

    return parse


def size_in_words(size: int) -> str:
    """The size in its greatest whole unit."""
    for unit, name in ((1024 * _MIB, "GiB"), (_MIB, "MiB"), (1024, "KiB")):
        if size >= unit and size % unit == 0:
            return f"{size // unit} {name}"
    return f"{size} bytes" if size < _MIB else f"{size / _MIB:.1f} MiB"


def parse_seconds(text: str) -> float:
    match = re.fullmatch(r"\s*([0-9]{1,6}(?:\.[0-9]{1,6})?)\s*(ms|s|)\s*", text)
    seconds = 0.0 if match is None else float(match[1]) / (1000 if match[2] == "ms" else 1)
    if not 0.01 <= seconds <= 3600:
        raise ValueError(f"{text!r} is no time that can be used: 10ms to 3600s")
    return seconds


def parse_header_name(text: str) -> str:
    name = text.strip()
    if name and not re.fullmatch(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", name):
        raise ValueError(f"{text!r} is no header name, such as X-Real-IP")
    return name


def parse_metrics_address(text: str) -> Address | None:
    text = text.strip()
    if text.lower() == OFF:
        return None
    host, colon, port = text.rpartition(":")
    if not colon:
        raise ValueError(f"{text!r} is no address to listen on: use HOST:PORT, such as 127.0.0.1:9478, or off")
    return Address(parse_ip(host) if host else "0.0.0.0", parse_port(port))


def find_spool_dir(
    flags: Mapping[str, str], environ: Mapping[str, str], dotenv: Mapping[str, str | None]
) -> Path | None:
    """A folder; `auto` is the state folder of systemd's unit, of root or of the user; `off` is none."""
    word = _Source(flags, environ, dotenv).find("SNIFFER_SPOOL_DIR")[0].strip()
    if word.lower() == OFF:
        return None
    return state_dir(environ) if word.lower() == AUTO else Path(word)


def find_control_socket(
    flags: Mapping[str, str], environ: Mapping[str, str], dotenv: Mapping[str, str | None]
) -> Path | None:
    """The control socket's path; `auto` is in the runtime folder of systemd's unit, of root or of the user."""
    word = _Source(flags, environ, dotenv).find("SNIFFER_CONTROL_SOCKET")[0].strip()
    if word.lower() == OFF or (word.lower() == AUTO and not hasattr(socket, "AF_UNIX")):
        return None
    return runtime_dir(environ) / "control.sock" if word.lower() == AUTO else Path(word)


def runtime_dir(environ: Mapping[str, str]) -> Path:
    """Where what ends with the process belongs (systemd.exec: RUNTIME_DIRECTORY; XDG Base Directory Specification)."""
    if environ.get("RUNTIME_DIRECTORY"):
        return Path(environ["RUNTIME_DIRECTORY"].partition(":")[0])
    user = user_id()
    if user == 0:
        return Path("/run/vxsniff")
    if environ.get("XDG_RUNTIME_DIR"):
        return Path(environ["XDG_RUNTIME_DIR"]) / "vxsniff"
    return Path(tempfile.gettempdir()) / f"vxsniff-{user}"


def user_id() -> int:
    """0 for root; 1 where the system has no such numbers."""
    return os.geteuid() if hasattr(os, "geteuid") else 1


def state_dir(environ: Mapping[str, str]) -> Path:
    """Where what outlives the process belongs (systemd.exec: STATE_DIRECTORY; XDG Base Directory Specification)."""
    if environ.get("STATE_DIRECTORY"):
        return Path(environ["STATE_DIRECTORY"].partition(":")[0])
    if user_id() == 0:
        return Path("/var/lib/vxsniff")
    base = environ.get("XDG_STATE_HOME") or environ.get("LOCALAPPDATA") or os.path.expanduser("~/.local/state")
    return Path(base) / "vxsniff"


def is_http_url(url: str) -> bool:
    return url.startswith(("http://", "https://"))


def parse_url(text: str) -> str:
    """An http or https URL, a file's path, `-` or `tty`."""
    url = text.strip()
    scheme, separator, _ = url.partition("://")
    if separator:
        url = scheme.lower() + url[len(scheme) :]
        if not is_http_url(url):
            raise ValueError(f"{text!r}: {scheme}:// is not delivered to: use http://, https://, a file, - or tty")
        try:
            parts = urlsplit(url)
            has_host = bool(parts.hostname) and parts.port != 0
        except ValueError:
            has_host = False
        if not has_host:
            raise ValueError(f"{text!r} is no URL, such as http://localhost:7701/message")
    elif re.match(r"[\w.-]+:[0-9]+(/|$)", url):
        raise ValueError(f"{text!r} looks like a URL without its scheme: use http://{url}, or ./{url} for a file")
    return url


def without_password(url: str) -> str:
    """The URL for people: user and password left out."""
    if not is_http_url(url):
        return url
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()


def _check_plain_http(url: str, origin: str, rules: RuleSet) -> None:
    """Plain http leaves the machine readable for all: only to loopback, or when a rule says so."""
    if not url.startswith("http://") or rules.allow_http_url:
        return
    host = urlsplit(url).hostname or ""
    try:
        is_loopback = ipaddress.ip_address(host).is_loopback
    except ValueError:
        is_loopback = host.lower() == "localhost" or host.lower().endswith(".localhost")
    if not is_loopback:
        raise SettingsError(
            f"{origin}: {without_password(url)} sends calls unencrypted to another host: "
            "use https://, or add the rule allow_http_url"
        )


def load_rules(text: str) -> RuleSet:
    r"""Rules from a setting: the text itself, `\n` for line breaks where it has none, or `file://PATH`."""
    if text.strip().startswith("file://"):
        path = text.strip().removeprefix("file://")
        try:
            text = Path(path).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ValueError(f"the rules file {path} can't be read: {_reason(error)}") from None
    elif "\n" not in text:
        text = text.replace("\\n", "\n")
    try:
        return parse_rules(text)
    except RuleError as error:
        raise ValueError(str(error)) from None


def read_vnis_file(path: str) -> VniFilter:
    """The list in a VNI file; raises ValueError."""
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"the VNI file {path} can't be read: {_reason(error)}") from None
    return parse_vni_list(text)


def _reason(error: OSError | UnicodeDecodeError) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return "it is not UTF-8 text"
