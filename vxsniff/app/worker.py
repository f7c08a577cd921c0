"""One worker: a source, a pipeline, a queue, a deliverer, and the end of all that on a signal.

It is all there is, or one of several that a supervisor has started: then the supervisor speaks for it.

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
from pathlib import Path
from types import FrameType
from typing import Final

from vxsniff import __version__
from vxsniff.app import ledger, reload, values
from vxsniff.app.banner import log_start, ports_in_words, where
from vxsniff.app.build import build
from vxsniff.app.control import ControlServer
from vxsniff.app.copies import Copies
from vxsniff.app.doctor import watch_running
from vxsniff.app.inherited import Inherited
from vxsniff.app.ledger import Ledger
from vxsniff.app.live import LiveCapture, Task
from vxsniff.app.memory import tune_memory
from vxsniff.app.outlets import open_outlet
from vxsniff.app.pipeline import Format, Pipeline, ndjson_format
from vxsniff.app.progress import progress_bar
from vxsniff.app.report import Report, Reporter
from vxsniff.app.serving import control_served, metrics_served
from vxsniff.app.settings import Settings, SettingsError
from vxsniff.call import readable
from vxsniff.capture.file import CaptureFiles
from vxsniff.delivery.deliverer import Deliverer
from vxsniff.delivery.keeper import Keeper
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

    def __init__(
        self, chosen: Settings, read_again: Callable[[], Settings], inherited: Inherited | None = None
    ) -> None:
        """Opens where calls go. `read_again` reads the settings anew, and raises SettingsError as this does.
        `inherited` is there when it is one of several.
        """
        self._settings = chosen
        self._inherited = inherited
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
        self._reporter: Reporter | None = None
        self._queue: BatchQueue | None = None
        self._spool: Spool | None = None
        self._keeper: Keeper | None = None
        self._deliverer: Deliverer | None = None
        is_file = chosen.engine == values.ENGINE_FILE
        if inherited.delivers if inherited is not None else chosen.delivers:
            interactive = chosen.url in (values.URL_STDOUT, values.URL_TTY)
            self._queue = BatchQueue(
                chosen.batch_bytes,
                min(chosen.batch_wait_s, _INTERACTIVE_WAIT_S) if interactive else chosen.batch_wait_s,
                chosen.queue_limit_bytes,
                drops=not is_file,
                always=chosen.spool_always,
            )
            if chosen.spool_dir is not None:
                number, of = (inherited.worker, inherited.workers) if inherited is not None else (0, 1)
                limit_bytes = chosen.spool_limit_bytes
                self._spool = Spool(chosen.spool_dir, number, limit_bytes, total_bytes=limit_bytes * of)
                self._keeper = Keeper(self._queue, self._spool, of)
            self._deliverer = Deliverer(
                self._queue, open_outlet(chosen, inherited is not None), where(chosen.url), self._keeper
            )
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
            disabled=chosen.disable or self._queue is None,
        )

    # ---- the whole run

    def run(self) -> int:
        """Captures until the input ends or a signal comes; then finishes, flushes and prints the ledger."""
        tune_memory()
        with self._signals():
            if self._settings.engine == values.ENGINE_FILE:
                return self._run_files()
            return self._run_live()

    def _run_live(self) -> int:
        inherited = self._inherited
        given = (inherited.sockets, inherited.ports) if inherited is not None else ()
        self._live = live = LiveCapture(self._settings, self.pipeline, self._lock, self._should_stop, *given)
        if inherited is None or inherited.is_on:
            live.open()
        else:
            live.empty()
        with contextlib.closing(live), self._spoken_for(inherited, live):
            live.log_notes()
            self._start_delivery()
            live.run()
            if inherited is not None:
                live.close()
                inherited.close_sockets()  # the port is free as soon as all have read what came
            self._finish()
            self._end_delivery(GRACE_S)
        return EXIT_OK

    @contextlib.contextmanager
    def _spoken_for(self, inherited: Inherited | None, live: LiveCapture) -> Iterator[None]:
        """People are answered by this process, or by the supervisor with what this process reports."""
        chosen = self._settings
        if inherited is None:
            with metrics_served(chosen, self.look, self._is_healthy), control_served(chosen.control, self._on_request):
                log_start(chosen, live.describe(), self._spool_path)
                yield
            return
        inherited.end_with_supervisor()
        server = ControlServer(inherited.control, self._on_request)
        self._reporter = Reporter(inherited.board, self._report)
        with contextlib.closing(server), contextlib.closing(self._reporter):
            yield

    def _report(self) -> Report:
        live = self._live
        return Report(
            self.look(), live is not None and live.is_on, live is not None and live.is_healthy, time.monotonic()
        )

    def _run_files(self) -> int:
        chosen = self._settings
        try:
            files = CaptureFiles(list(chosen.read))
        except OSError as error:
            _log.error("%s: can't be read: %s", error.filename, error.strerror)
            return EXIT_DAMAGED
        with contextlib.closing(files), metrics_served(chosen, self.look, self._is_healthy):
            names = ["standard input" if name == "-" else name for name in chosen.read]
            log_start(
                chosen, f"capture files {', '.join(names)}", self._spool.path if self._spool is not None else None
            )
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
        batches = files.batches()
        is_over = False
        count = 0
        while not is_over and not self._should_stop():
            # A pipe may keep us waiting: only here a signal breaks in, elsewhere it is looked at in between.
            try:
                self._may_break_in = True
                batch = next(batches, None)
                is_over = batch is None
            except _BrokenIn:
                is_over = True
            finally:
                self._may_break_in = False
            with self._lock:
                self.pipeline.frames(files.in_hand)
            count += len(files.in_hand)
            files.in_hand = []
            if count >= _FRAMES_A_STEP:
                count = 0
                step()
                self._wait(lambda queue: queue.wait_for_room(_WAIT_SLICE_S))

    # ---- the parts of a run

    @property
    def _spool_path(self) -> Path | None:
        return self._spool.path if self._spool is not None else None

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
        if self._reporter is None:
            print_ledger(self.look())
        else:
            self._reporter.report()
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
            *ledger.switches(
                live is None or live.is_on,
                live.switches if live is not None else 0,
                self._reloads,
                self._reloads_refused,
            ),
        )

    def _is_healthy(self) -> bool:
        # A file that waits for its next packet is no fault; who is switched off should get no traffic of a balancer.
        return self._live is None or (self._live.is_on and self._live.is_healthy)

    # ---- control

    def _on_request(self, words: list[str]) -> tuple[bool, str]:
        live = self._live
        assert live is not None
        tasks: dict[str, Task] = {"on": live.switch_on, "off": live.switch_off, "reload": self._reload}
        word = " ".join(words)
        if word == "status":
            return True, "\n".join((self._status(), *self._about(live), self.look().as_text()))
        if word == "about":
            return True, "\n".join(self._about(live))
        if word in tasks:
            return live.ask(tasks[word])
        if words[:1] == ["watch"] and len(words) == 2:
            try:
                seconds = values.parse_seconds(words[1])
                return True, json.dumps(watch_running(self._settings, live, self.pipeline, self.look, seconds))
            except ValueError as error:
                return False, str(error)
        return False, f"{word!r} is not known: use on, off, status or reload"

    def _status(self) -> str:
        return (
            f"vxsniff {__version__} ({build()}), running for {int(time.monotonic() - self._started_s)} s, "
            f"process {os.getpid()}"
        )

    def _about(self, live: LiveCapture) -> list[str]:
        chosen = self._settings
        return [
            f"capturing: {live.describe()}",
            f"VNIs: {self.pipeline.decoder.vnis.describe()}; {ports_in_words(self.pipeline.decoder.ports)}",
            f"delivering: {where(chosen.url) if self._queue is not None else 'nothing, it is switched off'}",
            f"rules: {chosen.rules_origin}, {len(chosen.rules.rules)} in all",
        ]

    def _reload(self) -> str:
        """Reads the settings anew: what can be applied is, and what is wrong changes nothing."""
        live = self._live
        assert live is not None
        try:
            chosen = self._read_again()
            outlet = None
            if self._deliverer is not None and reload.changes_outlet(self._settings, chosen):
                outlet = open_outlet(chosen, self._inherited is not None)
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
                # One of several is on its way out already: what its supervisor still says must not look like a death.
                signal.signal(number, handler if self._inherited is None else signal.SIG_IGN)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        del frame
        now_s = time.monotonic()
        if self._inherited is None and self._stop_signals and now_s - self._stopped_s > SECOND_SIGNAL_S:
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


def _ship_nowhere(line: bytes) -> None:
    del line
    raise AssertionError("a disabled pipeline ships nothing")


def print_ledger(final: Ledger) -> None:
    """At the end."""
    print(final.as_text(), file=sys.stderr, flush=True)
    if not final.closes:
        _log.error("the ledger does not close: please report it")


def _format_for(url: str) -> Format:
    if url == values.URL_TTY:
        colour = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
        return lambda record: readable.line(record.kept, record, _time_of_day(record.now_ms), colour)
    return ndjson_format(os.environ.get("DYNO") or socket.gethostname())


def _time_of_day(now_ms: int) -> str:
    return time.strftime("%H:%M:%S", time.localtime(now_ms / 1000)) + f".{now_ms % 1000:03d}"
