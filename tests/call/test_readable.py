"""One line a call, for people."""

from vxsniff.call import readable
from vxsniff.call.record import Record


def record(**values):
    made = Record(123, 1_700_000_000_123, 12, [])
    made.request_bytes, made.response_bytes = 245, 1_234_567
    return made


DETAILS = [("request_method", "POST"), ("request_url", "http://shop.example/cart"), ("response_code", "201")]


def test_a_line_tells_what_a_look_needs():
    text = readable.line(DETAILS, record(), "12:30:01.123", False).decode()
    assert text == "12:30:01.123  vni 123       POST    201     12 ms  shop.example/cart  245 B > 1.2 MB\n"


def test_imperfect_capture_is_shown():
    text = readable.line([*DETAILS, ("custom_field:capture", "gap:5")], record(), "12:30", False).decode()
    assert text.endswith("1.2 MB  [gap:5]\n")


def test_what_the_rules_removed_shows_as_a_dash():
    assert "  -       201" in readable.line(DETAILS[2:], record(), "12:30", False).decode()


def test_text_from_the_wire_can_not_steer_the_terminal():
    url = "http://a/\x1b]0;owned\x07\x9b31m\u202e" + "x" * 500
    line = readable.line([("request_method", "GET\x1b[2J"), ("request_url", url)], record(), "12:30", True).decode()
    assert "\x1b]" not in line
    assert "\x1b[2J" not in line
    assert "\x07" not in line
    assert "\x9b" not in line
    assert "\u202e" not in line
    assert len(line) < 400
