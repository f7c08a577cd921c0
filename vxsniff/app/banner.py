"""What a vxsniff says of itself when it starts, and words for where calls go."""

from __future__ import annotations

import logging
from pathlib import Path

from vxsniff import __version__
from vxsniff.app import values
from vxsniff.app.build import build
from vxsniff.app.settings import Settings
from vxsniff.app.values import size_in_words
from vxsniff.call.patterns import RE_MAX_CHARS

_log = logging.getLogger("vxsniff")


def log_start(chosen: Settings, what: str, spool: Path | None) -> None:
    """`what` is captured; `spool` is the file or the folder of it, if there is one."""
    _log.info("vxsniff %s (%s)", __version__, build())
    ports = ports_in_words(chosen.app_ports)
    twins = "" if chosen.dedup else ", every copy of a doubly mirrored call"
    _log.info("capturing: %s; VNIs %s; %s%s", what, chosen.vnis.describe(), ports, twins)
    if chosen.delivers:
        packed = " compressed" if chosen.posts and not chosen.rules.skip_compression else ""
        how = f" in{packed} batches of {size_in_words(chosen.batch_bytes)}" if chosen.posts else ""
        _log.info("delivering: to %s%s", where(chosen.url), how)
        if chosen.is_cleartext:
            _log.warning("%s: calls go there unencrypted, as a rule (allow_http_url) allows", where(chosen.url))
    else:
        _log.info("delivering: nothing, it is switched off")
    if spool is not None:
        how = "every call goes there first" if chosen.spool_always else "used when the collector is behind"
        _log.info("spool: %s, up to %s, %s", spool, size_in_words(chosen.spool_limit_bytes), how)
    _log.info("rules: %s, %d in all", chosen.rules_origin, len(chosen.rules.rules))
    if chosen.unknown_variables:
        _log.warning("no settings of vxsniff's, ignored: %s", ", ".join(chosen.unknown_variables))
    for rule in chosen.rules.slow_rules:
        _log.warning(
            "line %d: %r can't run in linear time: longer values than %d characters count as caught by it",
            rule.line,
            rule.text,
            RE_MAX_CHARS,
        )


def where(url: str) -> str:
    """The place that calls go to, for people; without a password."""
    if url in (values.URL_STDOUT, values.URL_TTY):
        return "standard output"
    return values.without_password(url)


def ports_in_words(ports: frozenset[int]) -> str:
    """Application ports as a list of numbers and ranges."""
    if not ports:
        return "all TCP ports"
    words = []
    ordered = sorted(ports)
    start = 0
    for i, port in enumerate(ordered):
        if i + 1 == len(ordered) or ordered[i + 1] != port + 1:
            words.append(str(port) if i == start else f"{ordered[start]}-{port}")
            start = i + 1
    return "TCP ports " + ", ".join(words)
