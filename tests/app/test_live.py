"""The receive loop, on a source that can't tell whether there is anything."""

import threading

from tests.builders import CLIENT, SERVER, Play, answer, get, talk
from vxsniff.app.live import LiveCapture
from vxsniff.app.settings import resolve


class Unsure:
    """A device without a descriptor to wait for: always worth a look, mostly in vain."""

    kernel_dropped = 0

    def __init__(self, now_ns) -> None:
        self.looks = 0
        self._now_ns = now_ns

    def wait(self, timeout_ms):
        return True

    def receive(self):
        self.looks += 1
        return 0

    def now_ns(self):
        self._now_ns += 1_000_000_000
        return self._now_ns

    def notes(self):
        return []

    def close(self):
        pass


def test_deadlines_pass_although_there_is_always_something_to_look_for():
    play = Play().frames(talk((CLIENT, get("/a")), (SERVER, answer(b"x")), close=False))
    play.frames(talk((CLIENT, get("/b")), close=False, isns=(9, 9)))
    source = Unsure(play.now_ns)
    live = LiveCapture(resolve({}, {}, {}), play.pipeline, threading.Lock(), lambda: source.looks > 200)
    live._make_source = lambda: source
    live.open()
    live.run()
    assert play.pipeline.http.open_requests == 0, "200 s later a request that was not answered is let go"
