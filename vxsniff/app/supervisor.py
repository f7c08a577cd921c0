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
from pathlib import Path
from types import FrameType
from typing import Final

from vxsniff import __version__
from vxsniff.app import ledger, ledgers, reload, values
from vxsniff.app.banner import log_start
from vxsniff.app.build import build
from vxsniff.app.doctor import MAX_WATCH_S
from vxsniff.app.inherited import Board
from vxsniff.app.ledger import Entry, Ledger
from vxsniff.app.live import HEALTHY_WITHIN_S, SOCKET_COUNTS, udp_ports
from vxsniff.app.member import Member
from vxsniff.app.outlets import open_outlet
from vxsniff.app.serving import control_served, metrics_served
from vxsniff.app.settings import Inputs, Settings, SettingsError
from vxsniff.app.worker import EXIT_OK, EXIT_USAGE, GRACE_S, SECOND_SIGNAL_S, print_ledger
from vxsniff.capture.group import SocketGroup
from vxsniff.capture.udp import KERNEL_FILTERED
from vxsniff.doctor import observation
from vxsniff.doctor.observation import Observation

END_S: Final = GRACE_S + 9.0
"""How long workers may take to end: delivery's grace, and what comes before and after it."""
HUNG_S: Final = 30.0
"""One that has not reported for so long is killed."""
ORDERLY_S: Final = 0.5
"""One that ended in order was asked to by somebody, who may be asking this process as well."""
_LOOK_S: Final = 0.1
ASK_S: Final = 8.5
"""How long a worker may take to answer: longer than it gives itself, less than who asks us waits."""
ABOUT_S: Final = 1.0

_ENDING: Final = "it is about to end"

_log = logging.getLogger("vxsniff")


