"""That the soak works: some seconds of it, without a word on memory, which needs longer to be flat."""

from tests.e2e.program import in_ledger
from tests.soak import steady


def test_mixed_traffic_is_taken_whole_and_every_sum_closes(tmp_path):
    outcome = steady.run(tmp_path, 6)
    assert outcome.status == 0
    assert outcome.closes
    taken = in_ledger(outcome.log, "frames") + in_ledger(outcome.log, "kernel_filtered")
    assert taken + in_ledger(outcome.log, "kernel_dropped") == outcome.sent["datagrams"]
    if not in_ledger(outcome.log, "kernel_dropped"):
        assert outcome.collected["by_path"]["whole"] == outcome.sent["calls"]
    assert outcome.collected["ids"] == in_ledger(outcome.log, "accepted")
    assert outcome.collected["complaints"] == []
    assert len(outcome.resident_mib) >= 8
