"""Settings from flags, environment and .env: precedence, every kind of value, and one clear line for a wrong one."""

import os
import sys

import pytest

from vxsniff.app import table
from vxsniff.app.settings import SettingsError, resolve
from vxsniff.app.table import SETTINGS
from vxsniff.wire.vxlan import VniFilter


def chosen(flags=None, environ=None, dotenv=None):
    return resolve(flags or {}, environ or {}, dotenv or {})


def test_without_any_setting_the_defaults_are_those_of_the_table():
    got = chosen()
    assert (got.engine, got.port, got.geneve_port, got.address) == ("vxlan", 4789, 0, "::")
    assert (got.vnis, got.app_ports, got.dedup, got.disable) == (VniFilter(), frozenset(), True, False)
    assert got.url == "http://localhost:7701/message"
    assert (got.body_limit_bytes, got.memory_limit_bytes) == (1 << 20, 512 << 20)
    assert (got.batch_bytes, got.batch_wait_s, got.queue_limit_bytes) == (512 << 10, 0.5, 64 << 20)
    assert got.metrics == ("127.0.0.1", 9478)
    assert [rule.verb for rule in got.rules.rules] == ["replace", "remove"]


def test_a_flag_beats_the_environment_and_the_environment_beats_the_file():
    name = "SNIFFER_MIRROR_VXLANPORT"
    assert chosen({name: "1"}, {name: "2"}, {name: "3"}).port == 1
    assert chosen({}, {name: "2"}, {name: "3"}).port == 2
    assert chosen({}, {}, {name: "3"}).port == 3


def test_an_empty_value_counts_as_not_set():
    assert (
        chosen({}, {"SNIFFER_MIRROR_VXLANPORT": " ", "SNIFFER_MIRROR_VNIS": ""}, {"SNIFFER_MIRROR_VXLANPORT": "5"}).port
        == 5
    )


@pytest.mark.parametrize(
    ("variable", "value", "message"),
    [
        ("SNIFFER_ENGINE", "tcpdump", "'tcpdump' is no engine: use vxlan, libpcap or file"),
        ("SNIFFER_ENGINE", "file", "name them with --read"),
        ("SNIFFER_MIRROR_VNIS", "12,x", "'x' is not a VNI: use numbers from 0 to 16777215"),
        ("SNIFFER_MIRROR_VXLANPORT", "0", "'0' is no port: use a number from 1 to 65535"),
        ("SNIFFER_MIRROR_VXLANPORT", "65536", "is no port"),
        ("SNIFFER_MIRROR_VXLANPORT", "http", "is no port"),
        ("SNIFFER_MIRROR_GENEVEPORT", "yes", "is no port"),
        ("SNIFFER_MIRROR_ADDRESS", "localhost", "is no IP address"),
        ("SNIFFER_MIRROR_DEDUP", "maybe", "'maybe' is neither true nor false"),
        ("APP_PORTS", "80-70", "is no range of ports"),
        ("APP_PORTS", "80,http", "is no port"),
        ("USAGE_LOGGERS_URL", "ftp://x/", "ftp:// is not delivered to"),
        ("USAGE_LOGGERS_URL", "http://", "is no URL"),
        ("USAGE_LOGGERS_URL", "http://[::1/", "is no URL"),
        ("USAGE_LOGGERS_URL", "db.example:7701/message", "without its scheme: use http://db.example:7701/message"),
        ("USAGE_LOGGERS_RULES", "include debug\n/a/ rmove", "line 2: '/a/ rmove'"),
        ("USAGE_LOGGERS_RULES", "file:///no/such/rules", "can't be read: No such file"),
        ("SNIFFER_BODY_LIMIT", "1 apple", "is no size"),
        ("SNIFFER_BODY_LIMIT", "1GiB", "out of bounds: use 1 KiB to 256 MiB"),
        ("SNIFFER_MEMORY_LIMIT", "1KiB", "out of bounds"),
        ("SNIFFER_BATCH_WAIT", "soon", "is no time"),
        ("SNIFFER_REALIP_HEADER", "X Real", "is no header name"),
        ("SNIFFER_METRICS_ADDRESS", "9478", "use HOST:PORT"),
        ("SNIFFER_MIRROR_VNIS_FILE", "/no/such/file", "can't be read: No such file"),
    ],
)
def test_a_wrong_value_stops_the_start_with_its_setting_its_value_and_what_is_allowed(variable, value, message):
    flag = table.BY_VARIABLE[variable].flag.partition("/")[0]
    for source, origin in ((0, flag), (1, variable), (2, f"{variable} in .env")):
        sources = [{}, {}, {}]
        sources[source][variable] = value
        with pytest.raises(SettingsError) as caught:
            resolve(*sources)
        text = str(caught.value)
        assert message in text
        assert "\n" not in text
        assert text.startswith(f"{origin}: ") or "--read" in message


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("1048576", 1 << 20),
        ("1MiB", 1 << 20),
        ("1 m", 1 << 20),
        ("1.5K", 1536),
        ("2kB", 2000),
        ("3 KIB", 3072),
        ("4096B", 4096),
    ],
)
def test_sizes_have_units(text, size):
    assert chosen({"SNIFFER_BODY_LIMIT": text}).body_limit_bytes == size


def test_ports_are_lists_and_ranges():
    assert chosen({"APP_PORTS": "80, 8000-8002 443"}).app_ports == {80, 443, 8000, 8001, 8002}


