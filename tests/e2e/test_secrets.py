"""What rules remove exists nowhere outside the memory of the capture.

Secrets are planted in every field of calls, in every coding; what vxsniff leaves behind is searched for them: the spool
with its dead letters, the output file, standard output, the log at its most talkative, the metrics, and what the control
socket answers.
"""

import base64
import gzip
import sqlite3
import urllib.parse
import urllib.request
import zlib

import brotli
import pytest
import zstandard

from tests.builders import CLIENT, SERVER, Endpoint, answer, get, in_vxlan, post, talk
from tests.e2e.collector import Collector
from tests.e2e.program import Running, free_udp_port, in_ledger, vxsniff

CARD = "4929-1234-5678-9012"
TOKEN = "tok_Zx81kQp7Lm"
SESSION = "sess-9f8e7d6c5b"
EMAIL = "jane.roe@private-mail.example"
PASSWORD = "hunter2-of-the-collector"
PLANTED = (CARD, TOKEN, SESSION, EMAIL)

# The published set, and what a careful owner adds; `standard` alone leaves parameters and headers alone.
RULES = r"""include standard
/request_header:(authorization|x-token|referer|x-note)/ remove
/response_header:(location|x-note|authentication-info)/ remove
/request_param:.*/ replace /[^@ ]+@[^@ ]+/, /x@y.com/
/request_param:.*/ replace /[0-9\.\-\/]{9,}/, /xyxy/
/(request|response)_body/ replace /[^=& ]+%40[^=& ]+/, /x@y.com/
/.*/ replace /tok_[0-9A-Za-z]+/, /-/
/.*/ replace /sess-[0-9a-f]+/, /-/
/request_url/ replace /[^@\/]+@[^@\/]+/, /x@y.com/
/request_url/ replace /[0-9\.\-]{9,}/, /xyxy/
"""
TEXT = f'{{"card": "{CARD}", "mail": "{EMAIL}", "token": "{TOKEN}", "session": "{SESSION}", "free": "public-word"}}'
CODED = {
    "identity": TEXT.encode(),
    "gzip": gzip.compress(TEXT.encode()),
    "deflate": zlib.compress(TEXT.encode()),
    "br": brotli.compress(TEXT.encode()),
    "zstd": zstandard.compress(TEXT.encode()),
    "gzip, br": brotli.compress(gzip.compress(TEXT.encode())),
    "compress": b"\x1f\x9d" + TEXT.encode(),  # a coding that is not undone
}
BODY_LIMIT = 4096


def chunked(body: bytes) -> bytes:
    pieces = [body[i : i + 7] for i in range(0, len(body), 7)]
    return (
        b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces)
        + b"0\r\nX-Note: "
        + EMAIL.encode()
        + b"\r\n\r\n"
    )


def heads() -> tuple[str, ...]:
    return (
        f"Cookie: id={SESSION}; mail={EMAIL}",
        f"Authorization: Bearer {TOKEN}",
        "Authorization: Basic " + base64.b64encode(f"jane:{TOKEN}".encode()).decode(),
        f"X-Token: {TOKEN}",
        f"Referer: http://shop.example/?card={CARD}&mail={urllib.parse.quote(EMAIL)}",
        f"X-Note: {EMAIL}",
        f"User-Agent: agent {TOKEN}",
    )


def answer_heads() -> tuple[str, ...]:
    return (f"Set-Cookie: id={SESSION}; Path=/", f"Location: /?mail={EMAIL}", f"X-Note: {CARD}", f"ETag: {TOKEN}")