class Supervisor:
    """Runs what the settings ask for with several workers; `run` returns the exit status. Linux.

    `command` starts a vxsniff with the same settings.
    """

    def __init__(self, chosen: Settings, read_again: Callable[[Inputs | None], Settings], command: list[str]) -> None:
        """`read_again` reads the settings anew, or makes them of inputs that were read; raises SettingsError."""
        _fill_standard_files()
        self._settings = chosen
        self._read_again = read_again
        self._command = command
        self._delivers = chosen.delivers
        self._status = EXIT_OK
        self._looking = threading.Lock()  # workers come and go while others look
        self._switching = threading.Lock()  # one switch or reload at a time, and no start meanwhile
        self._members: list[Member] = []
        self._is_on = True
        self._switches = 0
        self._reloads = 0
        self._reloads_refused = 0
        self._restarts = 0
        self._stop_signals = 0
        self._stopped_s = 0.0
        self._wake = threading.Event()
        self._started_s = time.monotonic()
        self._inputs = Board.create()
        self._group: SocketGroup
        self._lifeline = -1

    def run(self) -> int:
        """Captures until a signal comes; then has all workers finish, and prints the ledger."""
        chosen = self._settings
        if chosen.delivers:
            _check_outlet(chosen)
        self._pass_on(chosen.inputs)
        self._group = group = SocketGroup(
            chosen.address, udp_ports(chosen), chosen.workers, filters=not chosen.no_filter
        )
        self._lifeline, ours = os.pipe()
        with self._signals(), contextlib.closing(group):
            self._members = [Member(number, group) for number in range(chosen.workers)]
            with (
                metrics_served(chosen, self.look, self._is_healthy),
                control_served(chosen.control, self._on_request),
            ):
                log_start(chosen, f"{group.describe()}, {chosen.workers} workers", chosen.spool_dir)
                note = group.note()
                _log.log(logging.WARNING if note.is_warning else logging.INFO, "%s", note.text)
                with self._switching:
                    for member in self._members:
                        self._start(member)
                while not self._stop_signals and self._status == EXIT_OK:
                    self._watch()
                    self._wake.wait(_LOOK_S)
                    self._wake.clear()
                self._end()
            if self._status == EXIT_OK:
                print_ledger(self.look())
            for member in self._members:
                member.close()
            os.close(ours)
            os.close(self._lifeline)
        return self._status

    def _pass_on(self, inputs: Inputs) -> None:
        """What workers that are started, or read their settings anew, make them of."""
        try:
            self._inputs.write(json.dumps(inputs))
        except ValueError as error:
            raise SettingsError(f"rules, VNI file and .env are too long for several workers: {error}") from None

    # ---- workers

    def _start(self, member: Member) -> None:
        try:
            with self._looking:
                member.start(
                    self._command, len(self._members), self._is_on, self._delivers, self._inputs, self._lifeline
                )
        except OSError as error:
            with self._looking:
                pause_s = member.died()
            _log.error("worker %d can't be started: %s; again in %.1f s", member.number, error.strerror, pause_s)
            return
        assert member.process is not None
        _log.info("worker %d: process %d", member.number, member.process.pid)

    def _watch(self) -> None:
        """Starts anew who died, and ends who hangs; not while something is switched."""
        self._group.drops.count()  # often enough
        if not self._switching.acquire(blocking=False):
            return
        try:
            for member in self._members:
                self._look_after(member)
        finally:
            self._switching.release()

    def _look_after(self, member: Member) -> None:
        now_s = time.monotonic()
        process = member.process
        if process is None:
            if now_s >= member.start_s:
                self._restarts += 1
                self._start(member)
        elif process.poll() is not None:
            if process.returncode == EXIT_OK:
                self._wake.wait(ORDERLY_S)
            if not self._stop_signals:
                self._bury(member, process)
        else:
            with self._looking:
                report = member.report()
            silent_s = now_s - (report.now_s if report is not None else member.started_s)
            if silent_s > HUNG_S:
                _log.error("worker %d (process %d) hangs: it is killed", member.number, process.pid)
                process.kill()
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(1.0)

    def _bury(self, member: Member, process: subprocess.Popen[bytes]) -> None:
        with self._looking:
            has_reported = member.report() is not None
            pause_s = member.died()
        if process.returncode == EXIT_USAGE and not has_reported and not self._restarts:
            self._status = EXIT_USAGE  # it has said what is wrong
            return
        if self._is_on and not self._stop_signals:
            self._group.let_all_in(member.number)  # the next one may want something else
        again = f"it is started again in {pause_s:.1f} s" if pause_s else "it is started again"
        _log.error(
            "worker %d (process %d) has died: %s%s",
            member.number,
            process.pid,
            _how(process.returncode),
            "" if self._stop_signals else f"; {again}, what comes meanwhile waits in its socket",
        )

    def _end(self) -> None:
        """Asks all to end, once they can hear it, and waits. One that is dead, or dies of it, is started once more for
        what lies in its socket.
        """
        self._group.shut_out()
        waited_for = set(self._members)
        started = set() if self._status == EXIT_OK else set(self._members)
        asked: set[Member] = set()
        end_s = time.monotonic() + END_S
        while waited_for and time.monotonic() < end_s:
            for member in list(waited_for):
                process = member.process
                status = process.poll() if process is not None else None
                if process is None or status not in (None, EXIT_OK):
                    if process is not None:
                        self._bury(member, process)
                    if member in started:
                        waited_for.remove(member)
                        continue
                    started.add(member)
                    asked.discard(member)
                    self._start(member)
                elif status == EXIT_OK:
                    waited_for.remove(member)
                elif member not in asked and self._can_hear(member):
                    asked.add(member)
                    process.send_signal(signal.SIGTERM)
            time.sleep(_LOOK_S / 10)
        for member in waited_for:
            process = member.process
            if process is not None:
                process.kill()
                process.wait()
                self._bury(member, process)

    def _can_hear(self, member: Member) -> bool:
        """Whether it handles signals by now."""
        with self._looking:
            return member.report() is not None or self._status != EXIT_OK

    # ---- looks

    def look(self) -> Ledger:
        """The ledger of all workers, there were and there are."""
        dropped = self._group.drops.count()
        with self._looking:
            some = [member.ledger() for member in self._members]
        own = [
            *ledger.switches(
                self._is_on,
                # A change of the VNI file is a switch, too, and each worker counts it.
                max([self._switches, *(fact.value for one in some for fact in one.facts if fact.name == "switches")]),
                self._reloads,
                self._reloads_refused,
                sum(member.is_alive for member in self._members),
                self._restarts,
            ),
            ledger.kernel_dropped(dropped.lost),
            Entry(KERNEL_FILTERED, dropped.filtered, SOCKET_COUNTS[KERNEL_FILTERED]),
        ]
        return ledgers.merged(some, own)

    def _is_healthy(self) -> bool:
        now_s = time.monotonic()
        with self._looking:
            reports = [member.report() for member in self._members if member.is_alive]
        return len(reports) == len(self._members) and all(
            report is not None and report.is_on and report.is_healthy and now_s - report.now_s < HEALTHY_WITHIN_S
            for report in reports
        )

    # ---- control

    def _on_request(self, words: list[str]) -> tuple[bool, str]:
        word = " ".join(words)
        if word == "status":
            return True, self._status_in_words()
        if word in ("on", "off"):
            return self._switch(word == "on")
        if word == "reload":
            return self._reload()
        if words[:1] == ["watch"] and len(words) == 2:
            return self._watched(words[1])
        return False, f"{word!r} is not known: use on, off, status or reload"

    def _ask_all(self, words: list[str], timeout_s: float = ASK_S) -> tuple[list[str], list[str]]:
        """What those say who did it, and those who did not, each thing once. A dead one knows it when it starts."""
        alive = [member for member in self._members if member.is_alive]
        with ThreadPoolExecutor(max(1, len(alive))) as pool:
            answers = list(pool.map(lambda member: member.ask(words, timeout_s), alive))
        done = [text for went_well, text in answers if went_well]
        return list(dict.fromkeys(done)), list(dict.fromkeys(text for went_well, text in answers if not went_well))

    def _switch(self, is_on: bool) -> tuple[bool, str]:
        with self._switching:
            if self._stop_signals:
                return False, _ENDING
            self._switches += self._is_on != is_on
            self._is_on = is_on
            if is_on:
                self._group.let_in()
            else:
                self._group.shut_out()
            done, refused = self._ask_all(["on" if is_on else "off"])
        return not refused, "\n".join(refused or done)

    def _reload(self) -> tuple[bool, str]:
        """Has all workers take the settings as they are now; wrong ones are refused before any worker is asked."""
        with self._switching:
            if self._stop_signals:
                return False, _ENDING
            before = self._settings
            try:
                new = self._read_again(None)
                # What waits for the next start is held back, also from workers that are started meanwhile.
                held = reload.held_back(before, new, self._delivers)
                self._settings = self._read_again(held)
                if reload.changes_outlet(before, self._settings):
                    _check_outlet(self._settings)
                self._pass_on(held)
            except SettingsError as error:
                self._settings = before
                self._reloads_refused += 1
                _log.error("reload refused, all stays as it was: %s", error)
                return False, f"refused, all stays as it was: {error}"
            logging.getLogger().setLevel(logging.DEBUG if new.debug else logging.INFO)
            self._reloads += 1
            done, refused = self._ask_all(["reload"])
        waits = reload.in_words(reload.waiting(before, new, self._delivers))
        for line in waits:
            _log.info("reload: %s", line)
        said = dict.fromkeys(line for text in refused or done for line in text.splitlines())
        if waits:
            said.pop(reload.NOTHING, None)
        return not refused, "\n".join({**said, **dict.fromkeys(waits)})

    def _status_in_words(self) -> str:
        workers = []
        with self._looking:
            for member in self._members:
                report = member.report()
                doing = f"process {member.process.pid}" if member.process is not None else "dead, to be started again"
                counts = {e.name: e.total for e in report.ledger.equations} if report is not None else {}
                frames, calls = counts.get("frames", 0), counts.get("calls", 0)
                workers.append(f"worker {member.number}: {doing}, {frames:,} frames, {calls:,} calls")
        about = "no worker answers"
        for member in self._members:
            if member.is_alive:
                went_well, text = member.ask(["about"], ABOUT_S)
                if went_well:
                    about = text
                    break
        lines = (
            f"vxsniff {__version__} ({build()}), running for {int(time.monotonic() - self._started_s)} s, "
            f"process {os.getpid()}, {len(workers)} workers",
            about,
            *workers,
            self.look().as_text(),
        )
        return "\n".join(lines)

    def _watched(self, word: str) -> tuple[bool, str]:
        """What all workers saw together."""
        before = self._group.drops.count().lost
        try:
            seconds = min(values.parse_seconds(word), MAX_WATCH_S)
        except ValueError as error:
            return False, str(error)
        done, refused = self._ask_all(["watch", str(seconds)], seconds + ASK_S)
        if not done:
            return False, "\n".join(refused) or "no worker is alive"
        seen: Observation = observation.merged([json.loads(text) for text in done])
        seen["kernel_dropped"] = self._group.drops.count().lost - before
        seen["where"] = f"{self._group.describe()}, {len(done)} workers, process {os.getpid()}"
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
        threading.Thread(target=self._reload, name="reload", daemon=True).start()


def _how(status: int) -> str:
    """How a process ended, in words."""
    if status < 0:
        return f"by {signal.Signals(-status).name}"
    return f"with exit status {status}"


def _check_outlet(chosen: Settings) -> None:
    """What is wrong with where calls go shows at once. A pipe is left alone: its reader would see it close."""
    if chosen.posts or not Path(chosen.url).is_fifo():
        open_outlet(chosen, is_shared=True).close()


def _fill_standard_files() -> None:
    """Where one of the first three files is closed, a socket would get its number, and a worker another file there."""
    while True:
        fd = os.open(os.devnull, os.O_RDWR)
        if fd > 2:
            os.close(fd)
            return


def own_command() -> list[str]:
    """The command line that this process was started with."""
    return [sys.executable, *sys.orig_argv[1:]]
