"""Several workers, each a process of its own, and one that opens their sockets, starts them, and speaks for them.

The sockets stay open whatever becomes of a worker: one that died is started again, and finds in its socket what came
meanwhile. What workers count comes over boards, and is one ledger and one /metrics; what is asked of the control
socket goes to all of them. A signal to end goes to all of them, and the ledger is printed when all have ended.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from types import FrameType
from typing import Final

from vxsniff import __version__
from vxsniff.app import ledger, ledgers
from vxsniff.app.banner import log_start
from vxsniff.app.build import build
from vxsniff.app.control import ControlError, ask, listen_unnamed
from vxsniff.app.inherited import VARIABLE, Board, Numbers
from vxsniff.app.ledger import Entry, Ledger
from vxsniff.app.live import HEALTHY_WITHIN_S, SOCKET_COUNTS, udp_ports
from vxsniff.app.report import Report
from vxsniff.app.serving import control_served, metrics_served
from vxsniff.app.settings import Settings, SettingsError
from vxsniff.app.worker import EXIT_OK, GRACE_S, SECOND_SIGNAL_S, print_ledger
from vxsniff.capture.group import SocketGroup
from vxsniff.capture.udp import KERNEL_FILTERED
from vxsniff.doctor import observation
from vxsniff.doctor.observation import Observation

END_S: Final = GRACE_S + 6.0
"""How long workers may take to end: delivery's grace, and what comes before and after it."""
START_S: Final = 10.0
"""How long one that was just started may take to say so, before it is asked to end."""
STEADY_S: Final = 10.0
"""One that died sooner is started again after a pause, which grows."""
PAUSE_FIRST_S: Final = 0.5
PAUSE_MAX_S: Final = 30.0
_LOOK_S: Final = 0.1
_ASK_S: Final = 12.0

_log = logging.getLogger("vxsniff")


