"""An exchange -> the details of an API call, before the rules: names and values in the order that they are shipped in,
in runs, of which those of headers recur.

request_method, request_url, response_code, request_header:*, request_param:*, response_header:*, request_body,
response_body, session_field:*, custom_field:call_id, custom_field:capture, now, interval; `host` is added behind the
rules. Values that are empty are left out. Bounds: MAX_PARAMS parameters a call; the rest of a query is left out and
counted.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import Final
from urllib.parse import unquote_to_bytes

from mypy_extensions import mypyc_attr

from vxsniff.call.policy import MAX_NAME_CHARS, Detail, Policy, Run
from vxsniff.flow.flow import Flow
from vxsniff.http import body as bodies
from vxsniff.http.body import Media
from vxsniff.http.headers import CONTENT_ENCODING, CONTENT_TYPE, COOKIE, HOST, Headers
from vxsniff.http.message import Message
from vxsniff.http.pairing import Exchange
from vxsniff.wire.segment import reverse_key, source_of

MAX_PARAMS: Final = 1000
MAX_NAMES: Final = 4096


@mypyc_attr(acyclic=True)
class Record:
    """One call's details, in runs."""

    __slots__ = ("duration_ms", "now_ms", "request_bytes", "response_bytes", "runs", "vni")

    def __init__(self, vni: int, now_ms: int, duration_ms: int, runs: list[Run]) -> None:
        self.vni = vni
        self.now_ms = now_ms
        self.duration_ms = duration_ms
        self.runs = runs
        self.request_bytes = 0
        self.response_bytes = 0

    @property
    def kept(self) -> list[Detail]:
        """What the rules left, once they were applied."""
        return [detail for run in self.runs for detail in run.kept]


class RecordCounters:
    """What became of bodies and parameters; plain integers."""

    def __init__(self) -> None:
        self.bodies = [0] * len(bodies.OUTCOMES)  # by outcome
        self.bodies_damaged = 0  # lost or cut off on the way: left out
        self.bodies_limited = 0  # longer than the limit: the rest left out
        self.params_left_out = 0
        self.midstream = 0


class _Noted:
    """What headers give to a call: their run, the cookies that are session fields, the host, and how to read a body."""

    __slots__ = ("host", "media", "run", "session")

    def __init__(self, run: Run, session: list[Detail], headers: Headers) -> None:
        self.run = run
        self.session = session
        self.host = _text(headers.first(HOST))
        self.media = Media(headers.first(CONTENT_ENCODING), headers.first(CONTENT_TYPE))