def calls():
    """Turns of connections: secrets everywhere, and the word that shows that the call was captured."""
    query = urllib.parse.urlencode({"card": CARD, "mail": EMAIL, "token": TOKEN, "s": SESSION})
    yield (CLIENT, get(f"/{TOKEN}/{EMAIL}/{CARD}?{query}", *heads())), (SERVER, answer(b"", *answer_heads()))
    form = query.encode()
    urlencoded = "Content-Type: application/x-www-form-urlencoded"
    yield (CLIENT, post("/form", form, urlencoded, *heads())), (SERVER, answer(form, content_type="text/plain"))
    for coding, body in CODED.items():
        head = (f"Content-Encoding: {coding}", *heads())
        yield (
            (CLIENT, post("/coded", body, "Content-Type: application/json", *head)),
            (SERVER, answer(body, f"Content-Encoding: {coding}", *answer_heads(), content_type="application/json")),
        )
        lines = ["HTTP/1.1 200 OK", "Transfer-Encoding: chunked", f"Content-Encoding: {coding}", *answer_heads()]
        head_bytes = "".join(f"{line}\r\n" for line in (*lines, "Content-Type: text/plain", "")).encode()
        yield (CLIENT, get("/chunked", *heads())), (SERVER, head_bytes + chunked(body))
    for charset in ("utf-16", "utf-16-le", "latin-1", "utf-32"):
        body = TEXT.encode(charset)
        yield (
            (CLIENT, post("/charset", body, f"Content-Type: application/json; charset={charset}")),
            (SERVER, answer(body, content_type=f"text/plain; charset={charset}")),
        )
    # Half a secret at the end of what the body limit leaves.
    for cut in range(1, len(EMAIL), 5):
        body = b" " * (BODY_LIMIT - cut) + EMAIL.encode()
        yield (CLIENT, post("/limit", body, "Content-Type: text/plain")), (SERVER, answer(body))
        packed = gzip.compress(body)
        head = ("Content-Type: text/plain", "Content-Encoding: gzip")
        yield (CLIENT, post("/limit", packed, *head)), (SERVER, answer(packed, "Content-Encoding: gzip"))
    # What is no call must not be told of either.
    yield (CLIENT, f"GET / HTTP/1.1\r\nHost: a\r\nBad Header {TOKEN}: {CARD}\r\n\r\n".encode()), (SERVER, answer())
    yield (CLIENT, f"{TOKEN} {EMAIL} {CARD}\r\n\r\n".encode()), (SERVER, answer())
    yield ((CLIENT, post("/no-answer", TEXT.encode(), *heads())),)


def datagrams(first_port=1024):
    for number, turns in enumerate(calls()):
        for frame in talk(*turns, client=Endpoint("10.0.0.1", first_port + number), isns=(number * 1000, number * 999)):
            yield in_vxlan(frame, 7)
    frames = talk((CLIENT, get("/lost", *heads())), (SERVER, answer(TEXT.encode() * 9)), client=Endpoint("10.0.0.9", 9))
    yield from (in_vxlan(frame[: len(frame) - 20], 7) for frame in frames[:-3])  # cut by the mirror


def needles():
    for secret in (*PLANTED, PASSWORD):
        for text in (secret, secret.lower(), urllib.parse.quote(secret), secret[:9], secret[-9:]):
            for charset in ("utf-8", "utf-16-le", "utf-16-be", "utf-32-le"):
                yield text.encode(charset)
        for shift in range(3):  # base64 of it, wherever in the text it stands
            packed = base64.b64encode(b" " * shift + secret.encode())
            yield packed[4:-4]


def assert_clean(where: str, data: bytes) -> None:
    for needle in needles():
        assert needle not in data, f"{needle} is in {where}"


def everything_in(folder):
    """The bytes of all files, and what is packed in the spool."""
    for path in folder.rglob("*"):
        if path.is_file():
            yield str(path), path.read_bytes()
        if path.suffix == ".gz":
            yield f"{path}, unpacked", gzip.decompress(path.read_bytes())
        if path.suffix == ".sqlite":
            with sqlite3.connect(path) as db:
                for table in ("batch", "dead"):
                    for row in db.execute(f"SELECT * FROM {table}"):
                        for value in row:
                            if isinstance(value, bytes):
                                yield f"{path} {table}", zlib.decompress(value)
                            else:
                                yield f"{path} {table}", str(value).encode()
            db.close()


def test_the_search_finds_a_secret_in_each_of_the_forms():
    for secret in PLANTED:
        for text in (secret, urllib.parse.quote(secret)):
            with pytest.raises(AssertionError):
                assert_clean("here", b"..." + text.encode() + b"...")
        for number in range(3):
            with pytest.raises(AssertionError):
                assert_clean("here", base64.b64encode(b"x" * number + secret.encode() + b"xx"))


def test_without_these_rules_the_secrets_are_there(tmp_path):
    with Running("--url", "calls.ndjson", "--rules", "include debug", cwd=tmp_path) as running:
        running.send(datagrams())
        assert running.stop() == 0
    found = (tmp_path / "calls.ndjson").read_text()
    assert all(found.count(secret) > 20 for secret in PLANTED)