class _Member:
    """A worker, as its supervisor sees it."""

    def __init__(self, number: int, group: SocketGroup) -> None:
        self.number = number
        self.process: subprocess.Popen[bytes] | None = None
        self.address: bytes
        self._listener, self.address = listen_unnamed()
        self._group = group
        self._board = Board.create()
        self._last: Report | None = None
        self._former: list[Ledger] = []  # of processes that died
        self.started_s = 0.0
        self.deaths = 0  # one soon after the other
        self.start_s = 0.0  # when it is to be started again

    def start(self, command: list[str], workers: int, is_on: bool, lifeline: int) -> None:
        self._board.clear()
        self._last = None
        numbers = Numbers(
            self.number,
            workers,
            is_on,
            tuple(one.fileno() for one in self._group.of(self.number)),
            self._listener.fileno(),
            self._board.fd,
            lifeline,
        )
        self.started_s = time.monotonic()
        # In a process group of its own: Ctrl-C reaches it through its supervisor alone.
        self.process = subprocess.Popen(
            command,
            env={**os.environ, VARIABLE: numbers.as_text()},
            pass_fds=numbers.files,
            process_group=0,
            stdin=subprocess.DEVNULL,
        )

    @property
    def is_alive(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def report(self) -> Report | None:
        """Its latest one; None when it has made none yet, or is dead."""
        text = self._board.read()
        if text:
            with contextlib.suppress(ValueError):
                self._last = Report.from_json(text)
        return self._last

    def ledgers(self) -> list[Ledger]:
        """What it counts, and what counted those that died before it."""
        report = self.report()
        return [*self._former, report.ledger] if report is not None else self._former

    def died(self) -> None:
        """Takes its last report for what it was, and sets when it is to be started again."""
        last = self.report()
        if last is not None:
            self._former = [ledgers.merged([*self._former, ledgers.settled(last.ledger)], ())]
        self._last = None
        self._board.clear()
        now_s = time.monotonic()
        self.deaths = 0 if now_s - self.started_s >= STEADY_S else self.deaths + 1
        pause_s = min(PAUSE_MAX_S, PAUSE_FIRST_S * 2.0 ** min(self.deaths - 1, 16)) if self.deaths else 0.0
        self.start_s = now_s + pause_s
        self.process = None

    def ask(self, words: list[str], timeout_s: float = _ASK_S) -> tuple[bool, str]:
        try:
            return ask(self.address, words, timeout_s)
        except ControlError:
            return False, f"worker {self.number} does not answer"

    def close(self) -> None:
        self._listener.close()
        os.close(self._board.fd)


class Supervisor:
    """Runs what the settings ask for with several workers; `run` returns the exit status. Linux.

    `command` starts a vxsniff with the same settings.
    """

    def __init__(self, chosen: Settings, read_again: Callable[[], Settings], command: list[str]) -> None:
        self._settings = chosen
        self._read_again = read_again
        self._command = command
        self._lock = threading.Lock()  # workers come and go while others look
        self._members: list[_Member] = []
        self._is_on = True
        self._switches = 0
        self._reloads = 0
        self._reloads_refused = 0
        self._restarts = 0
        self._stop_signals = 0
        self._stopped_s = 0.0
        self._hung_up = False
        self._wake = threading.Event()
        self._started_s = time.monotonic()
        self._group: SocketGroup
        self._lifeline = -1

    def run(self) -> int:
        """Captures until a signal comes; then has all workers finish, and prints the ledger."""
        chosen = self._settings
        wanted = None if chosen.no_filter else (chosen.vnis, chosen.app_ports)
        self._group = group = SocketGroup(chosen.address, udp_ports(chosen), chosen.workers, wanted)
        self._lifeline, ours = os.pipe()
        with self._signals(), contextlib.closing(group):
            self._members = [_Member(number, group) for number in range(chosen.workers)]
            with (
                metrics_served(chosen, self.look, self._is_healthy),
                control_served(chosen.control, self._on_request),
            ):
                log_start(chosen, f"{group.describe()}, {chosen.workers} workers", chosen.spool_dir)
                note = group.note()
                _log.log(logging.WARNING if note.is_warning else logging.INFO, "%s", note.text)
                for member in self._members:
                    self._start(member)
                while not self._stop_signals:
                    self._watch()
                    self._wake.wait(_LOOK_S)
                self._end()
            final = self.look()
            for member in self._members:
                member.close()
        os.close(ours)
        os.close(self._lifeline)
        print_ledger(final)
        return EXIT_OK

    # ---- workers

    def _start(self, member: _Member) -> None:
        with self._lock:
            member.start(self._command, len(self._members), self._is_on, self._lifeline)
        assert member.process is not None
        _log.info("worker %d: process %d", member.number, member.process.pid)

    def _watch(self) -> None:
        """Starts anew who died, and does what a signal asked for."""
        self._wake.clear()
        self._group.drops.count()  # often enough
        for member in self._members:
            if member.process is None:
                if time.monotonic() >= member.start_s:
                    self._restarts += 1
                    self._start(member)
            elif not member.is_alive:
                self._bury(member)
        if self._hung_up:
            self._hung_up = False
            self._reload()

    def _bury(self, member: _Member) -> None:
        process = member.process
        assert process is not None
        with self._lock:
            member.died()
        pause_s = max(0.0, member.start_s - time.monotonic())
        _log.error(
            "worker %d (process %d) has died: %s; %s, what comes meanwhile waits in its socket",
            member.number,
            process.pid,
            _how(process.returncode),
            f"it is started again in {pause_s:.1f} s" if pause_s else "it is started again",
        )

    def _end(self) -> None:
        """Asks all to end, once they can hear it, and waits."""
        self._group.shut_out()
        end_s = time.monotonic() + START_S
        asked: set[int] = set()
        while len(asked) < len(self._members) and time.monotonic() < end_s:
            for member in self._members:
                if member.process is None:
                    self._start(member)  # it delivers what lies in its socket and its spool
                elif member.number not in asked and (member.report() is not None or not member.is_alive):
                    asked.add(member.number)
                    member.process.send_signal(signal.SIGTERM)
            time.sleep(_LOOK_S / 10)
        for member in self._members:
            if member.process is not None and member.number not in asked:
                member.process.send_signal(signal.SIGTERM)
        end_s = time.monotonic() + END_S
        for member in self._members:
            process = member.process
            if process is None:
                continue
            try:
                status = process.wait(max(0.0, end_s - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                status = process.wait()
            if status != EXIT_OK:
                _log.error("worker %d (process %d) did not end well: %s", member.number, process.pid, _how(status))
                with self._lock:
                    member.died()

    # ---- looks

    def look(self) -> Ledger:
        """The ledger of all workers, there were and there are."""
        dropped = self._group.drops.count()
        own = [
            *ledger.switches(
                self._is_on,
                self._switches,
                self._reloads,
                self._reloads_refused,
                sum(member.is_alive for member in self._members),
                self._restarts,
            ),
            ledger.kernel_dropped(dropped.lost),
            Entry(KERNEL_FILTERED, dropped.filtered, SOCKET_COUNTS[KERNEL_FILTERED]),
        ]
        with self._lock:
            return ledgers.merged([one for member in self._members for one in member.ledgers()], own)

    def _is_healthy(self) -> bool:
        now_s = time.monotonic()
        reports = [member.report() for member in self._members if member.is_alive]
        return len(reports) == len(self._members) and all(
            report is not None and report.is_on and report.is_healthy and now_s - report.now_s < HEALTHY_WITHIN_S
            for report in reports
        )

    # ---- control

    def _on_request(self, words: list[str]) -> tuple[bool, str]:
        word = " ".join(words)
        if word == "status":
            return True, self._status()
        if word == "on":
            return self._switch_on()
        if word == "off":
            return self._switch_off()
        if word == "reload":
            return self._reload()
        if words[:1] == ["watch"] and len(words) == 2:
            return self._watched(words)
        return False, f"{word!r} is not known: use on, off, status or reload"

    def _ask_all(self, words: list[str], timeout_s: float = _ASK_S) -> tuple[bool, list[str]]:
        """Whether all did it, and what they say, each thing once. One that is dead does it when it starts."""
        alive = [member for member in self._members if member.is_alive]
        with ThreadPoolExecutor(max(1, len(alive))) as pool:
            answers = list(pool.map(lambda member: member.ask(words, timeout_s), alive))
        refusals = [text for went_well, text in answers if not went_well]
        return not refusals, list(dict.fromkeys(refusals or [text for _, text in answers]))

    def _switch_on(self) -> tuple[bool, str]:
        if self._is_on:
            return True, "it is on already"
        self._is_on = True
        self._group.let_in()
        return self._switched(["on"])

    def _switch_off(self) -> tuple[bool, str]:
        if not self._is_on:
            return True, "it is off already"
        self._is_on = False
        self._group.shut_out()
        return self._switched(["off"])

    def _switched(self, words: list[str]) -> tuple[bool, str]:
        self._switches += 1
        went_well, said = self._ask_all(words)
        return went_well, "\n".join(said)

    def _reload(self) -> tuple[bool, str]:
        """Has all workers read the settings anew; wrong ones are refused before any worker is asked."""
        try:
            chosen = self._read_again()
        except SettingsError as error:
            self._reloads_refused += 1
            _log.error("reload refused, all stays as it was: %s", error)
            return False, f"refused, all stays as it was: {error}"
        logging.getLogger().setLevel(logging.DEBUG if chosen.debug else logging.INFO)
        self._reloads += 1
        went_well, said = self._ask_all(["reload"])
        return went_well, "\n".join(said)

    def _status(self) -> str:
        workers = []
        with self._lock:
            for member in self._members:
                report = member.report()
                doing = f"process {member.process.pid}" if member.process is not None else "dead, to be started again"
                counts = {e.name: e.total for e in report.ledger.equations} if report is not None else {}
                frames, calls = counts.get("frames", 0), counts.get("calls", 0)
                workers.append(f"worker {member.number}: {doing}, {frames:,} frames, {calls:,} calls")
            first = next((member for member in self._members if member.is_alive), None)
        about = first.ask(["about"])[1] if first is not None else "no worker is alive"
        lines = (
            f"vxsniff {__version__} ({build()}), running for {int(time.monotonic() - self._started_s)} s, "
            f"process {os.getpid()}, {len(workers)} workers",
            about,
            *workers,
            self.look().as_text(),
        )
        return "\n".join(lines)

    def _watched(self, words: list[str]) -> tuple[bool, str]:
        """What all workers saw together."""
        before = self._group.drops.count().lost
        try:
            went_well, said = self._ask_all(words, float(words[1]) + _ASK_S)
            if not went_well:
                return False, "\n".join(said)
            seen: Observation = observation.merged([json.loads(text) for text in said])
        except ValueError:
            return False, f"{words[1]!r} is no time in seconds"
        seen["kernel_dropped"] = self._group.drops.count().lost - before
        seen["where"] = f"{self._group.describe()}, {len(self._members)} workers, process {os.getpid()}"
        return True, json.dumps(seen)

    # ---- signals

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        handlers = {signal.SIGTERM: self._on_signal, signal.SIGINT: self._on_signal, signal.SIGHUP: self._on_hangup}
        before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        del frame
        now_s = time.monotonic()
        if self._stop_signals and now_s - self._stopped_s > SECOND_SIGNAL_S:
            signal.signal(number, signal.SIG_DFL)  # asked again: end at once, and workers with it
            for member in self._members:
                if member.process is not None:
                    member.process.kill()
            os.kill(os.getpid(), number)
        if not self._stop_signals:
            self._stopped_s = now_s
        self._stop_signals += 1
        self._wake.set()

    def _on_hangup(self, number: int, frame: FrameType | None) -> None:
        del number, frame
        self._hung_up = True
        self._wake.set()


def _how(status: int) -> str:
    """How a process ended, in words."""
    if status < 0:
        return f"by {signal.Signals(-status).name}"
    return f"with exit status {status}"


def own_command() -> list[str]:
    """The command line that this process was started with."""
    return [sys.executable, *sys.orig_argv[1:]]
