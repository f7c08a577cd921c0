"""Customers of the shop: real HTTP clients with keep-alive, each in a thread of its own."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from typing import Final

import requests

HOST: Final = "shop.example"
_TIMEOUT_S: Final = 10.0
_WORDS: Final = ("tea", "mug", "tray", "kettle", "spoon")
_AGENTS: Final = ("TeaShopApp/2.1 (Android)", "Mozilla/5.0 (X11; Linux)", "price-watcher/0.9")


class Customers:
    """Visits `http://127.0.0.1:port` at `rate` calls a second, until `limit` calls (0: none) or `close`."""

    def __init__(self, port: int, rate: float, limit: int = 0, count: int = 3) -> None:
        self.done = threading.Event()
        self.calls = 0
        self._base = f"http://127.0.0.1:{port}"
        self._pause_s = count / rate
        self._limit = limit
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._threads = [
            threading.Thread(target=self._visit, args=(number,), name=f"customer-{number}", daemon=True)
            for number in range(count)
        ]
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(_TIMEOUT_S)

    def _claim(self) -> bool:
        with self._lock:
            if self._limit and self.calls >= self._limit:
                self.done.set()
                return False
            self.calls += 1
            return True

    def _visit(self, number: int) -> None:
        draw = random.Random(number)
        with requests.Session() as session:
            session.trust_env = False
            session.headers.update({"Host": HOST, "User-Agent": _AGENTS[number % len(_AGENTS)]})
            # Only the first customer is in the shop when it opens.
            self._stop.wait(self._pause_s * number / len(self._threads))
            while not self._stop.is_set() and self._claim():
                try:
                    draw.choice(_ERRANDS)(session, self._base, draw)
                except requests.RequestException:
                    if self._stop.is_set():
                        return
                self._stop.wait(self._pause_s * draw.uniform(0.5, 1.5))


def _browse(session: requests.Session, base: str, draw: random.Random) -> None:
    session.get(f"{base}/api/products", params={"page": draw.randrange(1, 4)}, timeout=_TIMEOUT_S)


def _search(session: requests.Session, base: str, draw: random.Random) -> None:
    session.get(f"{base}/api/products", params={"q": draw.choice(_WORDS)}, timeout=_TIMEOUT_S)


def _look(session: requests.Session, base: str, draw: random.Random) -> None:
    session.get(f"{base}/api/products/{draw.randrange(1, 8)}", timeout=_TIMEOUT_S)


def _buy(session: requests.Session, base: str, draw: random.Random) -> None:
    session.post(f"{base}/api/cart", json={"id": draw.randrange(1, 7), "count": 1}, timeout=_TIMEOUT_S)


def _check_out(session: requests.Session, base: str, draw: random.Random) -> None:
    form = {"email": "ada@example.org", "note": "ring twice", "total": str(draw.randrange(900, 9000))}
    session.post(f"{base}/api/checkout", data=form, timeout=_TIMEOUT_S)


def _log_in(session: requests.Session, base: str, draw: random.Random) -> None:
    session.post(f"{base}/api/login", json={"user": f"ada{draw.randrange(9)}"}, timeout=_TIMEOUT_S)


def _export(session: requests.Session, base: str, draw: random.Random) -> None:
    del draw
    session.get(f"{base}/api/export", timeout=_TIMEOUT_S)


def _see_logo(session: requests.Session, base: str, draw: random.Random) -> None:
    del draw
    session.get(f"{base}/logo.gif", timeout=_TIMEOUT_S)


def _probe(session: requests.Session, base: str, draw: random.Random) -> None:
    del draw
    session.head(f"{base}/", timeout=_TIMEOUT_S)


_ERRANDS: Final[tuple[Callable[[requests.Session, str, random.Random], None], ...]] = (
    _browse,
    _browse,
    _search,
    _look,
    _look,
    _buy,
    _check_out,
    _log_in,
    _export,
    _see_logo,
    _probe,
)
