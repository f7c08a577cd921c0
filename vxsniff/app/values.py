"""One parser for each kind of value that settings have: text -> value, or ValueError with a sentence."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable
from typing import Final, NamedTuple
from urllib.parse import urlsplit

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
URL_STDOUT: Final = "-"
URL_TTY: Final = "tty"

OFF: Final = "off"
AUTO: Final = "auto"
EXPORT_LOCAL: Final = "local"
EXPORT_HTTP: Final = "http"
EXPORT_NONE: Final = "none"
VERBOSITY_STDOUT: Final = 2
"""From this verbosity on calls are printed, too."""


class Address(NamedTuple):
    host: str
    port: int


def parse_engine(text: str) -> str:
    name = text.strip().lower()
    if name == AUTO:
        return AUTO
    if name not in _ENGINES:
        raise ValueError(f"{text!r} is no engine: use vxlan, libpcap or file")
    return _ENGINES[name]


def parse_files(text: str) -> tuple[str, ...]:
    names = tuple(name for name in text.split("\n") if name)
    if names.count("-") > 1:
        raise ValueError("standard input can be read once: name - once")
    return names


def parse_names(text: str) -> tuple[str, ...]:
    return tuple(text.replace(",", " ").split())


def parse_pcap_buffer(text: str) -> int:
    """0 for auto. A bare number was bytes in network-sniffer 1.4, too."""
    return 0 if text.strip().lower() == AUTO else size_between(64 * 1024, 2048 * MIB)(text)


def parse_workers(text: str) -> int:
    """A number of processes; 0 for `auto`."""
    if text.strip().lower() == AUTO:
        return 0
    if not (text.strip().isascii() and text.strip().isdigit()) or not 1 <= int(text) <= MAX_WORKERS:
        raise ValueError(f"{text!r} is no number of workers: use 1 to {MAX_WORKERS}, or auto")
    return int(text)


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
        try:
            start = parse_port(first)
            end = parse_port(last) if dash else start
        except ValueError:
            raise ValueError(f"{word!r} is no port and no range of ports, such as 80 or 8000-8010") from None
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


MIB: Final = 1024 * 1024
GIB: Final = 1024 * MIB
MAX_WORKERS: Final = 64
TIB: Final = 1024 * GIB
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
    for unit, name in ((GIB, "GiB"), (MIB, "MiB"), (1024, "KiB")):
        if size >= unit and size % unit == 0:
            return f"{size // unit} {name}"
    return f"{size} bytes" if size < MIB else f"{size / MIB:.1f} MiB"


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


def parse_target(text: str) -> Address:
    """Where datagrams are sent to: a name or an address, and a port."""
    host, colon, port = text.strip().rpartition(":")
    if not colon or not host:
        raise ValueError(f"{text!r} is no place to send to: use HOST:PORT, such as 10.0.0.5:4789")
    return Address(host.strip("[]"), parse_port(port))


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
