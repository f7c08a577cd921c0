"""Which devices are captured on."""

import pytest

from vxsniff.capture.devices import Device, choose, list_devices
from vxsniff.capture.source import CaptureError

LO = Device("lo", 1, True, True, ("127.0.0.1", "::1"))
ETH = Device("eth0", 2, True, False, ("10.0.0.1", "fd00::1", "fe80::1"))
OFF = Device("eth1", 3, False, False, ())
ALL = [ETH, OFF, LO]


def test_all_means_those_that_are_up_and_not_ignored():
    assert choose(ALL, (), frozenset()) == [ETH, LO]
    assert choose(ALL, (), frozenset(["lo"])) == [ETH]


def test_named_devices_are_taken_even_when_they_are_down():
    assert choose(ALL, ("eth1", "lo"), frozenset()) == [OFF, LO]
    assert choose(ALL, ("any",), frozenset())[0].name == "any"


def test_a_name_that_is_no_devices_is_answered_with_those_that_are():
    with pytest.raises(CaptureError, match=r"no device 'eth9': there are eth0, eth1, lo"):
        choose(ALL, ("eth9",), frozenset())


def test_servers_are_looked_for_at_addresses_that_belong_to_one_device():
    assert ETH.own_addresses == ("10.0.0.1", "fd00::1")
    assert LO.own_addresses == (), "loopback carries what the host says to all its addresses"


def test_this_hosts_devices_are_listed():
    (lo,) = [device for device in list_devices() if device.is_loopback]
    assert lo.is_up
    assert "127.0.0.1" in lo.addresses
    assert lo.interface > 0
