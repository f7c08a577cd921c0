"""Flags, environment and `.env` -> Settings; whatever does not parse stops the start with one clear line.

A flag beats the environment, the environment beats the file. An empty value counts as not set: templates of charts
and compose files leave such behind. `vxsniff.app.table` is the one table of all settings: the
command line, the README's table and `.env.example` are checked against it.
"""

from __future__ import annotations

import ipaddress
import os
import socket
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, NamedTuple, TypeVar
from urllib.parse import urlsplit

from vxsniff.app import values
from vxsniff.app.table import BY_VARIABLE
from vxsniff.call.rules import RuleError, RuleSet, parse_rules
from vxsniff.wire.vxlan import VniFilter, parse_vni_list

_T = TypeVar("_T")

_MIRROR_VARIABLES: Final = (
    "SNIFFER_MIRROR_VNIS",
    "SNIFFER_MIRROR_VNIS_FILE",
    "SNIFFER_MIRROR_VXLANPORT",
    "SNIFFER_MIRROR_GENEVEPORT",
    "SNIFFER_MIRROR_ADDRESS",
)


class SettingsError(Exception):
    """A setting is wrong: which one, its value, what is allowed."""


class Inputs(NamedTuple):
    """What settings were made of that may be another thing by now, while flags and environment stay: lines of .env,
    rules as text, the VNI file's text (where it can't be read any more), and which engine came of it.
    """

    dotenv: dict[str, str | None]
    rules_text: str
    vnis_text: str
    engine: str


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
    workers: int
    metrics: values.Address | None
    metrics_asked_for: bool
    control: Path | None  # None: off
    debug: bool
    verbosity: int
    debug_export: str
    debug_endpoint: str
    unknown_variables: tuple[str, ...]
    inputs: Inputs

    @property
    def posts(self) -> bool:
        """Whether calls go to a URL by HTTP."""
        return values.is_http_url(self.url)

    @property
    def delivers(self) -> bool:
        """Whether calls go anywhere."""
        return not (self.disable or self.rules.skip_submission)

    @property
    def is_cleartext(self) -> bool:
        """Whether calls leave the machine unencrypted."""
        return is_cleartext(self.url)

    def share(self, workers: int) -> Settings:
        """The same for one of several workers: limits of memory and disk hold for all of them together."""
        return replace(
            self,
            memory_limit_bytes=max(values.MIB, self.memory_limit_bytes // workers),
            queue_limit_bytes=max(values.MIB, self.queue_limit_bytes // workers),
            spool_limit_bytes=max(values.MIB, self.spool_limit_bytes // workers),
        )


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


def resolve(
    flags: Mapping[str, str],
    environ: Mapping[str, str],
    dotenv: Mapping[str, str | None],
    held: Inputs | None = None,
) -> Settings:
    """Settings from their three sources, each by variable name. Raises SettingsError. With `held` they are made as they
    were before: `dotenv` is that of `held`, and neither rules nor engine are looked for anew.
    """
    source = _Source(flags, environ, dotenv)
    read = source.get("SNIFFER_READ", values.parse_files) if held is None else ()
    engine = _engine(source, bool(read)) if held is None else held.engine
    rules_setting, rules_origin = source.find("USAGE_LOGGERS_RULES")
    rules_text = source.get("USAGE_LOGGERS_RULES", read_rules) if held is None else held.rules_text
    try:
        rules = parse_rules(rules_text)
    except RuleError as error:
        raise SettingsError(f"{rules_origin or 'USAGE_LOGGERS_RULES'}: {error}") from None
    url, url_origin = source.find("USAGE_LOGGERS_URL")
    url = source.get("USAGE_LOGGERS_URL", values.parse_url)
    disable = source.get("USAGE_LOGGERS_DISABLE", values.parse_bool)
    if not disable and not rules.skip_submission:
        _check_plain_http(url, url_origin or "USAGE_LOGGERS_URL", rules)
    vnis_file, vnis_file_origin = source.find("SNIFFER_MIRROR_VNIS_FILE")
    vnis = vnis_given = source.get("SNIFFER_MIRROR_VNIS", parse_vni_list)
    vnis_text = ""
    if vnis_file:
        try:
            vnis_text = _text_of(vnis_file)
        except ValueError as error:
            if held is None:
                raise SettingsError(f"{vnis_file_origin}: {error}") from None
            vnis_text = held.vnis_text
        try:
            vnis = vnis.joined(parse_vni_list(vnis_text))
        except ValueError as error:
            raise SettingsError(f"{vnis_file_origin}: {error}") from None
    _, spool_origin = source.find("SNIFFER_SPOOL_DIR")
    spool_dir = find_spool_dir(flags, environ, dotenv)
    if (engine == values.ENGINE_FILE and not spool_origin) or not values.is_http_url(url):
        spool_dir = None  # a capture file can be read again, and a file is a disk already
    export, endpoint = _export(source, rules)
    _, metrics_origin = source.find("SNIFFER_METRICS_ADDRESS")
    return Settings(
        engine=engine,
        read=read,
        vnis=vnis,
        vnis_given=vnis_given,
        vnis_file=vnis_file,
        port=source.get("SNIFFER_MIRROR_VXLANPORT", values.parse_port),
        geneve_port=source.get("SNIFFER_MIRROR_GENEVEPORT", values.parse_port_or_off),
        address=source.get("SNIFFER_MIRROR_ADDRESS", values.parse_ip),
        dedup=source.get("SNIFFER_MIRROR_DEDUP", values.parse_bool),
        app_ports=source.get("APP_PORTS", values.parse_ports),
        devices=source.get("NET_DEVICE", values.parse_names),
        ignored_devices=frozenset(source.get("SNIFFER_IGNORE_DEVICES", values.parse_names)),
        promiscuous=source.get("SNIFFER_PROMISC_ENABLED", values.parse_bool),
        monitor=source.get("SNIFFER_RF_MONITOR_ENABLED", values.parse_bool),
        bpf=source.find("SNIFFER_BPF_FILTER")[0].strip(),
        no_filter=source.get("SNIFFER_NOFILTER", values.parse_bool),
        pcap_buffer_bytes=source.get("SNIFFER_PCAP_BUFFER_SIZE", values.parse_pcap_buffer),
        url=url,
        disable=disable,
        batch_bytes=source.get("SNIFFER_BATCH_SIZE", values.size_between(1, 64 * values.MIB)),
        batch_wait_s=source.get("SNIFFER_BATCH_WAIT", values.parse_seconds),
        queue_limit_bytes=source.get("SNIFFER_QUEUE_LIMIT", values.size_between(values.MIB, 64 * values.GIB)),
        spool_dir=spool_dir,
        spool_limit_bytes=source.get("SNIFFER_SPOOL_LIMIT", values.size_between(values.MIB, 16 * values.TIB)),
        spool_always=source.get("SNIFFER_SPOOL_ALWAYS", values.parse_bool),
        rules=rules,
        rules_origin=_rules_in_words(rules_setting, rules_origin),
        realip_header=source.get("SNIFFER_REALIP_HEADER", values.parse_header_name),
        body_limit_bytes=source.get("SNIFFER_BODY_LIMIT", values.size_between(1024, 256 * values.MIB)),
        call_ids=source.get("SNIFFER_CALL_ID", values.parse_bool),
        memory_limit_bytes=source.get("SNIFFER_MEMORY_LIMIT", values.size_between(16 * values.MIB, values.TIB)),
        workers=_workers(source, engine, url),
        metrics=source.get("SNIFFER_METRICS_ADDRESS", values.parse_metrics_address),
        metrics_asked_for=bool(metrics_origin),
        control=find_control_socket(flags, environ, dotenv),
        debug=source.get("SNIFFER_DEBUG_ENABLED", values.parse_bool),
        verbosity=source.get("SNIFFER_DEBUG_VERBOSITY", values.parse_verbosity),
        debug_export=export,
        debug_endpoint=endpoint,
        unknown_variables=_unknown(environ, dotenv),
        inputs=Inputs(dict(dotenv), rules_text, vnis_text, engine),
    )


def _engine(source: _Source, reads_files: bool) -> str:
    """The engine that was asked for, or that the other settings speak of."""
    if source.has("K8S_INPUT") or source.find("SNIFFER_ENGINE")[0].strip().lower() == "k8s":
        raise SettingsError("K8S_INPUT and the engine k8s are not in this version: use vxlan, libpcap or file")
    engine = source.get("SNIFFER_ENGINE", values.parse_engine)
    if reads_files:
        return values.ENGINE_FILE
    if engine == values.ENGINE_FILE:
        raise SettingsError("the engine `file` reads capture files: name them with --read FILE...")
    if engine != values.AUTO:
        return engine
    if source.find("NET_DEVICE")[0]:
        return values.ENGINE_LIBPCAP
    # network-sniffer 1.4 captures on devices unless it is told of a mirror; an empty NET_DEVICE means all of them.
    if any(source.is_given(name) for name in _MIRROR_VARIABLES):
        return values.ENGINE_VXLAN
    return values.ENGINE_LIBPCAP if source.is_given("NET_DEVICE") else values.ENGINE_VXLAN


def _workers(source: _Source, engine: str, url: str) -> int:
    """How many processes capture. `auto` is one for each processor where there can be several."""
    wanted = source.get("SNIFFER_WORKERS", values.parse_workers)
    origin = source.find("SNIFFER_WORKERS")[1]
    refused = ""
    if sys.platform != "linux":
        refused = "several workers need Linux"
    elif engine != values.ENGINE_VXLAN:
        refused = f"the engine {engine} has one worker: several are for mirrored packets (engine vxlan)"
    elif url in (values.URL_STDOUT, values.URL_TTY):
        refused = "several workers can't share standard output: give --url a URL or a file"
    elif source.get("SNIFFER_DEBUG_ENABLED", values.parse_bool) and (
        source.get("SNIFFER_DEBUG_VERBOSITY", values.parse_verbosity) >= values.VERBOSITY_STDOUT
    ):
        refused = "several workers can't share standard output: leave --verbosity out"
    if not refused:
        return wanted or len(os.sched_getaffinity(0))
    if wanted > 1 and engine != values.ENGINE_FILE:
        raise SettingsError(f"{origin}: {refused}")
    return 1


def _export(source: _Source, rules: RuleSet) -> tuple[str, str]:
    """Where copies go, and the URL if that is one."""
    export = source.get("SNIFFER_DEBUG_EXPORT", values.parse_export)
    if export != values.EXPORT_HTTP:
        return export, ""
    endpoint, origin = source.find("SNIFFER_DEBUG_HTTP_ENDPOINT")
    if not values.is_http_url(endpoint):
        raise SettingsError(f"{origin or 'SNIFFER_DEBUG_HTTP_ENDPOINT'}: {endpoint!r} is no http(s) URL to export to")
    _check_plain_http(endpoint, origin, rules)
    return export, endpoint


def _rules_in_words(text: str, origin: str) -> str:
    where = f" ({origin})" if origin else " (the default)"
    is_short = len(text) <= 60 and "\n" not in text and "\\n" not in text
    return (text if is_short or text.startswith("file://") else "given") + where


# ---- places, texts and files that settings name


def find_spool_dir(
    flags: Mapping[str, str], environ: Mapping[str, str], dotenv: Mapping[str, str | None]
) -> Path | None:
    """A folder; `auto` is the state folder of systemd's unit, of root or of the user; `off` is none."""
    word = _Source(flags, environ, dotenv).find("SNIFFER_SPOOL_DIR")[0].strip()
    if word.lower() == values.OFF:
        return None
    return state_dir(environ) if word.lower() == values.AUTO else Path(word)


def find_control_socket(
    flags: Mapping[str, str], environ: Mapping[str, str], dotenv: Mapping[str, str | None]
) -> Path | None:
    """The control socket's path; `auto` is in the runtime folder of systemd's unit, of root or of the user."""
    word = _Source(flags, environ, dotenv).find("SNIFFER_CONTROL_SOCKET")[0].strip()
    if word.lower() == values.OFF or (word.lower() == values.AUTO and not hasattr(socket, "AF_UNIX")):
        return None
    return runtime_dir(environ) / "control.sock" if word.lower() == values.AUTO else Path(word)


def find_metrics_address(
    flags: Mapping[str, str], environ: Mapping[str, str], dotenv: Mapping[str, str | None]
) -> values.Address | None:
    """Where /metrics and /healthz are served; None is off."""
    return _Source(flags, environ, dotenv).get("SNIFFER_METRICS_ADDRESS", values.parse_metrics_address)


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


def _check_plain_http(url: str, origin: str, rules: RuleSet) -> None:
    """Plain http leaves the machine readable for all: only to loopback, or when a rule says so."""
    if is_cleartext(url) and not rules.allow_http_url:
        raise SettingsError(
            f"{origin}: {values.without_password(url)} sends calls unencrypted to another host: "
            "use https://, or add the rule allow_http_url"
        )


def is_cleartext(url: str) -> bool:
    """Whether what goes there leaves the machine unencrypted."""
    if not url.startswith("http://"):
        return False
    host = urlsplit(url).hostname or ""
    try:
        return not ipaddress.ip_address(host).is_loopback
    except ValueError:
        return not (host.lower() == "localhost" or host.lower().endswith(".localhost"))


def _unknown(environ: Mapping[str, str], dotenv: Mapping[str, str | None]) -> tuple[str, ...]:
    """Variables that look like settings and are none: misspelled ones, as a rule."""
    known = {name for setting in BY_VARIABLE.values() for name in (setting.variable, *setting.aliases)}
    named = (name for name in {**dotenv, **environ} if name.startswith(("SNIFFER_", "USAGE_LOGGERS_")))
    return tuple(sorted(set(named) - known))


def read_rules(text: str) -> str:
    r"""The text of the rules from a setting: the text itself, `\n` for line breaks where it has none, or `file://PATH`.
    Raises ValueError.
    """
    if text.strip().startswith("file://"):
        path = text.strip().removeprefix("file://")
        try:
            return Path(path).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ValueError(f"the rules file {path} can't be read: {_reason(error)}") from None
    return text if "\n" in text else text.replace("\\n", "\n")


def read_vnis_file(path: str) -> VniFilter:
    """The list in a VNI file; raises ValueError."""
    return parse_vni_list(_text_of(path))


def _text_of(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"the VNI file {path} can't be read: {_reason(error)}") from None


def _reason(error: OSError | UnicodeDecodeError) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return "it is not UTF-8 text"