@pytest.mark.parametrize("text", ["off", "OFF"])
def test_metrics_can_be_switched_off(text):
    assert chosen({"SNIFFER_METRICS_ADDRESS": text}).metrics is None


@pytest.mark.parametrize(
    ("text", "address"), [(":9000", ("0.0.0.0", 9000)), ("[::1]:9000", ("::1", 9000)), ("0.0.0.0:1", ("0.0.0.0", 1))]
)
def test_metrics_addresses(text, address):
    got = chosen({"SNIFFER_METRICS_ADDRESS": text})
    assert got.metrics == address
    assert got.metrics_asked_for


@pytest.mark.parametrize(
    "url",
    [
        "http://localhost:7701/m",
        "http://127.0.0.9/",
        "http://[::1]:80/",
        "https://db.example/",
        "-",
        "tty",
        "calls.ndjson",
    ],
)
def test_loopback_tls_and_files_need_no_rule(url):
    assert chosen({"USAGE_LOGGERS_URL": url}).url == url


@pytest.mark.parametrize(
    "url", ["http://db.example/message", "http://10.0.0.5:7701/message", "HTTP://user:secret@db.example/"]
)
def test_plain_http_to_another_host_needs_the_rule(url):
    with pytest.raises(SettingsError, match="use https://, or add the rule allow_http_url") as caught:
        chosen({"USAGE_LOGGERS_URL": url})
    assert "secret" not in str(caught.value)
    assert chosen({"USAGE_LOGGERS_URL": url, "USAGE_LOGGERS_RULES": "include strict\nallow_http_url"}).posts
    assert chosen({"USAGE_LOGGERS_URL": url, "USAGE_LOGGERS_DISABLE": "true"}).disable


def test_rules_may_stand_in_one_line_in_several_or_in_a_file(tmp_path):
    lines = ["allow_http_url", r"/request_body/ replace /a\nb/, /c/"]
    (tmp_path / "rules").write_text("\n".join(lines))
    assert len(chosen({"USAGE_LOGGERS_RULES": "allow_http_url\\nskip_compression"}).rules.rules) == 2
    for text in ("\n".join(lines), f"file://{tmp_path}/rules"):
        rules = chosen({"USAGE_LOGGERS_RULES": text}).rules.rules
        assert [rule.verb for rule in rules] == ["allow_http_url", "replace"]
        assert rules[1].pattern.source == r"a\nb"


def test_the_vni_file_adds_to_the_list(tmp_path):
    (tmp_path / "vnis").write_text("7 8\n-9\n")
    got = chosen({"SNIFFER_MIRROR_VNIS_FILE": str(tmp_path / "vnis"), "SNIFFER_MIRROR_VNIS": "1"})
    assert got.vnis == VniFilter([1, 7, 8], [9])
    assert got.vnis_given == VniFilter([1])


def test_read_makes_it_the_file_engine():
    got = chosen({"SNIFFER_READ": "a.pcap\nb.pcap"})
    assert (got.engine, got.read) == ("file", ("a.pcap", "b.pcap"))


def test_every_default_in_the_table_parses_to_what_is_used_without_it():
    everything = {setting.variable: setting.default for setting in SETTINGS if setting.default}
    given, default = chosen(everything), chosen()
    for name in (
        "port",
        "geneve_port",
        "address",
        "dedup",
        "url",
        "disable",
        "batch_bytes",
        "batch_wait_s",
        "metrics",
        "body_limit_bytes",
    ):
        assert getattr(given, name) == getattr(default, name)


def test_limits_of_memory_and_disk_are_shared_by_the_workers():
    got = chosen({"SNIFFER_WORKERS": "4"})
    share = got.share(got.workers)
    assert (share.memory_limit_bytes, share.queue_limit_bytes, share.spool_limit_bytes) == (
        128 << 20,
        16 << 20,
        256 << 20,
    )
    assert chosen({"SNIFFER_QUEUE_LIMIT": "1MiB"}).share(64).queue_limit_bytes == 1 << 20


def test_auto_is_one_worker_where_there_can_be_only_one(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1, 2})
    auto = {"SNIFFER_WORKERS": "auto"}
    assert chosen(auto).workers == 3
    for flags in ({"USAGE_LOGGERS_URL": "-"}, {"NET_DEVICE": "lo"}, {"SNIFFER_READ": "a.pcap"}):
        assert chosen({**auto, **flags}).workers == 1
    assert chosen({"SNIFFER_WORKERS": "2", "SNIFFER_READ": "a.pcap"}).workers == 1  # as the .env of a target may say
    monkeypatch.setattr(sys, "platform", "darwin")
    assert chosen(auto).workers == 1
    with pytest.raises(SettingsError, match="SNIFFER_WORKERS: several workers need Linux"):
        chosen({}, {"SNIFFER_WORKERS": "2"})


def test_what_looks_like_a_setting_and_is_none_is_named():
    got = chosen({}, {"SNIFFER_WORKER": "2", "PATH": "/bin"}, {"USAGE_LOGGERS_URLS": "x", "APP_PORT": "80"})
    assert got.unknown_variables == ("SNIFFER_WORKER", "USAGE_LOGGERS_URLS")


@pytest.mark.parametrize(
    ("url", "cleartext"), [("http://192.0.2.7/m", True), ("http://[::1]:1/m", False), ("calls", False)]
)
def test_calls_that_leave_the_machine_unencrypted_are_known(url, cleartext):
    assert chosen({"USAGE_LOGGERS_URL": url, "USAGE_LOGGERS_RULES": "include debug"}).is_cleartext == cleartext
