"""Settings that were read anew -> what changes while vxsniff runs, and what waits for the next start."""

from __future__ import annotations

import dataclasses
from typing import Final, NamedTuple

from vxsniff.app.pipeline import Pipeline
from vxsniff.app.settings import Inputs, Settings
from vxsniff.app.table import BY_VARIABLE
from vxsniff.app.values import without_password

# Field of Settings -> the variable that people know it by.
_APPLIED: Final = {
    "vnis": "SNIFFER_MIRROR_VNIS",
    "app_ports": "APP_PORTS",
    "url": "USAGE_LOGGERS_URL",
    "disable": "USAGE_LOGGERS_DISABLE",
    "rules": "USAGE_LOGGERS_RULES",
    "realip_header": "SNIFFER_REALIP_HEADER",
    "body_limit_bytes": "SNIFFER_BODY_LIMIT",
    "call_ids": "SNIFFER_CALL_ID",
    "debug": "SNIFFER_DEBUG_ENABLED",
}
NOTHING: Final = "nothing has changed"
_AT_NEXT_START: Final = {
    "engine": "SNIFFER_ENGINE",
    "port": "SNIFFER_MIRROR_VXLANPORT",
    "geneve_port": "SNIFFER_MIRROR_GENEVEPORT",
    "address": "SNIFFER_MIRROR_ADDRESS",
    "dedup": "SNIFFER_MIRROR_DEDUP",
    "devices": "NET_DEVICE",
    "ignored_devices": "SNIFFER_IGNORE_DEVICES",
    "promiscuous": "SNIFFER_PROMISC_ENABLED",
    "monitor": "SNIFFER_RF_MONITOR_ENABLED",
    "bpf": "SNIFFER_BPF_FILTER",
    "no_filter": "SNIFFER_NOFILTER",
    "pcap_buffer_bytes": "SNIFFER_PCAP_BUFFER_SIZE",
    "batch_bytes": "SNIFFER_BATCH_SIZE",
    "batch_wait_s": "SNIFFER_BATCH_WAIT",
    "queue_limit_bytes": "SNIFFER_QUEUE_LIMIT",
    "spool_dir": "SNIFFER_SPOOL_DIR",
    "spool_limit_bytes": "SNIFFER_SPOOL_LIMIT",
    "spool_always": "SNIFFER_SPOOL_ALWAYS",
    "memory_limit_bytes": "SNIFFER_MEMORY_LIMIT",
    "workers": "SNIFFER_WORKERS",
    "metrics": "SNIFFER_METRICS_ADDRESS",
    "control": "SNIFFER_CONTROL_SOCKET",
    "verbosity": "SNIFFER_DEBUG_VERBOSITY",
    "debug_export": "SNIFFER_DEBUG_EXPORT",
    "debug_endpoint": "SNIFFER_DEBUG_HTTP_ENDPOINT",
}


class Changes(NamedTuple):
    """The settings that hold from now on, and a line for people on each change."""

    chosen: Settings
    lines: list[str]


def changes_outlet(old: Settings, new: Settings) -> bool:
    """Whether calls go elsewhere, or otherwise, and that can be changed now: from one URL to another."""
    if not (old.posts and new.posts):
        return False
    return old.url != new.url or old.rules.skip_compression != new.rules.skip_compression


def waiting(old: Settings, new: Settings, delivers: bool) -> list[str]:
    """Variables whose change waits for the next start."""
    waits = [name for field, name in _AT_NEXT_START.items() if getattr(old, field) != getattr(new, field)]
    if old.url != new.url and not (old.posts and new.posts):
        waits.append("USAGE_LOGGERS_URL")
    if not delivers and old.delivers != new.delivers:
        waits.append("USAGE_LOGGERS_DISABLE")
    return waits


def in_words(waits: list[str]) -> list[str]:
    return [f"{name} has changed: that takes effect at the next start" for name in waits]


def held_back(old: Settings, new: Settings, delivers: bool) -> Inputs:
    """The new inputs, but as they were before where a change waits for the next start."""
    dotenv = dict(new.inputs.dotenv)
    for variable in {*_AT_NEXT_START.values(), *waiting(old, new, delivers)}:
        for name in (variable, *BY_VARIABLE[variable].aliases):
            if name in old.inputs.dotenv:
                dotenv[name] = old.inputs.dotenv[name]
            else:
                dotenv.pop(name, None)
    return new.inputs._replace(dotenv=dotenv, engine=old.engine)


def apply(old: Settings, new: Settings, pipeline: Pipeline, delivers: bool) -> Changes:
    """Has the pipeline use what it can. The caller sees to it that it stands still meanwhile, and to the outlet."""
    kept = {field: getattr(old, field) for field in _AT_NEXT_START}
    lines = []
    waits = waiting(old, new, delivers)
    if "USAGE_LOGGERS_URL" in waits:
        kept["url"] = old.url
    if "USAGE_LOGGERS_DISABLE" in waits:
        kept["disable"] = old.disable
    chosen = dataclasses.replace(new, **kept)
    for field, name in _APPLIED.items():
        if _essence(old, field) != _essence(chosen, field):
            lines.append(f"{name} is now {_in_words(chosen, field)}")
    pipeline.decoder.vnis = chosen.vnis
    pipeline.decoder.ports = chosen.app_ports
    pipeline.use(
        chosen.rules,
        chosen.realip_header,
        chosen.body_limit_bytes,
        chosen.call_ids,
        disabled=chosen.disable or not delivers,
    )
    lines += in_words(waits)
    return Changes(chosen, lines or [NOTHING])


def _essence(chosen: Settings, field: str) -> object:
    if field == "rules":
        return [rule.describe() for rule in chosen.rules.rules]
    return getattr(chosen, field)


def _in_words(chosen: Settings, field: str) -> str:
    if field == "vnis":
        return chosen.vnis.describe()
    if field == "rules":
        return f"{chosen.rules_origin}, {len(chosen.rules.rules)} in all"
    if field == "url":
        return without_password(chosen.url)
    if field == "app_ports":
        return ",".join(map(str, sorted(chosen.app_ports))) or "all"
    value = getattr(chosen, field)
    return ("on" if value else "off") if isinstance(value, bool) else str(value or "none")