class RecordBuilder:
    """Makes records, for a policy; `call_ids` adds an id to each call."""

    def __init__(
        self,
        policy: Policy,
        realip_header: str = "",
        body_limit_bytes: int = 1_048_576,
        call_ids: bool = True,
        counters: RecordCounters | None = None,
    ) -> None:
        self.call_ids = call_ids
        self._policy = policy
        self._realip_name = "request_header:" + realip_header.lower() if realip_header else ""
        self._body_limit_bytes = body_limit_bytes
        self._request_names: dict[bytes, str] = {}
        self._response_names: dict[bytes, str] = {}
        self._param_names: dict[str, str] = {}
        self._methods: dict[bytes, str] = {}
        self._numbers = [str(number) for number in range(1000)]
        self.counters = counters or RecordCounters()

    def build(self, exchange: Exchange, flow: Flow) -> Record:
        request, response = exchange.request, exchange.response
        assert response is not None
        policy = self._policy
        client_key = flow.key if exchange.client == 0 else reverse_key(flow.key)
        asked = self._noted(request.headers, "request_header:", self._request_names)
        url, query = _url_of(request, asked.host, client_key)
        first: list[Detail] = [
            ("request_method", self._methods.get(request.method) or self._method(request.method)),
            ("request_url", url),
            ("response_code", self._numbers[response.status] if response.status < 1000 else str(response.status)),
        ]
        answered = self._noted(response.headers, "response_header:", self._response_names)
        partial: set[str] = set()
        request_text = self._body(request, asked.media, "request_body", partial)
        response_text = self._body(response, answered.media, "response_body", partial)

        between: list[Detail] = []
        if self._realip_name:
            between.append((self._realip_name, source_of(client_key)[0]))
        params = _pairs(query) if query else []
        if request_text and asked.media.is_form:
            params += _pairs(request_text.encode())
        if params:
            self._add_params(params, between)

        last: list[Detail] = []
        if request_text:
            last.append(("request_body", request_text))
        if response_text:
            last.append(("response_body", response_text))
        last += asked.session
        if self.call_ids:
            last.append(("custom_field:call_id", call_id(client_key, request.start_seq, response.start_seq)))
        marks = self._marks(exchange, flow)
        if marks:
            last.append(("custom_field:capture", marks))
        now_ms = request.start_ns // 1_000_000
        duration_ms = max(1, (max(request.end_ns, response.end_ns) - request.start_ns) // 1_000_000)
        last.append(("now", str(now_ms)))
        last.append(("interval", self._numbers[duration_ms] if duration_ms < 1000 else str(duration_ms)))

        runs = [policy.run(first), asked.run]
        if between:
            runs.append(policy.run(between))
        runs.append(answered.run)
        runs.append(policy.run(last, partial))
        record = Record(flow.vni, now_ms, duration_ms, runs)
        record.request_bytes = request.wire_body_bytes
        record.response_bytes = response.wire_body_bytes
        return record

    def _method(self, method: bytes) -> str:
        """As text; remembered like names."""
        text = _text(method)
        if len(self._methods) < MAX_NAMES and len(method) <= MAX_NAME_CHARS:
            self._methods[method] = text
        return text

    def _noted(self, headers: Headers, prefix: str, names: dict[bytes, str]) -> _Noted:
        """What was noted of headers that were here before, if it was for the same policy; else what is noted now."""
        policy = self._policy
        note = headers.note
        if isinstance(note, _Noted) and note.run.policy is policy:
            note.run.came_again()
            return note
        runs: list[Run] = []
        session: list[Detail] = []
        for field in headers.fields:
            if not field.value:
                continue
            known = field.note
            if isinstance(known, Run) and known.policy is policy:
                run = known
            else:
                name = names.get(field.name) or _header_name(prefix, field.name, names)
                run = policy.run([(name, _text(field.value))])
                field.note = run
            runs.append(run)
            if field.role == COOKIE and policy.has_session_rules and prefix == "request_header:":
                self._session_fields(_text(field.value), session)
        noted = _Noted(policy.joined(runs), session, headers)
        headers.note = noted
        return noted

    def _add_params(self, params: list[tuple[str, str]], details: list[Detail]) -> None:
        if len(params) > MAX_PARAMS:
            self.counters.params_left_out += len(params) - MAX_PARAMS
            del params[MAX_PARAMS:]
        names = self._param_names
        for name, value in params:
            if value:
                detail_name = names.get(name)
                if detail_name is None:
                    detail_name = "request_param:" + name.lower()
                    if len(names) < MAX_NAMES and len(name) <= MAX_NAME_CHARS:
                        names[name] = detail_name
                details.append((detail_name, value))

    def _session_fields(self, value: str, session: list[Detail]) -> None:
        """Cookies of the request (RFC 6265 section 4.2.1) that a rule asks for."""
        for pair in value.split(";"):
            cookie, _, content = pair.strip().partition("=")
            cookie = cookie.lower()
            if cookie and content and self._policy.copies_session_field(cookie):
                session.append(("session_field:" + cookie, content))

    def _body(self, message: Message, media: Media, name: str, partial: set[str]) -> str:
        """The body's text; empty when there is none, when it is not text, or when part of it never came."""
        counters = self.counters
        if message.is_damaged:
            counters.bodies_damaged += 1
            return ""
        if not message.body:
            return ""
        decoded = bodies.decode_body(message.body, media, self._body_limit_bytes, not message.left_out_bytes)
        counters.bodies[decoded.outcome] += 1
        message.left_out_bytes += decoded.left_out_bytes
        if message.left_out_bytes:
            counters.bodies_limited += 1
            partial.add(name)
        return decoded.text

    def _marks(self, exchange: Exchange, flow: Flow) -> str:
        """How the capture of this call was imperfect; empty for a perfect one."""
        request, response = exchange.request, exchange.response
        assert response is not None
        if not (flow.midstream or exchange.late or request.is_imperfect or response.is_imperfect):
            return ""
        marks = []
        if flow.midstream and exchange.first:
            self.counters.midstream += 1
            marks.append("midstream")
        for word, size in (
            ("gap", request.gap_bytes + response.gap_bytes),
            ("cut", request.cut_bytes + response.cut_bytes),
            ("limit", request.left_out_bytes + response.left_out_bytes),
        ):
            if size:
                marks.append(f"{word}:{size}")
        if exchange.late:
            marks.append("late")
        return ",".join(marks)


def call_id(client_key: bytes, request_seq: int, response_seq: int) -> str:
    """32 hexadecimal digits that are the same in every capture of a call, and in no other call's.

    Made of the endpoints and the sequence numbers of both messages' first bytes, as the packets have them: no time, no
    VNI, no host. Endpoints come round again, but not with both sequence numbers (RFC 9293 section 3.4.1, RFC 6528). All
    of it in one hash: of the endpoints alone they could be guessed, and calls of one client be told by it.
    """
    seqs = request_seq.to_bytes(4, "big") + response_seq.to_bytes(4, "big")
    return blake2b(client_key + seqs, digest_size=16).hexdigest()


def _header_name(prefix: str, name: bytes, names: dict[bytes, str]) -> str:
    """The detail's name of a header; names come from the wire, so only so many are remembered."""
    detail_name = prefix + name.decode("latin-1").lower()
    if len(names) < MAX_NAMES and len(name) <= MAX_NAME_CHARS:
        names[name] = detail_name
    return detail_name


def _text(value: bytes) -> str:
    """Header bytes as text: UTF-8 where they are, else ISO-8859-1 (RFC 9110 section 5.5)."""
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value.decode("latin-1")


def _url_of(request: Message, host: str, client_key: bytes) -> tuple[str, bytes]:
    """The URL without its query, and the query (RFC 9112 section 3.2).

    The scheme is that of the wire: what was mirrored was plain http. Without a Host header (HTTP/1.0) the server's
    address stands for it.
    """
    target, _, query = request.target.partition(b"?")
    if request.method == b"CONNECT":
        return "http://" + _text(target), b""
    if not target.startswith(b"/") and target.find(b"://", 0, 16) >= 0:
        return _text(target), query  # absolute form, as a proxy is asked
    if not host:
        address, port = source_of(reverse_key(client_key))
        host = f"[{address}]" if ":" in address else address
        if port != 80:
            host += f":{port}"
    return "http://" + host + ("" if target == b"*" else _text(target)), query


def _pairs(query: bytes) -> list[tuple[str, str]]:
    """Names and values of a query or form (WHATWG URL, application/x-www-form-urlencoded), at most MAX_PARAMS + 1."""
    pairs: list[tuple[str, str]] = []
    try:
        plain = query.decode()
    except UnicodeDecodeError:
        plain = "%"  # field by field
    if "%" not in plain:
        if "+" in plain:
            plain = plain.replace("+", " ")
        texts = plain.split("&", MAX_PARAMS + 1)
        if len(texts) > MAX_PARAMS:
            del texts[MAX_PARAMS + 1 :]  # the rest, in one piece
        for text in texts:
            if text:
                plain_name, _, plain_value = text.partition("=")
                pairs.append((plain_name, plain_value))
        return pairs
    for field in query.split(b"&", MAX_PARAMS + 1)[: MAX_PARAMS + 1]:
        if field:
            name, _, value = field.partition(b"=")
            pairs.append((_unquote(name), _unquote(value)))
    return pairs


def _unquote(value: bytes) -> str:
    value = value.replace(b"+", b" ")
    return _text(unquote_to_bytes(value) if value.find(b"%") >= 0 else value)
