"""Who answers whom, by order and by acknowledgements."""

import pytest

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


def response(seq, ack, end):
    message = Message(seq, ack, 0, Budget(100))
    message.end_seq = end
    return message


def after_a_lost_request():
    pairing = Pairing()
    first = request(pairing, 100, 900)
    assert pairing.match(900, 150) == (PAIRED, first)
    pairing.response_ended(950)
    pairing.requests_lost()
    return pairing, request(pairing, 300, 1000)


def test_after_a_loss_of_requests_the_lost_ones_answer_must_be_seen_first():
    pairing, second = after_a_lost_request()
    assert pairing.match(950, 300) == (ORPHAN, None)
    pairing.unmatched_ended(response(950, 300, 1000))
    assert pairing.match(1000, 400) == (PAIRED, second)
    assert second.by_ack


@pytest.mark.parametrize("seen", [None, response(950, 300, 990), response(950, 260, 1000), response(950, 340, 1000)])
def test_without_proof_that_the_lost_requests_were_answered_nothing_is_paired(seen):
    # Not seen; not up to the response; only one of several that were lost; with this request among what it answered.
    pairing, _ = after_a_lost_request()
    if seen is not None:
        pairing.unmatched_ended(seen)
    assert pairing.match(1000, 400) == (AMBIGUOUS, None)


def test_a_response_sent_before_the_request_came_is_not_its_answer_whatever_was_lost():
    pairing = Pairing()
    request(pairing, 100, 900)
    pairing.responses_lost()
    assert pairing.match(900, 100) == (ORPHAN, None)


def test_after_a_loss_a_server_that_had_received_more_than_the_request_proves_no_pair():
    pairing = Pairing()
    pairing.responses_lost()
    exchange = request(pairing, 100, 900)
    exchange.request.end_seq = 150
    assert pairing.match(900, 190) == (PAIRED, exchange)
    exchange.response = response(900, 190, 950)
    assert not exchange.is_proven
    exchange.response = response(900, 150, 950)
    assert exchange.is_proven


def test_acknowledgements_wrap():
    pairing = Pairing()
    pairing.responses_lost()
    first = request(pairing, 2**32 - 10, 2**32 - 5)
    second = request(pairing, 5, 20)
    assert pairing.match(2**32 - 5, 3) == (PAIRED, first)
    assert pairing.match(20, 60) == (PAIRED, second)
