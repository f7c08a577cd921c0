"""One worker: a source, a pipeline, a queue, a deliverer, and the end of all that on a signal.

The capturing thread (the main one) holds `_lock` while it works on what it has received, so that a look at the ledger
from the metrics thread sees whole steps only.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import random
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Final

from vxsniff import __version__
from vxsniff.app import ledger, reload, values
from vxsniff.app.build import build
from vxsniff.app.collector import tune_collector
from vxsniff.app.control import ControlError, ControlServer
from vxsniff.app.copies import Copies
from vxsniff.app.doctor import watch_running
from vxsniff.app.ledger import Ledger
from vxsniff.app.live import LiveCapture, Task
from vxsniff.app.metrics import MetricsServer
from vxsniff.app.pipeline import Format, Pipeline, ndjson_format
from vxsniff.app.progress import progress_bar
from vxsniff.app.settings import Settings, SettingsError
from vxsniff.app.values import size_in_words
from vxsniff.call import readable
from vxsniff.call.patterns import RE_MAX_CHARS
from vxsniff.capture.file import CaptureFiles
from vxsniff.capture.source import CaptureError
from vxsniff.delivery.deliverer import Deliverer
from vxsniff.delivery.files import FileOutlet, StreamOutlet
from vxsniff.delivery.keeper import Keeper
from vxsniff.delivery.outlet import Outlet
from vxsniff.delivery.post import PostOutlet
from vxsniff.delivery.queue import BatchQueue
from vxsniff.delivery.spool import Spool

EXIT_OK: Final = 0
EXIT_DAMAGED: Final = 1
EXIT_USAGE: Final = 2
EXIT_NO_CAPTURE: Final = 3
EXIT_UNDELIVERED: Final = 4
EXIT_OWN: Final = 70

GRACE_S: Final = 6.0
"""How long delivery may go on after a signal."""
STALL_S: Final = 60.0
"""How long a capture file waits for a delivery that accepts nothing."""
SECOND_SIGNAL_S: Final = 1.0
_FRAMES_A_STEP: Final = 256
_INTERACTIVE_WAIT_S: Final = 0.1
_WAIT_SLICE_S: Final = 0.1
_ERROR_EVERY_S: Final = 60.0

_log = logging.getLogger("vxsniff")


class _BrokenIn(Exception):
    """A signal came while a frame was waited for."""


class Worker:
    """Runs what the settings ask for; `run` returns the exit status."""

    def __init__(self, chosen: Settings, read_again: Callable[[], Settings]) -> None:
        """Opens where calls go. `read_again` reads the settings anew, and raises SettingsError as this does."""
        self._settings = chosen
        self._read_again = read_again
        self._lock = threading.Lock()
        self._stop_signals = 0
        self._stopped_s = 0.0
        self._may_break_in = False
        self._started_s = time.monotonic()
        self._stalled = False
        self._errors_logged_s: dict[str, float] = {}
        self._reloads = 0
        self._reloads_refused = 0
        self._live: LiveCapture | None = None
        self._queue: BatchQueue | None = None
        self._spool: Spool | None = None
        self._keeper: Keeper | None = None
        self._deliverer: Deliverer | None = None
        is_file = chosen.engine == values.ENGINE_FILE
        if not (chosen.disable or chosen.rules.skip_submission):
            interactive = chosen.url in (values.URL_STDOUT, values.URL_TTY)
            self._queue = BatchQueue(
                chosen.batch_bytes,
                min(chosen.batch_wait_s, _INTERACTIVE_WAIT_S) if interactive else chosen.batch_wait_s,
                chosen.queue_limit_bytes,
                drops=not is_file,
                always=chosen.spool_always,
            )
            if chosen.spool_dir is not None:
                self._spool = Spool(chosen.spool_dir, 0, chosen.spool_limit_bytes)
                self._keeper = Keeper(self._queue, self._spool)
            self._deliverer = Deliverer(self._queue, _open_outlet(chosen), where(chosen.url), self._keeper)
        self._copies = Copies(chosen)
        self.pipeline = Pipeline(
            chosen.vnis,
            chosen.rules,
            self._copies.beside(self._queue.add) if self._queue is not None else _ship_nowhere,
            format_call=_format_for(chosen.url),
            draw=lambda: random.randrange(100),
            on_error=self._on_error,
            ports=chosen.app_ports,
            dedup=chosen.dedup,
            realip_header=chosen.realip_header,
            body_limit_bytes=chosen.body_limit_bytes,
            memory_limit_bytes=chosen.memory_limit_bytes,
            call_ids=chosen.call_ids,
            disabled=chosen.disable,
        )

    # ---- the whole run

    def run(self) -> int:
        """Captures until the input ends or a signal comes; then finishes, flushes and prints the ledger."""
        tune_collector()
        with self._signals():
            if self._settings.engine == values.ENGINE_FILE:
                return self._run_files()
            return self._run_live()

    def _run_live(self) -> int:
        self._live = live = LiveCapture(self._settings, self.pipeline, self._lock, self._should_stop)
        live.open()
        with contextlib.closing(live), self._metrics(), self._control():
            self._log_start(live.describe())
            live.log_notes()
            self._start_delivery()
            live.run()
            self._finish()
            self._end_delivery(GRACE_S)
        return EXIT_OK

    def _run_files(self) -> int:
        chosen = self._settings
        try:
            files = CaptureFiles(list(chosen.read))
        except OSError as error:
            _log.error("%s: can't be read: %s", error.filename, error.strerror)
            return EXIT_DAMAGED
        with contextlib.closing(files), self._metrics():
            names = ["standard input" if name == "-" else name for name in chosen.read]
            self._log_start(f"capture files {', '.join(names)}")
            self._start_delivery()
            shows_bar = not (chosen.url in (values.URL_STDOUT, values.URL_TTY) and sys.stdout.isatty())
            with progress_bar(files, lambda: self.pipeline.counters.calls, shows_bar) as step:
                self._read(files, step)
            self._finish()
            if self._queue is not None:
                self._queue.finish()
            self._wait(lambda queue: queue.wait_until_done(_WAIT_SLICE_S))
            ended = self._end_delivery(GRACE_S if self._stop_signals else 0.5)
        for error_text in files.errors:
            _log.error("%s", error_text)
        if files.errors:
            return EXIT_DAMAGED
        return EXIT_OK if ended else EXIT_UNDELIVERED

    def _read(self, files: CaptureFiles, step: Callable[[], None]) -> None:
        """Takes all frames; `step` is called every now and then."""
        frames = files.frames()
        count = 0
        while not self._should_stop():
            # A pipe may keep us waiting: only here a signal breaks in, elsewhere it is looked at in between.
            try:
                self._may_break_in = True
                frame = next(frames, None)
            except _BrokenIn:
                return
            finally:
                self._may_break_in = False
            if frame is None:
                return
            with self._lock:
                self.pipeline.frame(frame.data, frame.link_type, frame.ts_ns)
            count += 1
            if count % _FRAMES_A_STEP == 0:
                step()
                self._wait(lambda queue: queue.wait_for_room(_WAIT_SLICE_S))

    # ---- the parts of a run

    def _should_stop(self) -> bool:
        has_reader = self._deliverer is None or not self._deliverer.is_gone.is_set()
        return self._stop_signals > 0 or self._stalled or not has_reader

    def _wait(self, is_over: Callable[[BatchQueue], bool]) -> None:
        """Reading a capture file waits for delivery: until it is over, a signal comes, or nothing moves for STALL_S."""
        queue = self._queue
        moved_s = time.monotonic()
        before = queue.counts().waiting if queue is not None else 0
        while queue is not None and not self._should_stop() and not is_over(queue):
            now_s = time.monotonic()
            waiting = queue.counts().waiting
            if waiting != before:
                before, moved_s = waiting, now_s
            elif now_s - moved_s > STALL_S:
                self._stalled = True

    def _start_delivery(self) -> None:
        if self._deliverer is not None:
            self._deliverer.start()
            self._copies.start()

    def _finish(self) -> None:
        with self._lock:
            self.pipeline.finish()

    def _end_delivery(self, grace_s: float) -> bool:
        """True when everything that was shipped was accepted, or its reader did not want more."""
        if self._deliverer is None:
            counts = None
        else:
            self._deliverer.stop(grace_s)
            self._copies.stop(1.0)
            counts = self._deliverer.queue.counts()
        final = self.look()
        print(final.as_text(), file=sys.stderr, flush=True)
        if not final.closes:
            _log.error("the ledger does not close: please report it")
        if counts is None or self._deliverer is None or self._deliverer.is_gone.is_set():
            return True
        if counts.spooled:
            _log.info("%d calls wait in the spool for the next start", counts.spooled)
        if counts.dropped:
            _log.error("%d calls were not delivered to %s", counts.dropped, where(self._settings.url))
        return counts.dropped + counts.dead + counts.spooled == 0

    def look(self) -> Ledger:
        """The ledger as of now."""
        with self._lock:
            return ledger.take(
                self.pipeline,
                self._queue,
                self._live.kernel_dropped if self._live is not None else 0,
                self._deliverer,
                self._switches(),
            )

    def _switches(self) -> tuple[ledger.Entry, ...]:
        live = self._live
        return (
            *(live.facts() if live is not None else ()),
            *(self._copies.facts() if self._copies else ()),
            ledger.Entry("capturing", int(live is None or live.is_on), "1 while packets are taken", is_open=True),
            ledger.Entry("switches", live.switches if live is not None else 0, "times that capturing was switched"),
            ledger.Entry("reloads", self._reloads, "times that settings were read anew"),
            ledger.Entry("reloads_refused", self._reloads_refused, "times that new settings were wrong"),
        )

    def _is_healthy(self) -> bool:
        # A file that waits for its next packet is no fault; who is switched off should get no traffic of a balancer.
        return self._live is None or (self._live.is_on and self._live.is_healthy)

    @contextlib.contextmanager
    def _metrics(self) -> Iterator[None]:
        chosen = self._settings
        wanted = chosen.metrics
        if wanted is None or (chosen.engine == values.ENGINE_FILE and not chosen.metrics_asked_for):
            yield
            return
        try:
            server = MetricsServer(wanted.host, wanted.port, self.look, self._is_healthy)
        except OSError as error:
            text = f"metrics can't be served on {wanted.host}:{wanted.port}: {error.strerror}"
            if chosen.metrics_asked_for:
                raise CaptureError(f"{text}; use another --metrics address, or off") from None
            _log.warning("%s; going on without them", text)
            yield
            return
        host = f"[{wanted.host}]" if ":" in wanted.host else wanted.host
        _log.info("metrics: http://%s:%d/metrics and /healthz", host, server.address[1])
        with contextlib.closing(server):
            yield

    # ---- control

    @contextlib.contextmanager
    def _control(self) -> Iterator[None]:
        chosen = self._settings
        if chosen.control is None:
            yield
            return
        try:
            server = ControlServer(chosen.control, self._on_request)
        except ControlError as error:
            _log.warning("control socket %s: %s; going on without it", chosen.control, error)
            yield
            return
        with contextlib.closing(server):
            yield

    def _on_request(self, words: list[str]) -> tuple[bool, str]:
        live = self._live
        assert live is not None
        tasks: dict[str, Task] = {"on": live.switch_on, "off": live.switch_off, "reload": self._reload}
        word = " ".join(words)
        if word == "status":
            return True, self._status(live)
        if word in tasks:
            return live.ask(tasks[word])
        if words[:1] == ["watch"] and len(words) == 2:
            try:
                seconds = values.parse_seconds(words[1])
                return True, json.dumps(watch_running(self._settings, live, self.pipeline, self.look, seconds))
            except ValueError as error:
                return False, str(error)
        return False, f"{word!r} is not known: use on, off, status or reload"

    def _status(self, live: LiveCapture) -> str:
        chosen = self._settings
        lines = [
            f"vxsniff {__version__} ({build()}), running for {int(time.monotonic() - self._started_s)} s, "
            f"process {os.getpid()}",
            f"capturing: {live.describe()}",
            f"VNIs: {self.pipeline.decoder.vnis.describe()}",
            f"delivering: {where(chosen.url) if self._queue is not None else 'nothing, it is switched off'}",
            f"rules: {chosen.rules_origin}, {len(chosen.rules.rules)} in all",
            self.look().as_text(),
        ]
        return "\n".join(lines)

    def _reload(self) -> str:
        """Reads the settings anew: what can be applied is, and what is wrong changes nothing."""
        live = self._live
        assert live is not None
        try:
            chosen = self._read_again()
            outlet = None
            if self._deliverer is not None and reload.changes_outlet(self._settings, chosen):
                outlet = _open_outlet(chosen)
        except SettingsError as error:
            self._reloads_refused += 1
            _log.error("reload refused, all stays as it was: %s", error)
            raise ValueError(f"refused, all stays as it was: {error}") from None
        with self._lock:
            changes = reload.apply(self._settings, chosen, self.pipeline, self._queue is not None)
        if outlet is not None and self._deliverer is not None:
            self._deliverer.use(outlet, where(chosen.url))
        logging.getLogger().setLevel(logging.DEBUG if changes.chosen.debug else logging.INFO)
        live.use(changes.chosen)
        self._settings = changes.chosen
        self._reloads += 1
        for line in changes.lines:
            _log.info("reload: %s", line)
        return "\n".join(changes.lines)

    # ---- signals, errors, logs

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        before = {number: signal.signal(number, self._on_signal) for number in (signal.SIGTERM, signal.SIGINT)}
        if hasattr(signal, "SIGHUP"):
            before[signal.SIGHUP] = signal.signal(signal.SIGHUP, self._on_hangup)
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        del frame
        now_s = time.monotonic()
        if self._stop_signals and now_s - self._stopped_s > SECOND_SIGNAL_S:
            signal.signal(number, signal.SIG_DFL)  # asked again: end at once
            os.kill(os.getpid(), number)
        if not self._stop_signals:
            self._stopped_s = now_s
        self._stop_signals += 1
        if self._may_break_in:
            raise _BrokenIn

    def _on_hangup(self, number: int, frame: FrameType | None) -> None:
        del number, frame
        if self._live is not None:
            self._live.later(self._reload)

    def _on_error(self, error: Exception) -> None:
        """An error of our own: one line a minute for each place, never with payload in it."""
        frames = traceback.extract_tb(error.__traceback__)
        place = f"{os.path.basename(frames[-1].filename)}:{frames[-1].lineno}" if frames else "?"
        now_s = time.monotonic()
        if now_s - self._errors_logged_s.get(place, -_ERROR_EVERY_S) < _ERROR_EVERY_S:
            return
        self._errors_logged_s[place] = now_s
        _log.error("%s at %s: what was at hand is dropped; please report it", type(error).__name__, place)
        if self._settings.debug:
            _log.debug("".join(traceback.format_tb(error.__traceback__)))

    def _log_start(self, what: str) -> None:
        chosen = self._settings
        _log.info("vxsniff %s (%s)", __version__, build())
        ports = f"TCP ports {_ports_in_words(chosen.app_ports)}" if chosen.app_ports else "all TCP ports"
        twins = "" if chosen.dedup else ", every copy of a doubly mirrored call"
        _log.info("capturing: %s; VNIs %s; %s%s", what, chosen.vnis.describe(), ports, twins)
        if self._queue is None:
            _log.info("delivering: nothing, it is switched off")
        else:
            packed = " compressed" if chosen.posts and not chosen.rules.skip_compression else ""
            how = f" in{packed} batches of {size_in_words(chosen.batch_bytes)}" if chosen.posts else ""
            _log.info("delivering: to %s%s", where(chosen.url), how)
        if self._spool is not None:
            how = "every call goes there first" if chosen.spool_always else "used when the collector is behind"
            limit = size_in_words(chosen.spool_limit_bytes)
            _log.info("spool: %s, up to %s, %s", self._spool.path, limit, how)
        _log.info("rules: %s, %d in all", chosen.rules_origin, len(chosen.rules.rules))
        for rule in chosen.rules.slow_rules:
            _log.warning(
                "line %d: %r can't run in linear time: longer values than %d characters count as caught by it",
                rule.line,
                rule.text,
                RE_MAX_CHARS,
            )
        if chosen.ignored_variables:
            _log.warning("not in this version, ignored: %s", ", ".join(chosen.ignored_variables))


def _ship_nowhere(line: bytes) -> None:
    del line
    raise AssertionError("a disabled pipeline ships nothing")


def _open_outlet(chosen: Settings) -> Outlet:
    if chosen.posts:
        try:
            return PostOutlet(chosen.url, not chosen.rules.skip_compression)
        except ValueError as error:
            raise SettingsError(f"USAGE_LOGGERS_URL: {where(chosen.url)} can't be posted to: {error}") from None
    if chosen.url in (values.URL_STDOUT, values.URL_TTY):
        return StreamOutlet(sys.stdout.fileno())
    try:
        return FileOutlet(chosen.url)
    except OSError as error:
        raise SettingsError(f"USAGE_LOGGERS_URL: the file {chosen.url} can't be written: {error.strerror}") from None


def _format_for(url: str) -> Format:
    if url == values.URL_TTY:
        colour = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
        return lambda details, record: readable.line(details, record, _time_of_day(record.now_ms), colour)
    return ndjson_format(os.environ.get("DYNO") or socket.gethostname())


def _time_of_day(now_ms: int) -> str:
    return time.strftime("%H:%M:%S", time.localtime(now_ms / 1000)) + f".{now_ms % 1000:03d}"


def where(url: str) -> str:
    """The place that calls go to, for people; without a password."""
    if url in (values.URL_STDOUT, values.URL_TTY):
        return "standard output"
    return values.without_password(url)


def _ports_in_words(ports: frozenset[int]) -> str:
    """Ports as a list of numbers and ranges."""
    words = []
    ordered = sorted(ports)
    start = 0
    for i, port in enumerate(ordered):
        if i + 1 == len(ordered) or ordered[i + 1] != port + 1:
            words.append(str(port) if i == start else f"{ordered[start]}-{port}")
            start = i + 1
    return ", ".join(words)
