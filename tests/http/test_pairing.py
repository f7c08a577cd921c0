"""Who answers whom, by order and by acknowledgements."""

from vxsniff.http.budget import Budget
from vxsniff.http.message import Message
from vxsniff.http.pairing import AMBIGUOUS, ORPHAN, PAIRED, WAIT, Pairing


def request(pairing, seq, ack):
    return pairing.request(Message(seq, ack, 0, Budget(100)))


def test_order_decides_as_long_as_nothing_is_lost():
    pairing = Pairing()
    first, second = request(pairing, 100, 900), request(pairing, 150, 900)
    assert pairing.match(900, 200) == (PAIRED, first)
    assert pairing.match(950, 200) == (PAIRED, second)
    assert pairing.match(990, 200) == (WAIT, None)


def test_a_response_to_nothing_that_was_asked_yet_is_an_orphan():
    pairing = Pairing()
    request(pairing, 100, 900)
    assert pairing.match(800, 150) == (ORPHAN, None)  # it begins before what the client had received
    assert pairing.match(900, 100) == (ORPHAN, None)  # its server had not received the request


def test_after_a_loss_of_responses_the_acknowledgement_decides():
    pairing = Pairing()
    request(pairing, 100, 900)
    second = request(pairing, 200, 1000)
    pairing.responses_lost()
    assert pairing.match(950, 300) == (AMBIGUOUS, None)
    assert pairing.match(1000, 300) == (PAIRED, second)
    assert pairing.given_up == 1


def test_after_a_loss_pipelined_requests_are_not_guessed_at():
    pairing = Pairing()
    for seq in (100, 200, 300):
        request(pairing, seq, 900)
    pairing.responses_lost()
    assert pairing.match(950, 400) == (AMBIGUOUS, None)


def test_after_a_loss_of_requests_the_next_answer_is_the_lost_ones():
    pairing = Pairing()
    first = request(pairing, 100, 900)
    assert pairing.match(900, 150) == (PAIRED, first)
    pairing.response_ended(950)
    pairing.requests_lost()
    second = request(pairing, 300, 1000)
    assert pairing.match(950, 400) == (ORPHAN, None)
    assert pairing.match(1000, 400) == (PAIRED, second)


def test_acknowledgements_wrap():
    pairing = Pairing()
    pairing.responses_lost()
    first = request(pairing, 2**32 - 10, 2**32 - 5)
    second = request(pairing, 5, 20)
    assert pairing.match(2**32 - 5, 3) == (PAIRED, first)
    assert pairing.match(20, 60) == (PAIRED, second)
