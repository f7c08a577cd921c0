"""The VNI list, as users write it."""

import pytest

from vxsniff.wire.vxlan import VniFilter, parse_vni_list


@pytest.mark.parametrize(
    ("text", "wanted", "unwanted"),
    [
        ("123,456", {123, 456}, set()),
        (" 123  456\n789,", {123, 456, 789}, set()),
        ("-5,-6", set(), {5, 6}),
        ("0 16777215 -7", {0, 16777215}, {7}),
        ("", set(), set()),
    ],
)
def test_lists_are_read(text, wanted, unwanted):
    assert parse_vni_list(text) == VniFilter(wanted, unwanted)


@pytest.mark.parametrize("text", ["abc", "1;2", "16777216", "1.5", "--5", "-", "0x10", "１"])
def test_a_word_that_is_no_vni_is_named(text):
    with pytest.raises(ValueError, match="is not a VNI"):
        parse_vni_list(text)


def test_filters_are_told_in_words():
    assert parse_vni_list("2 1 -3").describe() == "1, 2 but 3"
    assert parse_vni_list("-9").describe() == "all but 9"
    assert parse_vni_list("").describe() == "all"


def test_joined_filters_hold_both_lists():
    assert parse_vni_list("1 -2").joined(parse_vni_list("3")) == parse_vni_list("1 3 -2")
