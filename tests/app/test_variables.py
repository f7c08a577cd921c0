"""The variables of network-sniffer 1.4: old variable -> setting -> what it does."""

import pytest

from vxsniff.app import table
from vxsniff.app.settings import SettingsError, resolve
from vxsniff.capture.pcap import PcapOptions
from vxsniff.wire.vxlan import VniFilter

MIRROR = {"SNIFFER_ENGINE": "mirror"}
DEVICE = {"NET_DEVICE": "eth0"}


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        # Which engine: what it is told, else devices, unless something speaks of a mirror.
        ({"SNIFFER_ENGINE": "mirror"}, {"engine": "vxlan"}),
        ({"SNIFFER_ENGINE": "vxlan"}, {"engine": "vxlan"}),
        ({"SNIFFER_ENGINE": "libpcap"}, {"engine": "libpcap", "devices": ()}),
        ({"SNIFFER_ENGINE": "pcap"}, {"engine": "libpcap"}),
        ({"SNIFFER_ENGINE": "pcap_file", "SNIFFER_READ": "a.pcap"}, {"engine": "file"}),
        ({"NET_DEVICE": ""}, {"engine": "libpcap", "devices": ()}),
        ({"NET_DEVICE": "", "SNIFFER_MIRROR_VNIS": "123"}, {"engine": "vxlan"}),
        ({"NET_DEVICE": "eth0", "SNIFFER_ENGINE": "mirror"}, {"engine": "vxlan"}),
        ({}, {"engine": "vxlan"}),
        # Devices.
        ({"NET_DEVICE": "eth0"}, {"engine": "libpcap", "devices": ("eth0",)}),
        ({"NET_DEVICE": "eth0,eth1 lo"}, {"devices": ("eth0", "eth1", "lo")}),
        ({"VPC_MIRROR_DEVICE": "vx0", "APP_PORT": "80"}, {"engine": "libpcap", "devices": ("vx0",), "app_ports": {80}}),
        ({"NET_DEVICE": "eth0", "VPC_MIRROR_DEVICE": "vx0"}, {"devices": ("eth0",)}),
        ({**DEVICE, "SNIFFER_IGNORE_DEVICES": "lo,cbr0"}, {"ignored_devices": {"lo", "cbr0"}}),
        ({**DEVICE, "SNIFFER_PROMISC_ENABLED": "true"}, {"promiscuous": True}),
        ({**DEVICE, "SNIFFER_RF_MONITOR_ENABLED": "true"}, {"monitor": True}),
        ({**DEVICE, "SNIFFER_NOFILTER": "true"}, {"no_filter": True}),
        ({**DEVICE, "SNIFFER_PCAP_BUFFER_SIZE": "5mb"}, {"pcap_buffer_bytes": 5_000_000}),
        ({**DEVICE, "SNIFFER_PCAP_BUFFER_SIZE": "2097152"}, {"pcap_buffer_bytes": 2 << 20}),
        # Ports.
        ({**MIRROR, "APP_PORTS": "80,8000,3000"}, {"app_ports": {80, 8000, 3000}}),
        ({**MIRROR, "APP_PORT": "8080"}, {"app_ports": {8080}}),
        ({**MIRROR, "APP_PORTS": "80", "APP_PORT": "8080"}, {"app_ports": {80}}),
        # The mirror.
        ({**MIRROR, "SNIFFER_MIRROR_VXLANPORT": "4790"}, {"port": 4790}),
        ({**MIRROR, "SNIFFER_MIRROR_VNIS": "123,456"}, {"vnis": VniFilter([123, 456])}),
        ({**MIRROR, "SNIFFER_MIRROR_VNIS": "123 456"}, {"vnis": VniFilter([123, 456])}),
        ({**MIRROR, "SNIFFER_MIRROR_VNIS": "-7"}, {"vnis": VniFilter((), [7])}),
        # Where calls go, under which rules.
        ({"USAGE_LOGGERS_URL": "https://db.example/message"}, {"url": "https://db.example/message"}),
        ({"USAGE_LOGGERS_RULES": r"include default\nallow_http_url"}, {"rules": ["allow_http_url"]}),
        ({"USAGE_LOGGERS_RULES": "include default\nskip_compression"}, {"rules": ["skip_compression"]}),
        ({"USAGE_LOGGERS_DISABLE": "true"}, {"disable": True}),
        # Debugging.
        ({"SNIFFER_DEBUG_ENABLED": "true"}, {"debug": True, "verbosity": 0, "debug_export": "none"}),
        ({"SNIFFER_DEBUG_VERBOSITY": "3"}, {"verbosity": 3}),
        ({"SNIFFER_DEBUG_EXPORT": "local"}, {"debug_export": "local"}),
        (
            {"SNIFFER_DEBUG_EXPORT": "http", "SNIFFER_DEBUG_HTTP_ENDPOINT": "http://127.0.0.1:9/x"},
            {"debug_export": "http", "debug_endpoint": "http://127.0.0.1:9/x"},
        ),
    ],
    ids=lambda value: " ".join(f"{k}={v}" for k, v in value.items()) if isinstance(value, dict) else None,
)
def test_a_variable_means_what_it_meant(environ, expected):
    chosen = resolve({}, environ, {})
    for name, value in expected.items():
        if name == "rules":
            assert {rule.verb for rule in chosen.rules.rules} >= set(value)
        else:
            assert getattr(chosen, name) == value
    assert resolve({}, {}, environ).engine == chosen.engine, "the same from .env"


@pytest.mark.parametrize("environ", [{"K8S_INPUT": "--input-raw k8s://service:"}, {"SNIFFER_ENGINE": "k8s"}])
def test_kubernetes_stops_the_start_with_one_clear_line(environ):
    with pytest.raises(SettingsError, match="K8S_INPUT and the engine k8s are not in this version"):
        resolve({}, environ, {})


@pytest.mark.parametrize(
    ("environ", "message"),
    [
        ({"SNIFFER_DEBUG_EXPORT": "s3"}, "'s3' is not in this version: use local, and upload the files"),
        ({"SNIFFER_DEBUG_EXPORT": "ftp"}, "'ftp' is no export: use local, http or none"),
        ({"SNIFFER_DEBUG_EXPORT": "http"}, "SNIFFER_DEBUG_HTTP_ENDPOINT: '' is no http"),
        (
            {"SNIFFER_DEBUG_EXPORT": "http", "SNIFFER_DEBUG_HTTP_ENDPOINT": "http://other.example/"},
            "use https://, or add the rule allow_http_url",
        ),
        ({"SNIFFER_DEBUG_VERBOSITY": "much"}, "is no verbosity"),
        ({"SNIFFER_PCAP_BUFFER_SIZE": "1"}, "out of bounds"),
    ],
)
def test_what_can_not_be_done_says_what_can(environ, message):
    with pytest.raises(SettingsError, match=message):
        resolve({}, environ, {})


def test_the_device_settings_reach_libpcap():
    assert PcapOptions().buffer_bytes == 0, "auto"
    rows = [setting.variable for setting in table.SETTINGS if setting.panel == table.DEVICES]
    assert len(rows) == 7