@pytest.mark.timeout(120)
@pytest.mark.parametrize(
    "rules",
    [
        RULES,
        "include strict\n/.*/ replace /tok_[^ \\/]+|sess-[0-9a-f]+/, /-/\n/request_url/ replace /[^@\\/]+@[^@\\/]+|[0-9\\.\\-]{9,}/, /-/",
    ],
)
def test_what_rules_remove_is_found_nowhere(tmp_path, rules):
    (tmp_path / "rules").mkdir()
    (tmp_path / "rules" / "rules.txt").write_text(rules)
    state = tmp_path / "state"
    state.mkdir()
    control, metrics = state / "control.sock", free_udp_port()
    env = {"SNIFFER_CONTROL_SOCKET": str(control)}
    told: list[tuple[str, bytes]] = []

    with Collector(statuses=[400, *[503] * 1000]) as collector:
        url = collector.url.replace("http://", f"http://sniffer:{PASSWORD}@")
        options = ("--url", url, "--spool-dir", str(state / "spool"), "--spool-always", "--batch-wait", "100ms")
        options += ("--body-limit", str(BODY_LIMIT), "--rules", f"file://{tmp_path}/rules/rules.txt", "--debug")
        with Running(*options, "--control", str(control), "--metrics", f"127.0.0.1:{metrics}", cwd=state) as running:
            running.send(datagrams(1024))
            running.wait_for_log("400 Bad Request")
            running.send(datagrams(2048))
            running.wait_for_log("503 Service Unavailable")
            with urllib.request.urlopen(f"http://127.0.0.1:{metrics}/metrics") as page:
                told.append(("metrics", page.read()))
            for words in (["status"], ["reload"], ["doctor", "--seconds", "0.3"], ["off"], ["on"], ["nonsense"]):
                done = vxsniff(*words, cwd=state, env=env)
                told.append((" ".join(words), done.stdout + done.stderr))
            assert running.stop() == 0
        for words in (["spool", "list"], ["spool", "show", "d1"]):
            done = vxsniff(*words, "--spool-dir", str(state / "spool"), cwd=state, env=env)
            assert done.returncode == 0
            told.append((" ".join(words), done.stdout + done.stderr))
    told.append(("log", running.log.encode()))
    in_files = list(everything_in(state))
    assert in_ledger(running.log, "spooled") > 30
    assert in_ledger(running.log, "dead") > 30
    for where, data in (*told, *in_files):
        assert_clean(where, data)


@pytest.mark.parametrize("verbosity", ["none", "0", "1", "2", "3"])
def test_the_same_for_every_verbosity_and_the_copies_for_debugging(tmp_path, verbosity):
    options = ("--body-limit", str(BODY_LIMIT), "--rules", RULES, "--debug-export", "local")
    options += () if verbosity == "none" else ("--debug", "--verbosity", verbosity)
    with Running("--url", "calls.ndjson", *options, cwd=tmp_path) as running:
        running.send(datagrams())
        assert running.stop() == 0
        told = running.process.stdout.read().encode()
    files = list(everything_in(tmp_path))
    copies = [data for where, data in files if "unpacked" in where]
    assert (b"public-word" in b"".join(copies)) == (verbosity != "none")
    assert (b"public-word" in told) == (verbosity in ("2", "3"))
    for where, data in (("standard output", told), ("log", running.log.encode()), *files):
        assert_clean(where, data)


@pytest.mark.parametrize("url", ["calls.ndjson", "-", "tty"])
def test_the_same_for_a_file_standard_output_and_the_screen(tmp_path, url):
    options = ("--body-limit", str(BODY_LIMIT), "--rules", RULES, "--debug")
    with Running("--url", url, *options, cwd=tmp_path) as running:
        running.send(datagrams())
        assert running.stop() == 0
        told = running.process.stdout.read().encode()
    assert in_ledger(running.log, "accepted") > 30
    files = list(everything_in(tmp_path))
    assert (b"public-word" in told + b"".join(data for _, data in files)) == (url != "tty")
    for where, data in (("standard output", told), ("log", running.log.encode()), *files):
        assert_clean(where, data)
