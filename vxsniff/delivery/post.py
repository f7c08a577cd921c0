"""Batches -> POST to a capture URL (Resurface's `/message`), by one session with keep-alive.

204 is success, and so is any 2xx. 408, 425, 429 and 5xx are tried again, as network errors are; Retry-After is heeded
up to MAX_RETRY_AFTER_S. Any other answer refuses the batch for good. Redirects are not followed: a POST would lose
its body or carry it to a host that nobody named.
"""

from __future__ import annotations

import email.utils
import time
from typing import Final, NamedTuple

import requests

from vxsniff import AGENT
from vxsniff.delivery.batch import Batch
from vxsniff.delivery.outlet import ACCEPTED, REFUSED, RETRY, Outcome

CONNECT_TIMEOUT_S: Final = 5.0
MAX_RETRY_AFTER_S: Final = 300.0
MAX_ANSWER_BYTES: Final = 65_536
_TRY_AGAIN: Final = frozenset((408, 425, 429))
_HEADERS: Final = {"Content-Type": "application/ndjson; charset=UTF-8", "User-Agent": AGENT, "Accept": "*/*"}


class PostOutlet:
    """Posts to `url`; `compresses` sends a zlib body (RFC 1950) as `Content-Encoding: deflated`.

    The request is made once, and given another body each time: to make it anew, with a look at the environment's
    proxies, would be more than half of what a batch costs besides packing. For one thread.
    """

    def __init__(self, url: str, compresses: bool) -> None:
        """Raises ValueError when that is no URL to post to."""
        self._compresses = compresses
        self._session = requests.Session()
        headers = {**_HEADERS, "Content-Encoding": "deflated"} if compresses else _HEADERS
        self._request = self._session.prepare_request(requests.Request("POST", url, headers))
        # Proxies and certificates as the environment has them.
        self._settings = self._session.merge_environment_settings(url, {}, True, None, None)

    def send(self, batch: Batch, timeout_s: float) -> Outcome:
        body = batch.packed if self._compresses else batch.lines
        self._request.body = body
        self._request.headers["Content-Length"] = str(len(body))
        try:
            with self._session.send(
                self._request,
                timeout=(min(CONNECT_TIMEOUT_S, timeout_s), timeout_s),
                allow_redirects=False,
                **self._settings,
            ) as answer:
                said = answer.raw.read(MAX_ANSWER_BYTES)  # read to its end, the connection can be used again
                return self._outcome(answer, said)
        except (requests.RequestException, OSError) as error:
            return Outcome(RETRY, _cause_of(error))
        except Exception as error:  # urllib3 lets some of its own through while an answer is read
            return Outcome(RETRY, _cause_of(error))

    @staticmethod
    def _outcome(answer: requests.Response, said: bytes) -> Outcome:
        status = answer.status_code
        if 200 <= status < 300:
            return Outcome(ACCEPTED)
        reason = f"it answered {status} {answer.reason or ''}".rstrip()
        if status in _TRY_AGAIN or status >= 500:
            return Outcome(RETRY, reason, retry_after_s(answer.headers.get("Retry-After", "")))
        if 300 <= status < 400:
            reason += " (redirects are not followed: set the URL to where it leads)"
        return Outcome(REFUSED, reason, status=status, answer=said.decode(errors="replace"))

    def close(self) -> None:
        self._session.close()


class Probe(NamedTuple):
    """What a collector answered to an empty batch: `status` is 0, and `error` says why, when it did not.

    `skew_s` is how far this machine's clock is ahead of the collector's (RFC 9110 section 6.6.1), None when it did not
    tell.
    """

    status: int
    error: str
    ms: float
    skew_s: float | None


def probe(url: str, timeout_s: float = CONNECT_TIMEOUT_S) -> Probe:
    """Asks the collector, once. Sends no call."""
    started_s = time.monotonic()
    try:
        answer = requests.post(
            url,
            data=b"",
            headers=_HEADERS,
            timeout=timeout_s,
            allow_redirects=False,
        )
    except (requests.RequestException, OSError) as error:
        return Probe(0, _cause_of(error), (time.monotonic() - started_s) * 1000, None)
    try:
        theirs_s = email.utils.parsedate_to_datetime(answer.headers.get("Date", "")).timestamp()
        skew_s: float | None = time.time() - theirs_s
    except (ValueError, TypeError, IndexError):
        skew_s = None
    return Probe(answer.status_code, "", (time.monotonic() - started_s) * 1000, skew_s)


def retry_after_s(value: str) -> float:
    """Seconds that a Retry-After header asks for (RFC 9110 section 10.2.3); 0 when it says nothing that we know."""
    if value.isascii() and value.strip().isdigit():
        seconds = float(value)
    else:
        try:
            seconds = email.utils.parsedate_to_datetime(value).timestamp() - time.time()
        except (ValueError, TypeError, IndexError):
            return 0.0
    return min(max(seconds, 0.0), MAX_RETRY_AFTER_S)


def _cause_of(error: BaseException) -> str:
    """The innermost reason of a network error, in a few words: requests and urllib3 wrap it in several layers."""
    seen = 0
    inner: BaseException | None = error
    text = type(error).__name__
    while inner is not None and seen < 10:
        if isinstance(inner, requests.Timeout):
            text = "no answer in time"
        elif isinstance(inner, requests.exceptions.SSLError):
            text = f"TLS failed: {inner.args[0]}" if inner.args else "TLS failed"
        if isinstance(inner, OSError) and inner.strerror and not isinstance(inner, requests.RequestException):
            return inner.strerror.lower() if inner.strerror[1:].islower() else inner.strerror
        reason = getattr(inner, "reason", None) or (inner.args[0] if inner.args else None)
        nested = reason if isinstance(reason, BaseException) else inner.__cause__ or inner.__context__
        inner, seen = nested, seen + 1
    return text
